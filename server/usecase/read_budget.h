// ReadBudget: how many GETs Astra is asked, by the whole process. A token bucket: `rate` tokens a second, at most twice
// as many at once.
//
// One for the process, shared by all shards; any thread.
#pragma once

#include <algorithm>
#include <chrono>

#include "server/base/loop.h"
#include "server/base/mutex.h"

namespace userintent::usecase {

class ReadBudget {
 public:
  // `rate` 0: no limit. The bucket is full at the start.
  explicit ReadBudget(double rate) : rate_(rate), tokens_(2 * rate) {}

  // Takes a token and returns zero, or takes none and returns how long until there is one.
  SteadyClock::duration Take(SteadyTime now) {
    if (rate_ <= 0) return SteadyClock::duration::zero();
    using Seconds = std::chrono::duration<double>;
    const MutexLock lock(mutex_);
    // Shards' clocks are those of their turns, so `now` may be a little before the last one.
    if (now > filled_at_) {
      tokens_ = std::min(2 * rate_, tokens_ + Seconds(now - filled_at_).count() * rate_);
      filled_at_ = now;
    }
    if (tokens_ >= 1) {
      tokens_ -= 1;
      return SteadyClock::duration::zero();
    }
    const auto wait = std::chrono::duration_cast<SteadyClock::duration>(Seconds((1 - tokens_) / rate_));
    return std::max<SteadyClock::duration>(wait, std::chrono::milliseconds(1));
  }

 private:
  const double rate_;
  Mutex mutex_;
  double tokens_ ABSL_GUARDED_BY(mutex_);
  SteadyTime filled_at_ ABSL_GUARDED_BY(mutex_){};
};

}  // namespace userintent::usecase
