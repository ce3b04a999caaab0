// Settings: the value of every flag of the server, parsed. The table of flags is in flags.cc.
//
// Plain values; a copy may be used on any thread. A command line and an environment become Settings in flags.h; the
// files that Settings name are read in load.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/config/values.h"

namespace userintent::config {

struct Settings {
  net::HostPort listen{"127.0.0.1", 50051};
  std::string tls_cert_file;
  std::string tls_key_file;
  std::string tls_client_ca_file;
  std::string tls_client_crl_file;  // empty: nothing is revoked
  TrustDomains trust_domain;        // empty: names are not pinned
  bool allow_plaintext = false;
  std::string policy_file;
  Environment environment = Environment::kNotSaid;  // see astra_environment()
  net::Origin astra_base_url{"api-sandbox.astra.finance", 443};
  std::string astra_client_id_file;
  std::string astra_client_secret_file;
  std::string astra_ca_file;  // empty: the system's
  bool allow_private_upstream = false;
  // How to recognise that Astra says "three attempts used"; none: not at all.
  std::optional<astra::LimitRule> astra_limit_error;
  std::optional<net::Origin> astra_app_url;  // see app_url()
  RedirectUris oauth_redirect_uri;
  absl::Duration connect_timeout = absl::Seconds(3);
  absl::Duration upstream_timeout = absl::Seconds(30);
  absl::Duration late_answer_window = absl::Minutes(5);  // zero: off
  int upstream_connections = 32;
  int upstream_min_limit = 2;  // exchanges at once, however bad it is; the most: see upstream_max_limit()
  int queue_limit = 1000;      // calls that wait for their turn; 0: none does
  bool upstream_http2 = true;
  http::Transport upstream_transport{};  // kAuto
  bool upstream_breaker = true;
  int max_connections = 0;              // 0: as the descriptor limit allows, up to 2000
  int max_connections_per_address = 0;  // 0: half of all; all where --listen is loopback
  absl::Duration max_connection_age = absl::Minutes(30);
  int memory_watermark = 0;  // MiB; 0: as the container's limit allows
  int max_in_flight = 4096;
  int max_waiters_per_request = 64;
  int max_waiters_per_caller = 1024;
  int watch_streams = 1000;
  int watch_streams_per_caller = 100;
  absl::Duration default_deadline = absl::Seconds(35);
  absl::Duration min_deadline = absl::Milliseconds(100);
  LedgerLocation ledger{LedgerLocation::Kind::kSqlite, "data/ledger.db"};
  std::string ledger_key_file;
  std::string ledger_previous_key_file;            // see previous_key_files()
  bool ledger_must_exist = false;                  // no new ledger is made
  bool ledger_migrate = false;                     // bring the schema of a database up to date
  bool ledger_single_node = false;                 // a database without a standby will do
  std::string replica_name;                        // empty: the host's
  absl::Duration ledger_lease = absl::Seconds(5);  // see postgres::Constants
  absl::Duration ledger_fence = absl::Seconds(10);
  std::optional<absl::Time> ledger_restored;             // the time of the backup that stands for a newer ledger
  absl::Duration retention = absl::ZeroDuration();       // of requests that ended; zero: no limit
  absl::Duration released_retention = absl::Hours(720);  // of requests that were not sent or not processed
  int watch_history = 1'000'000;                         // changes that are kept for who follows them
  net::HostPort webhook_listen;                          // empty: Astra's webhooks are not received
  RequestPath webhook_path{"/astra/webhooks"};
  std::string webhook_tls_cert_file;
  std::string webhook_tls_key_file;
  std::string webhook_secret_file;           // empty: the client secret, and the one before it
  std::string webhook_previous_secret_file;  // empty: none
  int webhook_connections = 512;
  int webhook_connections_per_address = 0;      // 0: half of all; all where --webhook_listen is loopback
  int webhook_queue = 10000;                    // webhooks that may wait
  int astra_read_rate = 20;                     // GETs a second; 0: no limit
  absl::Duration follow_up = absl::Hours(168);  // after a creation; zero: only while it is watched
  int email_attempt_limit = 3;
  bool kyc_delegation = false;
  bool allow_non_public_ip = false;
  net::HostPort metrics_listen{"127.0.0.1", 9464};   // empty: off
  std::optional<bool> reflection;                    // see reflection_on()
  absl::Duration drain_timeout = absl::Seconds(35);  // from the signal on
  std::optional<absl::Duration> lame_duck;           // the first part of it; see lame_duck_time()
  int shards = 0;                                    // see shard_count()
  observe::Level log_level = observe::Level::kInfo;

  bool tls() const { return !tls_cert_file.empty(); }
  bool webhook_tls() const { return !webhook_tls_cert_file.empty(); }
  // The files of --ledger_previous_key_file, each with what an error calls it.
  struct KeyFile {
    std::string path;
    std::string what;
  };
  std::vector<KeyFile> previous_key_files() const;
  // --environment, or the one that --astra_base_url is of where it is Astra's own; kNotSaid for another host.
  Environment astra_environment() const;
  // --astra_app_url, or the host of Astra's pages that goes with --astra_base_url; nothing where none does.
  std::optional<net::Origin> app_url() const;
  // What --upstream_connections carry at once.
  int upstream_max_limit() const { return upstream_connections * 100; }
  bool reflection_on() const { return reflection.value_or(listen.loopback()); }
  // --lame_duck; by default 5 s off loopback, where load balancers may be, but never most of --drain_timeout.
  absl::Duration lame_duck_time() const;
  // --shards, or one per two cores.
  int shard_count() const;
};

// The environment that a host is of, by Astra's documentation of its hosts; kNotSaid for every other one.
Environment EnvironmentOf(std::string_view host);

}  // namespace userintent::config
