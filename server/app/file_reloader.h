// FileReloader: reads the files again that may change while the server runs: Astra's credentials and its authorities,
// what the callers' port shows of itself and whom it believes, and what the webhook door shows and knows.
//
// Belongs to main's thread; server.cc owns it, and what it is given outlives it. Reading blocks for as long as some
// small local files take. The log and userintent_credential_reloads_total tell of each change and each refusal; after a
// refusal the last good content stays in use.
#pragma once

#include <utility>

#include "absl/status/statusor.h"
#include "server/app/policy_watch.h"
#include "server/astra/credentials.h"
#include "server/base/loop.h"
#include "server/http/ca_file.h"
#include "server/observe/log.h"
#include "server/observe/metrics.h"
#include "server/tls/files.h"
#include "server/webhook/keys.h"
#include "server/webhook/tls_identity.h"

namespace userintent {

class FileReloader {
 public:
  // `authorities` may be null: the system's, which are not watched. So may `tls`: the listener is in plaintext.
  FileReloader(astra::Credentials& credentials, http::CaFile* authorities, tls::Files tls, observe::Metrics& metrics)
      : credentials_(credentials), authorities_(authorities), tls_(std::move(tls)), metrics_(metrics) {}

  // Before the first poll. `identity` may be null: the door has none. The keys are told the client secret here, too.
  void WatchWebhooks(webhook::Keys* keys, webhook::TlsIdentity* identity) {
    webhook_keys_ = keys;
    webhook_identity_ = identity;
    TellClientSecret();
  }

  // Before the first poll.
  void WatchPolicy(PolicyWatch& policy) { policy_ = &policy; }

  // Reads the files again if the last time, or the start, was two seconds ago.
  void Poll(SteadyTime now);

  void ReloadNow();

 private:
  // At once for a file that was not refused before, and as a reminder while it stays as it is.
  void Tell(const absl::StatusOr<bool>& changed, bool refusal_is_news, observe::LogLimiter& limiter,
            observe::Event reloaded, observe::Event refused);

  void TellClientSecret();

  astra::Credentials& credentials_;
  http::CaFile* const authorities_;
  const tls::Files tls_;
  observe::Metrics& metrics_;
  webhook::Keys* webhook_keys_ = nullptr;
  webhook::TlsIdentity* webhook_identity_ = nullptr;
  PolicyWatch* policy_ = nullptr;
  SteadyTime next_ = SteadyClock::now() + kInterval;
  observe::LogLimiter credentials_reminder_{kReminder};
  observe::LogLimiter authorities_reminder_{kReminder};
  observe::LogLimiter tls_certificate_reminder_{kReminder};
  observe::LogLimiter tls_client_ca_reminder_{kReminder};
  observe::LogLimiter webhook_keys_reminder_{kReminder};
  observe::LogLimiter webhook_identity_reminder_{kReminder};

  static constexpr std::chrono::seconds kInterval{2};
  static constexpr std::chrono::minutes kReminder{1};
};

}  // namespace userintent
