#include "server/app/file_reloader.h"

#include <optional>
#include <string>

namespace userintent {

using observe::Level;
using observe::Log;
using observe::SafeText;

void FileReloader::Poll(SteadyTime now) {
  if (now < next_) return;
  next_ = now + kInterval;
  ReloadNow();
}

void FileReloader::ReloadNow() {
  for (const auto& step : steps_) step();
}

// At once for a file that was not refused before, and as a reminder while it stays as it is.
void FileReloader::Tell(const absl::StatusOr<bool>& changed, bool refusal_is_news, observe::LogLimiter& reminder,
                        observe::Event reloaded, observe::Event refused) {
  if (!changed.ok()) {
    const std::optional<uint64_t> suppressed = reminder.Allow();
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
