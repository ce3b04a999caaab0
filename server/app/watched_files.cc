#include "server/app/watched_files.h"

#include <utility>

namespace userintent {

WatchedFiles::WatchedFiles(config::Loaded& loaded)
    : credentials(std::move(loaded.credentials)),
      authorities(std::move(loaded.authorities)),
      tls(std::move(loaded.tls)),
      webhook_keys(std::move(loaded.webhook_keys)),
      webhook_tls(std::move(loaded.webhook_tls)) {}

void WatchedFiles::Watch(FileReloader& files) const {
  files.Watch(*credentials, "credentials_reloaded", "credentials_not_reloaded");
  if (authorities) files.Watch(*authorities, "astra_ca_reloaded", "astra_ca_not_reloaded");
  if (tls) {
    files.Watch(*tls.certificate, "tls_certificate_reloaded", "tls_certificate_not_reloaded");
    files.Watch(*tls.authorities, "tls_client_ca_reloaded", "tls_client_ca_not_reloaded");
  }
  if (webhook_keys) {
    const auto tell_secret = [&keys = *webhook_keys, &credentials = *credentials] {
      keys.SetClientSecret(credentials.Snapshot()->client_secret, SteadyClock::now());
    };
    tell_secret();
    files.Also(tell_secret);  // whether or not it was the reading above that saw a new one: a shard reads it at a 401
    files.Watch(*webhook_keys, "webhook_keys_reloaded", "webhook_keys_not_reloaded");
  }
  if (webhook_tls) files.Watch(*webhook_tls, "webhook_tls_reloaded", "webhook_tls_not_reloaded");
}

}  // namespace userintent
