#include <openssl/x509.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/environment.h"
#include "server/config/load.h"
#include "server/config/problems.h"

namespace userintent::config {
namespace {

class WarningList {
 public:
  void Add(std::string_view flag, std::string_view text) { lines_.emplace_back(Problem(flag, text).message()); }
  void Add(const RemovedVariables& removed) { lines_.push_back(removed.names + ": " + removed.why); }
  std::vector<std::string> Take() && { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

void WarnOfListener(const Loaded& loaded, WarningList& warnings) {
  const Settings& settings = loaded.settings;
  if (!loaded.tls && !settings.listen.loopback()) {
    warnings.Add("allow_plaintext",
                 "serves personal data without TLS off loopback, to callers that nobody authenticates");
  }
  if (!loaded.tls) return;
  const std::shared_ptr<const tls::ServerCertificate::Pair> pair = loaded.tls.certificate->Snapshot();
  const X509* const own = pair->own();
  if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0) {
    warnings.Add("tls_cert_file", "the certificate has expired");
  }
  if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0) {
    warnings.Add("tls_cert_file", "the certificate is not valid yet");
  }
}

void WarnOfPolicy(const Loaded& loaded, WarningList& warnings) {
  const Settings& settings = loaded.settings;
  if (!loaded.policy) {
    if (settings.listen.loopback()) return;
    warnings.Add("policy_file", loaded.tls ? "not given: every certificate of --tls_client_ca_file may call everything"
                                           : "not given: whoever reaches the port may call everything");
    return;
  }
  const std::shared_ptr<const policy::Policy> policy = loaded.policy->Snapshot().policy;
  if (!loaded.tls && policy->RuleOf("local") == nullptr) {
    warnings.Add("policy_file", "without TLS the caller is \"local\", which no rule names: every call is refused");
  }
  const bool tried_out = std::ranges::any_of(policy->rules(), [](const auto& rule) { return !rule.enforce; });
  if (tried_out) warnings.Add("policy_file", "a rule says enforce: false, so it refuses nothing");
  if (!settings.oauth_redirect_uri.all.empty()) {
    warnings.Add("oauth_redirect_uri", "has no effect beside --policy_file, whose rules have redirect_uris");
  }
}

void WarnOfWebhooks(const Settings& settings, WarningList& warnings) {
  if (settings.webhook_listen.empty() || settings.webhook_listen.loopback() || settings.webhook_tls()) return;
  warnings.Add("webhook_listen", "takes webhooks without TLS off loopback; what stands in front of it must add it");
}

void WarnOfEmailAttemptLimit(int limit, WarningList& warnings) {
  if (limit == 0) {
    warnings.Add("email_attempt_limit", "0 leaves the count of attempts to Astra");
  } else if (limit > 3) {
    warnings.Add("email_attempt_limit", "is larger than Astra's limit of 3");
  }
}

}  // namespace

std::vector<std::string> Warnings(const Loaded& loaded) {
  const Settings& settings = loaded.settings;
  WarningList warnings;
  for (const RemovedVariables& removed : WhatWasRemoved()) warnings.Add(removed);
  WarnOfListener(loaded, warnings);
  WarnOfPolicy(loaded, warnings);
  if (settings.allow_private_upstream) {
    warnings.Add("allow_private_upstream", "personal data may go to a private address");
  }
  if (settings.upstream_timeout > settings.default_deadline) {
    warnings.Add(
        "upstream_timeout",
        "is longer than --default_deadline; a caller that sets no deadline may hear REQUEST_IN_PROGRESS before "
        "the outcome");
  }
  if (settings.drain_timeout - settings.lame_duck_time() < settings.upstream_timeout) {
    warnings.Add("drain_timeout",
                 settings.lame_duck_time() > absl::ZeroDuration()
                     ? "is shorter than --lame_duck and --upstream_timeout together; exchanges cut off by it end with "
                       "an unknown outcome"
                     : "is shorter than --upstream_timeout; exchanges cut off by it end with an unknown outcome");
  }
  if (settings.ledger.kind == LedgerLocation::Kind::kMemory) {
    warnings.Add("ledger",
                 "memory: forgets every request at the end of the process, and the promise of one creation with it");
  }
  WarnOfWebhooks(settings, warnings);
  WarnOfEmailAttemptLimit(settings.email_attempt_limit, warnings);
  if (settings.allow_non_public_ip) {
    warnings.Add("allow_non_public_ip", "accepts addresses of end users that no end user on the internet has");
  }
  if (!settings.metrics_listen.empty() && !settings.metrics_listen.loopback()) {
    warnings.Add("metrics_listen", "shows metrics and the page of /status off loopback, without TLS and to everyone");
  }
  if (settings.reflection_on() && !settings.listen.loopback()) warnings.Add("reflection", "is on off loopback");
  return std::move(warnings).Take();
}

}  // namespace userintent::config
