#include "server/app/policy_watch.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"

namespace userintent {

using observe::Level;
using observe::Log;
using observe::SafeText;

PolicyWatch::PolicyWatch(std::unique_ptr<policy::PolicyFile> file, policy::Gatekeeper& gatekeeper,
                         observe::Metrics& metrics)
    : file_(std::move(file)), gatekeeper_(gatekeeper), metrics_(metrics) {
  if (file_) PutInForce();
}

void PolicyWatch::PutInForce() {
  const policy::PolicyFile::Content content = file_->Snapshot();
  gatekeeper_.Install(content.policy);
  metrics_.policy().SetPolicy(content.sha256, content.policy->rules().size());
}

void PolicyWatch::Announce() const {
  if (!file_) return;
  const policy::PolicyFile::Content content = file_->Snapshot();
  Log(Level::kInfo, "policy_loaded", {{"count", content.policy->rules().size()}, {"sha256", SafeText(content.sha256)}});
}

void PolicyWatch::Refresh() {
  if (!file_) return;
  const absl::StatusOr<bool> changed = file_->Refresh();
  if (!changed.ok()) {
    metrics_.policy().CountReloadFailure();
    // At once for a file that was not refused before, and as a reminder while it stays as it is.
    const std::optional<uint64_t> suppressed = reminder_.Allow();
    if (!suppressed && !file_->RefusalIsNews()) return;
    Log(Level::kError, "policy_not_reloaded",
        {{"error", SafeText(std::string(changed.status().message()))}, {"suppressed", suppressed.value_or(0)}});
  } else if (*changed) {
    PutInForce();
    const policy::PolicyFile::Content content = file_->Snapshot();
    Log(Level::kInfo, "policy_reloaded",
        {{"count", content.policy->rules().size()}, {"sha256", SafeText(content.sha256)}});
    on_change_();
  }
}

void PolicyWatch::ShowAge(SteadyTime now) {
  if (file_) metrics_.policy().SetAge(absl::FromChrono(now - file_->Snapshot().read_at));
}

}  // namespace userintent
