// config::Load: the settings, and what the files that they name hold: each file is read once, verified, and used as it
// was read. Nothing else of the server reads a configured file; those that may change while it runs are read again by
// astra::Credentials, http::CaFile, policy::PolicyFile, tls::ServerCertificate, tls::ClientAuthorities, webhook::Keys
// and webhook::TlsIdentity themselves.
//
// Called by main before other threads exist, and by tests. Blocks for as long as reading some small local files takes.
// Writes nothing and does not touch the network.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/astra/credentials.h"
#include "server/base/secret.h"
#include "server/config/flags.h"
#include "server/config/settings.h"
#include "server/http/ca_file.h"
#include "server/policy/policy_file.h"
#include "server/tls/files.h"
#include "server/webhook/keys.h"
#include "server/webhook/tls_identity.h"

namespace userintent::config {

// The keys that the ledger may hold rows under.
struct LedgerKeys {
  Secret current;
  std::vector<Secret> previous;  // the last one first
};

// With kServe and kCheckConfig all of it holds together. With kHealthcheck there are settings only, parsed but not
// checked, because a probe may run without the rights to the secret files; with kCheckPolicy the policy and the
// question; with kHelp and kVersion nothing.
struct Loaded {
  Action action = Action::kServe;
  std::string question;  // of kCheckPolicy
  Settings settings;
  tls::Files tls;                              // without them the listener is in plaintext
  std::unique_ptr<policy::PolicyFile> policy;  // null: everybody may call everything
  std::unique_ptr<astra::Credentials> credentials;
  std::unique_ptr<http::CaFile> authorities;  // Astra's; null: the system's
  LedgerKeys ledger_keys;
  std::unique_ptr<webhook::Keys> webhook_keys;        // null: no webhooks are received
  std::unique_ptr<webhook::TlsIdentity> webhook_tls;  // null: in plaintext
};

// From a command line and an environment (which ends with a null pointer, like environ). The status has a line for each
// setting that is wrong, see problems.h. kCheckConfig also looks at the ledger's place.
absl::StatusOr<Loaded> Load(int argc, const char* const* argv, const char* const* environment);

// From settings, to serve.
absl::StatusOr<Loaded> Load(Settings settings);

// The files of the three --tls_ flags; null where they are not given. For --healthcheck, which alone may need them
// without the rest.
absl::StatusOr<tls::Files> LoadTls(const Settings& settings);

// Load for main, with the process's environment: ends the process where it should not go on (--help, --version,
// --check_config: 0; --check_policy: 0 or 1; errors: 1, with a line on stderr for each wrong setting) and so returns
// with kServe and kHealthcheck only.
Loaded LoadOrExit(int argc, char** argv);

// What is allowed but should not go unnoticed; one line each, beginning with the flag's name, or with those of the
// environment's variables that are not heeded (base/environment.h).
std::vector<std::string> Warnings(const Loaded& loaded);

}  // namespace userintent::config
