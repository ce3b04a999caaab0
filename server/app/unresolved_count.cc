#include "server/app/unresolved_count.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace userintent {
namespace {

constexpr auto kInterval = std::chrono::seconds(5);

}  // namespace

void UnresolvedCount::Look(SteadyTime now, absl::Time wall_clock) {
  bool ask = false;
  ledger::UnresolvedAnswer answer;
  {
    const MutexLock lock(known_->mutex);
    // One question at a time: a ledger that hangs is not asked again until it answers.
    if (now >= next_) ask = !std::exchange(known_->asking, true);
    answer = known_->answer;
  }
  if (ask) {
    next_ = now + kInterval;
    ledger_.CountUnresolved(executor_, [known = known_](const ledger::UnresolvedAnswer& counted) {
      const MutexLock lock(known->mutex);
      known->asking = false;
      if (counted.available) known->answer = counted;
    });
  }
  if (!answer.available) return;
  const absl::Duration age = answer.count == 0 ? absl::ZeroDuration() : wall_clock - answer.oldest;
  metrics_.SetUnresolved(answer.count, std::max(age, absl::ZeroDuration()));
}

}  // namespace userintent
