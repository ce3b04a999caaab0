#include "server/app/file_reloader.h"

#include <optional>
#include <string>

namespace userintent {

using observe::Event;
using observe::Level;
using observe::Log;
using observe::SafeText;

void FileReloader::Poll(SteadyTime now) {
  if (now < next_) return;
  next_ = now + kInterval;
  ReloadNow();
}

void FileReloader::ReloadNow() {
  const absl::StatusOr<bool> credentials = credentials_.Refresh();
  Tell(credentials, credentials_.RefusalIsNews(), credentials_reminder_, Event("credentials_reloaded"),
       Event("credentials_not_reloaded"));
  if (policy_ != nullptr) policy_->Refresh();
  if (authorities_ != nullptr) {
    const absl::StatusOr<bool> authorities = authorities_->Refresh();
    Tell(authorities, authorities_->RefusalIsNews(), authorities_reminder_, Event("astra_ca_reloaded"),
         Event("astra_ca_not_reloaded"));
  }
  if (tls_) {
    const absl::StatusOr<bool> certificate = tls_.certificate->Refresh();
    Tell(certificate, tls_.certificate->RefusalIsNews(), tls_certificate_reminder_, Event("tls_certificate_reloaded"),
         Event("tls_certificate_not_reloaded"));
    const absl::StatusOr<bool> callers = tls_.authorities->Refresh();
    Tell(callers, tls_.authorities->RefusalIsNews(), tls_client_ca_reminder_, Event("tls_client_ca_reloaded"),
         Event("tls_client_ca_not_reloaded"));
  }
  if (webhook_keys_ != nullptr) {
    TellClientSecret();
    const absl::StatusOr<bool> keys = webhook_keys_->Refresh();
    Tell(keys, webhook_keys_->RefusalIsNews(), webhook_keys_reminder_, Event("webhook_keys_reloaded"),
         Event("webhook_keys_not_reloaded"));
  }
  if (webhook_identity_ != nullptr) {
    const absl::StatusOr<bool> identity = webhook_identity_->Refresh();
    Tell(identity, webhook_identity_->RefusalIsNews(), webhook_identity_reminder_, Event("webhook_tls_reloaded"),
         Event("webhook_tls_not_reloaded"));
  }
}

// Also where this reading of the file changed nothing: a shard that met a 401 may have read it first.
void FileReloader::TellClientSecret() {
  webhook_keys_->SetClientSecret(credentials_.Snapshot()->client_secret, SteadyClock::now());
}

void FileReloader::Tell(const absl::StatusOr<bool>& changed, bool refusal_is_news, observe::LogLimiter& limiter,
                        Event reloaded, Event refused) {
  if (!changed.ok()) {
    const std::optional<uint64_t> suppressed = limiter.Allow();
    if (suppressed || refusal_is_news) {
      Log(Level::kError, refused,
          {{"error", SafeText(std::string(changed.status().message()))}, {"suppressed", suppressed.value_or(0)}});
    }
    metrics_.CountCredentialReload(false);
  } else if (*changed) {
    Log(Level::kInfo, reloaded);
    metrics_.CountCredentialReload(true);
  }
}

}  // namespace userintent
