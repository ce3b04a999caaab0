// Config: every setting of the server, typed; where the settings come from, and every check of them.
//
// The table of flags is in config.cc, in the order of the contract. Values are plain; whoever has a copy may use it on
// any thread. The functions are called by main before other threads exist. They read the files that the settings name
// (never write), and do not touch the network; --check_config alone also looks at the ledger's place.
//
// Error texts are one line for each wrong setting, begin with the flag's name and hold no value: someone may have put a
// secret where a path belongs, and a variable of the environment where none of ours belongs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/http/client.h"
#include "server/net/host_port.h"
#include "server/net/origin.h"
#include "server/observe/log.h"

namespace userintent {

using net::HostPort;
using net::Origin;

struct LedgerLocation {
  enum class Kind { kSqlite, kMemory, kPostgresql };
  Kind kind = Kind::kSqlite;
  std::string path;  // kSqlite
  friend bool operator==(const LedgerLocation&, const LedgerLocation&) = default;
};

// How to recognise that Astra says "three attempts used". Status 0: no rule.
struct LimitError {
  int status = 0;
  std::string substring;

  std::string Text() const;  // "STATUS:SUBSTRING", or empty
  friend bool operator==(const LimitError&, const LimitError&) = default;
};

struct Config {
  HostPort listen{"127.0.0.1", 50051};
  std::string tls_cert_file;
  std::string tls_key_file;
  std::string tls_client_ca_file;
  bool allow_plaintext = false;
  std::string policy_file;
  Origin astra_base_url{"api-sandbox.astra.finance", 443};
  std::string astra_client_id_file;
  std::string astra_client_secret_file;
  std::string astra_ca_file;  // empty: the system's
  bool allow_private_upstream = false;
  LimitError astra_limit_error;
  absl::Duration connect_timeout = absl::Seconds(3);
  absl::Duration upstream_timeout = absl::Seconds(30);
  int upstream_connections = 32;
  bool upstream_http2 = true;
  http::Transport upstream_transport = http::Transport::kAuto;
  int max_connections = 0;              // see server.cc, PlacesFor
  int max_connections_per_address = 0;  // 0: half of all; all where --listen is loopback
  int max_in_flight = 4096;
  int max_waiters_per_request = 64;
  int max_waiters_per_caller = 1024;
  absl::Duration default_deadline = absl::Seconds(35);
  absl::Duration min_deadline = absl::Milliseconds(100);
  LedgerLocation ledger{LedgerLocation::Kind::kSqlite, "data/ledger.db"};
  std::string ledger_key_file;
  std::string ledger_previous_key_file;             // see previous_key_files()
  bool ledger_must_exist = false;                   // no new ledger is made
  std::optional<absl::Time> ledger_restored;        // the time of the backup that stands for a newer ledger
  absl::Duration retention = absl::ZeroDuration();  // of requests that ended; zero: for ever
  int email_attempt_limit = 3;
  bool kyc_delegation = false;
  bool allow_non_public_ip = false;
  HostPort metrics_listen{"127.0.0.1", 9464};  // empty: off
  std::optional<bool> reflection;              // see reflection_on()
  absl::Duration drain_timeout = absl::Seconds(35);
  int shards = 0;  // see shard_count()
  observe::Level log_level = observe::Level::kInfo;

  // What the process shall do; given by --help, --version, --check_config and --healthcheck.
  enum class Action { kServe, kHelp, kVersion, kCheckConfig, kHealthcheck };
  Action action = Action::kServe;

  bool tls() const { return !tls_cert_file.empty(); }
  // The files of --ledger_previous_key_file, each with what an error calls it.
  struct KeyFile {
    std::string path;
    std::string what;
  };
  std::vector<KeyFile> previous_key_files() const;
  bool reflection_on() const { return reflection.value_or(listen.loopback()); }
  // --shards, or one per two cores.
  int shard_count() const;
};

// Reads the environment and the command line, and validates what is to be served or checked. The status has a line for
// each setting that is wrong. Prints nothing. With
// kHelp and kVersion the settings are not looked at; with kHealthcheck they are parsed but not validated, because a
// probe may run without the rights to the secret files.
//
// `environment` ends with a null pointer, like environ.
absl::StatusOr<Config> LoadConfig(int argc, const char* const* argv, const char* const* environment);
absl::StatusOr<Config> LoadConfig(int argc, char** argv);

// LoadConfig for main: ends the process where it should not go on (--help, --version, --check_config: 0; errors: 1,
// with a line on stderr for each wrong setting) and so returns with kServe and kHealthcheck only.
Config LoadConfigOrExit(int argc, char** argv);

// Every check of the values. The status has a line for each flag that is wrong.
absl::Status Validate(const Config& config);

// What is allowed but should not go unnoticed; one line each, beginning with the flag's name. Config is valid.
std::vector<std::string> Warnings(const Config& config);

// What --help and --version print.
std::string HelpText();
std::string VersionText();

// The version of the program, without its name.
std::string_view ProgramVersion();

}  // namespace userintent
