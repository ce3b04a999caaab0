#include "server/config/flag_rows.h"

#include <optional>
#include <type_traits>
#include <utility>

#include "server/config/problems.h"

namespace userintent::config {
namespace {

template <typename T>
absl::Status Take(std::string_view name, std::string_view text, T* out) {
  return Parse(text, out) ? absl::OkStatus() : Problem(name, FormOf<T>().must);
}

absl::Status Take(std::string_view, std::string_view text, std::optional<astra::LimitRule>* out) {
  out->reset();
  if (text.empty()) return absl::OkStatus();
  absl::StatusOr<astra::LimitRule> rule = astra::ParseLimitRule(text);
  if (!rule.ok()) return rule.status();
  *out = *std::move(rule);
  return absl::OkStatus();
}

template <auto kMember>
constexpr FlagRow RowOf(const char* name, const char* meaning) {
  using T = std::remove_reference_t<decltype(std::declval<Settings&>().*kMember)>;
  return {name,
          meaning,
          std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>,
          &FormOf<T>,
          [](std::string_view flag, std::string_view text, Settings& settings) {
            return Take(flag, text, &(settings.*kMember));
          },
          [](const Settings& settings) { return Text(settings.*kMember); }};
}

// Defaults are the members of Settings.
constexpr FlagRow kRows[] = {
    RowOf<&Settings::listen>(
        "listen", "gRPC address; port 0 takes a free one and logs it; off loopback needs mTLS or --allow_plaintext"),
    RowOf<&Settings::tls_cert_file>("tls_cert_file",
                                    "server certificate chain (PEM); the three --tls_ flags go together"),
    RowOf<&Settings::tls_key_file>("tls_key_file", "its private key (PEM)"),
    RowOf<&Settings::tls_client_ca_file>("tls_client_ca_file",
                                         "authorities of client certificates (PEM), which every caller must have"),
    RowOf<&Settings::tls_client_crl_file>("tls_client_crl_file", "lists of revoked client certificates (CRLs, PEM)"),
    RowOf<&Settings::trust_domain>("trust_domain", "SPIFFE trust domains of callers; FILE: who may name those"),
    RowOf<&Settings::allow_plaintext>("allow_plaintext",
                                      "listen off loopback without TLS, for a service mesh that adds it"),
    RowOf<&Settings::policy_file>("policy_file", "which caller may call what, how often (JSON); none: everything"),
    RowOf<&Settings::environment>("environment", "Astra's; production must be said, and goes with its own host alone"),
    RowOf<&Settings::astra_base_url>("astra_base_url", "where Astra is: https, host and port only"),
    RowOf<&Settings::astra_client_id_file>("astra_client_id_file", "required; holds the client id for HTTP Basic"),
    RowOf<&Settings::astra_client_secret_file>("astra_client_secret_file",
                                               "required; holds the client secret for HTTP Basic"),
    RowOf<&Settings::astra_ca_file>("astra_ca_file",
                                    "authorities for Astra's certificate (PEM) instead of the system's"),
    RowOf<&Settings::astra_app_url>(
        "astra_app_url",
        "where the pages are that GetAuthorizationUrl sends persons to: https, host and port only; empty: Astra's that "
        "go with --astra_base_url, of its sandbox where that is on loopback"),
    RowOf<&Settings::oauth_redirect_uri>("oauth_redirect_uri",
                                         "where callers of GetAuthorizationUrl may have persons sent back to; without "
                                         "one the method refuses every call"),
    RowOf<&Settings::allow_private_upstream>(
        "allow_private_upstream",
        "allow an upstream host with addresses that are not public; localhost and loopback literals need no flag, "
        "another name that leads to loopback does"),
    RowOf<&Settings::astra_limit_error>(
        "astra_limit_error",
        "an answer with this status, and this text in its error, says that the e-mail address has no attempt left"),
    RowOf<&Settings::connect_timeout>(
        "connect_timeout",
        "limit for one connection to Astra, TCP and TLS; its default gives way to a shorter --upstream_timeout"),
    RowOf<&Settings::upstream_timeout>("upstream_timeout", "hard limit of one exchange with Astra"),
    RowOf<&Settings::late_answer_window>(
        "late_answer_window",
        "how long after --upstream_timeout an exchange is listened to, so that a late answer settles its unknown "
        "outcome; 0: not at all"),
    RowOf<&Settings::upstream_connections>("upstream_connections", "connections to Astra, at most"),
    RowOf<&Settings::upstream_min_limit>(
        "upstream_min_limit",
        "creations that may always be under way at once; the limit moves between this and a hundred for each of "
        "--upstream_connections, by what Astra's answers say"),
    RowOf<&Settings::queue_limit>("queue_limit",
                                  "calls that wait, for a tenth of their time, when that limit is reached; more are "
                                  "refused at once; 0: none waits"),
    RowOf<&Settings::upstream_http2>("upstream_http2", "offer HTTP/2 to Astra; false: HTTP/1.1 only"),
    RowOf<&Settings::upstream_transport>("upstream_transport",
                                         "what speaks to Astra; auto: nghttp2, libcurl where there is no HTTP/2"),
    RowOf<&Settings::upstream_breaker>(
        "upstream_breaker",
        "begin no creation while Astra fails or refuses the credentials (UPSTREAM_SUSPENDED); false: every call is "
        "tried"),
    RowOf<&Settings::max_connections>("max_connections",
                                      "callers' connections, at most; 0: as the descriptor limit allows, up to 2000"),
    RowOf<&Settings::max_connections_per_address>("max_connections_per_address",
                                                  "of these, from one address (IPv6: /64); 0: half, on loopback all"),
    RowOf<&Settings::max_connection_age>("max_connection_age", "a connection so old is ended, but for calls under way"),
    RowOf<&Settings::memory_watermark>("memory_watermark",
                                       "MiB above which the largest connections end; 0: 80 % of the container"),
    RowOf<&Settings::max_in_flight>("max_in_flight", "calls admitted at once; more are refused at once"),
    RowOf<&Settings::max_waiters_per_request>("max_waiters_per_request",
                                              "calls that may wait for one running request; more are answered at once"),
    RowOf<&Settings::max_waiters_per_caller>("max_waiters_per_caller",
                                             "calls of one caller that may wait for running requests"),
    RowOf<&Settings::watch_streams>("watch_streams", "open WatchUserIntents calls, at most; more are refused at once"),
    RowOf<&Settings::watch_streams_per_caller>("watch_streams_per_caller", "of these, of one caller"),
    RowOf<&Settings::default_deadline>("default_deadline", "for callers that set no deadline"),
    RowOf<&Settings::min_deadline>(
        "min_deadline",
        "a call with less time left is not started; its default gives way to a short --default_deadline"),
    RowOf<&Settings::ledger>("ledger",
                             "where requests are recorded; sqlite makes the directory; postgresql is shared by "
                             "replicas; memory is for tests and forgets everything at the end"),
    RowOf<&Settings::ledger_key_file>("ledger_key_file",
                                      "required; 32 or more random bytes, the key of the ledger's hashes"),
    RowOf<&Settings::ledger_previous_key_file>("ledger_previous_key_file",
                                               "keys before it, of older rows: files by commas, the last key first"),
    RowOf<&Settings::ledger_must_exist>("ledger_must_exist",
                                        "a path without a ledger is refused instead of getting a new one"),
    RowOf<&Settings::ledger_migrate>("ledger_migrate",
                                     "bring the schema of a PostgreSQL ledger up to date at the start"),
    RowOf<&Settings::ledger_single_node>("ledger_single_node",
                                         "a PostgreSQL without a synchronous standby will do: if that one server is "
                                         "lost, so is the promise"),
    RowOf<&Settings::ledger_lease>("ledger_lease",
                                   "so long after its last sign of life in PostgreSQL may a replica begin a request; "
                                   "2s to 60s, the same at all"),
    RowOf<&Settings::ledger_fence>("ledger_fence",
                                   "so long without one, and the others take it for dead; at least 3s more than "
                                   "--ledger_lease, the same at all"),
    RowOf<&Settings::replica_name>("replica_name", "of this process, for operators; empty: the host's name"),
    RowOf<&Settings::ledger_restored>(
        "ledger_restored", "acknowledges, once, that a backup of this time (RFC 3339) stands for a newer ledger"),
    RowOf<&Settings::retention>("retention",
                                "requests that ended longer ago are forgotten, at least 9504h (13 months); 0: never; "
                                "attempts of e-mail addresses are kept for ever"),
    RowOf<&Settings::released_retention>("released_retention",
                                         "requests that were not sent, or that Astra did not process, longer ago are "
                                         "forgotten; at least 24h"),
    RowOf<&Settings::watch_history>("watch_history",
                                    "changes that are kept, of all callers; who followed an older one begins anew"),
    RowOf<&Settings::webhook_listen>("webhook_listen",
                                     "address that Astra sends webhooks to; empty: none are received; off loopback "
                                     "needs the --webhook_tls_ flags, or --allow_plaintext behind an ingress"),
    RowOf<&Settings::webhook_path>("webhook_path", "the one path there that is served"),
    RowOf<&Settings::webhook_tls_cert_file>("webhook_tls_cert_file",
                                            "certificate chain (PEM) of --webhook_listen; goes with its key"),
    RowOf<&Settings::webhook_tls_key_file>("webhook_tls_key_file", "its private key (PEM)"),
    RowOf<&Settings::webhook_secret_file>(
        "webhook_secret_file",
        "key of the webhooks' signature, instead of the client secret and, for a day, the one before it"),
    RowOf<&Settings::webhook_previous_secret_file>("webhook_previous_secret_file",
                                                   "a client secret of before, which webhooks may be signed with, too"),
    RowOf<&Settings::webhook_connections>("webhook_connections", "connections to --webhook_listen, at most"),
    RowOf<&Settings::webhook_connections_per_address>(
        "webhook_connections_per_address", "of these, from one address (IPv6: /64); 0: half, on loopback all"),
    RowOf<&Settings::webhook_queue>("webhook_queue",
                                    "webhooks that may wait for their GET; more are refused with 503, for Astra to "
                                    "send again"),
    RowOf<&Settings::astra_read_rate>(
        "astra_read_rate", "GETs a second that Astra is asked for intents, at most twice as many at once; 0: no limit"),
    RowOf<&Settings::follow_up>(
        "follow_up",
        "for so long after a creation its status is read from Astra now and then, also when nobody asks; 0: only while "
        "somebody watches it"),
    RowOf<&Settings::email_attempt_limit>("email_attempt_limit",
                                          "attempts per e-mail address; 0 switches the local check off"),
    RowOf<&Settings::kyc_delegation>("kyc_delegation", "ssn_last_four is optional"),
    RowOf<&Settings::allow_non_public_ip>("allow_non_public_ip", "accept ip_address values that are not public"),
    RowOf<&Settings::metrics_listen>("metrics_listen",
                                     "address of /metrics, /livez, /readyz and /status; empty switches them off"),
    RowOf<&Settings::reflection>("reflection", "gRPC reflection"),
    RowOf<&Settings::drain_timeout>("drain_timeout",
                                    "from SIGTERM or SIGINT until calls under way are given up, --lame_duck included; "
                                    "5 s later the process ends whatever happens"),
    RowOf<&Settings::lame_duck>("lame_duck",
                                "so long after SIGTERM or SIGINT calls are still admitted while health says "
                                "NOT_SERVING, so that load balancers notice; its default gives way to a short "
                                "--drain_timeout"),
    RowOf<&Settings::shards>("shards", "threads that serve calls; 0: one per two cores"),
    RowOf<&Settings::log_level>("log_level", "trace, debug, info, warn or error"),
};

}  // namespace

absl::Span<const FlagRow> FlagRows() { return kRows; }

}  // namespace userintent::config
