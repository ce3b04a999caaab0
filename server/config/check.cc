#include "server/config/check.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/clock.h"
#include "server/base/text.h"
#include "server/http/client.h"
#include "server/net/ip_address.h"

namespace userintent::config {
namespace {

struct DurationRange {
  const char* flag;
  absl::Duration Settings::*value;
  absl::Duration max;
};

struct NumberRange {
  const char* flag;
  int Settings::*value;
  int min;
  int max;
};

constexpr int kMostAtOnce = 1000000;

constexpr std::string_view kNeedsTls = "needs --tls_cert_file, --tls_key_file and --tls_client_ca_file";

}  // namespace

void CheckListener(const Settings& settings, Problems& problems) {
  if (settings.listen.empty()) problems.Add("listen", FormOf<net::HostPort>().must);
  const std::pair<const char*, const std::string*> files[] = {{"tls_cert_file", &settings.tls_cert_file},
                                                              {"tls_key_file", &settings.tls_key_file},
                                                              {"tls_client_ca_file", &settings.tls_client_ca_file}};
  const auto missing = [](const auto& file) { return file.second->empty(); };
  const bool any_tls = !std::all_of(std::begin(files), std::end(files), missing);
  const auto* const first_missing = std::find_if(std::begin(files), std::end(files), missing);
  if (any_tls && first_missing != std::end(files)) {
    problems.Add(first_missing->first, "missing; --tls_cert_file, --tls_key_file and --tls_client_ca_file go together");
  }
  if (!any_tls && !settings.tls_client_crl_file.empty()) problems.Add("tls_client_crl_file", kNeedsTls);
  if (!any_tls && !settings.trust_domain.all.empty()) problems.Add("trust_domain", kNeedsTls);
  if (!settings.listen.loopback() && !any_tls && !settings.allow_plaintext) {
    problems.Add("listen",
                 "off loopback needs the three --tls_ flags, or --allow_plaintext behind a mesh that adds TLS");
  }
  // Webhooks may come through an ingress that adds TLS, whatever the callers' port has.
  const bool webhooks_in_plaintext =
      !settings.webhook_listen.empty() && !settings.webhook_listen.loopback() && !settings.webhook_tls();
  if (any_tls && settings.allow_plaintext && !webhooks_in_plaintext) {
    problems.Add("allow_plaintext", "contradicts the --tls_ flags");
  }
}

void CheckAuthorization(const Settings& settings, const policy::Policy* policy, Problems& problems) {
  if (settings.app_url()) return;
  constexpr std::string_view kWhy = " needs it, because --astra_base_url is none of Astra's";
  if (policy != nullptr) {
    const bool any = std::ranges::any_of(policy->rules(), [](const auto& rule) { return !rule.redirect_uris.empty(); });
    if (any) problems.Add("astra_app_url", std::string("a rule with redirect_uris in --policy_file").append(kWhy));
  } else if (!settings.oauth_redirect_uri.all.empty()) {
    problems.Add("astra_app_url", std::string("--oauth_redirect_uri").append(kWhy));
  }
}

// Credentials look alike in both environments, so what is compared is what the operator says and the host. A mistake
// here spends attempts of real people, or shows real people's data to the wrong side.
void CheckEnvironment(const Settings& settings, Problems& problems) {
  const Environment said = settings.environment;
  const Environment host = EnvironmentOf(settings.astra_base_url.host);
  if (said == Environment::kNotSaid && host == Environment::kProduction) {
    problems.Add("astra_base_url", "is Astra's production; --environment=production says that this is meant");
  } else if (said == Environment::kSandbox && host == Environment::kProduction) {
    problems.Add("environment", "sandbox contradicts --astra_base_url, which is Astra's production");
  } else if (said == Environment::kProduction && host == Environment::kSandbox) {
    problems.Add("environment",
                 "production contradicts --astra_base_url, which is Astra's sandbox (also where it is not given)");
  } else if (said == Environment::kProduction && host != Environment::kProduction) {
    problems.Add("environment",
                 "production goes with Astra's own host alone, --astra_base_url=https://api.astra.finance");
  }
  if (said == Environment::kProduction && settings.ledger.kind == LedgerLocation::Kind::kMemory) {
    problems.Add("ledger", "memory: forgets every request, which --environment=production does not allow");
  }
  if (!settings.astra_app_url) return;
  const Environment pages = EnvironmentOf(settings.astra_app_url->host);
  if (pages == Environment::kProduction && settings.astra_environment() != Environment::kProduction) {
    problems.Add("astra_app_url", "is of Astra's production, and --astra_base_url is not");
  } else if (pages == Environment::kSandbox && settings.astra_environment() == Environment::kProduction) {
    problems.Add("astra_app_url", "is of Astra's sandbox, and --astra_base_url is not");
  }
}

void CheckUpstream(const Settings& settings, Problems& problems) {
  // Names are judged when they are resolved.
  if (const std::optional<net::IpAddress> literal = net::ParseIp(settings.astra_base_url.host)) {
    const net::AddressKind kind = net::UpstreamKind(*literal);
    const std::string name(net::SpecialPurposeName(*literal));
    if (kind == net::AddressKind::kUnusable) {
      problems.Add("astra_base_url", "is an address that nobody can be reached at (" + name + ')');
    } else if (kind == net::AddressKind::kPrivate && !settings.allow_private_upstream) {
      problems.Add("astra_base_url", "is not a public address (" + name + "); --allow_private_upstream allows it");
    }
  }
  if (!settings.upstream_http2 && settings.upstream_transport == http::Transport::kNghttp2) {
    problems.Add("upstream_transport", "nghttp2 speaks HTTP/2 only, which --upstream_http2=false forbids");
  }
  // Where neither is out of its own range.
  const int connections = settings.upstream_connections;
  if (connections > 0 && settings.upstream_min_limit <= kMostAtOnce &&
      (settings.upstream_min_limit - 1) / 100 >= connections) {
    problems.Add("upstream_min_limit", "must not be more than a hundred for each of --upstream_connections");
  }
}

void CheckLameDuck(const Settings& settings, Problems& problems) {
  const absl::Duration duck = settings.lame_duck.value_or(absl::ZeroDuration());
  if (duck != absl::ZeroDuration() && (duck < absl::Milliseconds(1) || duck > absl::Hours(1))) {
    problems.Add("lame_duck", "must be 0, or from 1ms to 1h");
  } else if (duck >= settings.drain_timeout && !problems.Has("drain_timeout")) {
    problems.Add("lame_duck", "must be shorter than --drain_timeout, which it is the first part of");
  }
}

// In the order of the table of flags. The least duration is one millisecond: finer than that nothing is timed.
void CheckRanges(const Settings& settings, Problems& problems) {
  static constexpr DurationRange kDurations[] = {
      {"connect_timeout", &Settings::connect_timeout, absl::Minutes(1)},
      {"upstream_timeout", &Settings::upstream_timeout, absl::Minutes(10)},
      {"default_deadline", &Settings::default_deadline, absl::Hours(1)},
      {"min_deadline", &Settings::min_deadline, absl::Minutes(1)},
      {"drain_timeout", &Settings::drain_timeout, absl::Hours(1)},
  };
  static constexpr NumberRange kNumbers[] = {
      {"upstream_connections", &Settings::upstream_connections, 1, 10000},
      {"upstream_min_limit", &Settings::upstream_min_limit, 1, kMostAtOnce},
      {"queue_limit", &Settings::queue_limit, 0, 1000000},
      {"max_connections", &Settings::max_connections, 0, 1000000},
      {"max_connections_per_address", &Settings::max_connections_per_address, 0, 1000000},
      {"memory_watermark", &Settings::memory_watermark, 0, 1 << 20},
      {"max_in_flight", &Settings::max_in_flight, 1, 1000000},
      {"max_waiters_per_request", &Settings::max_waiters_per_request, 0, 1000000},
      {"max_waiters_per_caller", &Settings::max_waiters_per_caller, 0, 1000000},
      {"watch_history", &Settings::watch_history, 1, 1000000000},
      {"watch_streams", &Settings::watch_streams, 1, 1000000},
      {"watch_streams_per_caller", &Settings::watch_streams_per_caller, 1, 1000000},
      {"webhook_connections", &Settings::webhook_connections, 1, 100000},
      {"webhook_connections_per_address", &Settings::webhook_connections_per_address, 0, 100000},
      {"webhook_queue", &Settings::webhook_queue, 1, 1000000},
      {"astra_read_rate", &Settings::astra_read_rate, 0, 1000000},
      {"email_attempt_limit", &Settings::email_attempt_limit, 0, 1000},
      {"shards", &Settings::shards, 0, 256},
  };
  for (const DurationRange& range : kDurations) {
    const absl::Duration value = settings.*range.value;
    if (value < absl::Milliseconds(1) || value > range.max) {
      problems.Add(range.flag, "must be from 1ms to " + absl::FormatDuration(range.max));
    }
  }
  if (settings.follow_up != absl::ZeroDuration() &&
      (settings.follow_up < absl::Minutes(1) || settings.follow_up > absl::Hours(8784))) {
    problems.Add("follow_up", "must be 0, or from 1m to 8784h");
  }
  if (settings.max_connection_age < absl::Seconds(10) || settings.max_connection_age > absl::Hours(24)) {
    problems.Add("max_connection_age", "must be from 10s to 24h");
  }
  for (const NumberRange& range : kNumbers) {
    const int value = settings.*range.value;
    if (value < range.min || value > range.max) {
      problems.Add(range.flag, "must be from " + std::to_string(range.min) + " to " + std::to_string(range.max));
    }
  }
  const absl::Duration window = settings.late_answer_window;
  if (window != absl::ZeroDuration() && (window < absl::Milliseconds(1) || window > absl::Hours(1))) {
    problems.Add("late_answer_window", "must be 0, or from 1ms to 1h");
  }
  CheckLameDuck(settings, problems);
  if (settings.connect_timeout > settings.upstream_timeout && !problems.Has("upstream_timeout")) {
    problems.Add("connect_timeout", "must not be longer than --upstream_timeout");
  }
  if (settings.min_deadline >= settings.default_deadline && !problems.Has("default_deadline")) {
    problems.Add("min_deadline", "must be shorter than --default_deadline");
  }
}

void CheckMetrics(const Settings& settings, Problems& problems) {
  if (!settings.metrics_listen.empty() && settings.metrics_listen.port != 0 &&
      settings.metrics_listen == settings.listen) {
    problems.Add("metrics_listen", "is the same address as --listen");
  }
}

void CheckWebhooks(const Settings& settings, Problems& problems) {
  const net::HostPort& listen = settings.webhook_listen;
  const std::pair<const char*, const std::string*> files[] = {
      {"webhook_tls_cert_file", &settings.webhook_tls_cert_file},
      {"webhook_tls_key_file", &settings.webhook_tls_key_file},
      {"webhook_secret_file", &settings.webhook_secret_file},
      {"webhook_previous_secret_file", &settings.webhook_previous_secret_file}};
  for (const auto& [flag, path] : files) {
    if (listen.empty() && !path->empty()) problems.Add(flag, "needs --webhook_listen");
  }
  if (settings.webhook_tls_cert_file.empty() != settings.webhook_tls_key_file.empty()) {
    problems.Add(settings.webhook_tls_cert_file.empty() ? "webhook_tls_cert_file" : "webhook_tls_key_file",
                 "missing; --webhook_tls_cert_file and --webhook_tls_key_file go together");
  }
  if (!settings.webhook_secret_file.empty() && !settings.webhook_previous_secret_file.empty()) {
    problems.Add("webhook_previous_secret_file", "contradicts --webhook_secret_file, which is the only key");
  }
  if (listen.empty()) return;
  if (!listen.loopback() && !settings.webhook_tls() && !settings.allow_plaintext) {
    problems.Add(
        "webhook_listen",
        "off loopback needs the two --webhook_tls_ flags, or --allow_plaintext behind an ingress that adds TLS");
  }
  if (listen.port != 0 && (listen == settings.listen || listen == settings.metrics_listen)) {
    problems.Add("webhook_listen", "is the address of --listen or --metrics_listen");
  }
}

}  // namespace userintent::config
