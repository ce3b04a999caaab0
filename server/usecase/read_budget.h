// ReadBudget: how many GETs Astra is asked, by the whole process. A token bucket: `rate` tokens a second, at most twice
// as many at once. Callers come first: the others leave them a part of the bucket (contract section 7). Replicas that
// share a ledger share the rate, in equal parts.
//
// One for the process, shared by all shards; any thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string_view>

#include "server/base/loop.h"
#include "server/base/mutex.h"

namespace userintent::usecase {

// Who wants an intent to be read.
enum class Asker {
  kCaller,    // somebody waits for the answer
  kWebhook,   // Astra said that the intent has changed
  kWatched,   // nobody said so, and a caller watches it
  kFollowUp,  // nor does anybody watch it
  kProbe,     // the breaker, to learn how Astra does
};

// For metrics and logs; indexed by Asker.
inline constexpr std::string_view kAskerNames[] = {"caller", "webhook", "watched", "follow_up", "probe"};
static_assert(std::size(kAskerNames) == static_cast<size_t>(Asker::kProbe) + 1);

class ReadBudget {
 public:
  // `rate` 0: no limit; of all replicas together. The bucket is full at the start.
  explicit ReadBudget(double rate) : rate_(rate), tokens_(2 * rate) {}

  // Takes a token and returns zero, or takes none and returns how long until there is one for this asker, if nobody
  // else takes it. `replicas`: how many there are now; at least 1.
  //
  // A probe takes its token, be there one or not, and the others wait the longer: creations are held up until it has
  // learned how Astra does, and there is at most one in a second or so.
  SteadyClock::duration Take(SteadyTime now, Asker asker, int replicas = 1) {
    if (rate_ <= 0) return SteadyClock::duration::zero();
    using Seconds = std::chrono::duration<double>;
    const double rate = rate_ / std::max(replicas, 1);
    const double burst = std::max(2 * rate, 1.0);  // a bucket that holds no token would never give one
    const MutexLock lock(mutex_);
    // Shards' clocks are those of their turns, so `now` may be a little before the last one.
    if (now > filled_at_) {
      tokens_ += Seconds(now - filled_at_).count() * rate;
      filled_at_ = now;
    }
    tokens_ = std::min(tokens_, burst);
    const double needed = 1 + Reserve(asker, burst);
    if (tokens_ >= needed || asker == Asker::kProbe) {
      tokens_ -= 1;
      return SteadyClock::duration::zero();
    }
    const auto wait = std::chrono::duration_cast<SteadyClock::duration>(Seconds((needed - tokens_) / rate));
    return std::max<SteadyClock::duration>(wait, std::chrono::milliseconds(1));
  }

 private:
  // What must be left in the bucket; never so much that a full one would not do.
  static double Reserve(Asker asker, double burst) {
    constexpr double kShares[] = {0, 0.25, 0.5, 0.5, 0};  // by Asker
    return std::max(0.0, std::min(burst * kShares[static_cast<size_t>(asker)], burst - 1));
  }

  const double rate_;
  Mutex mutex_;
  double tokens_ ABSL_GUARDED_BY(mutex_);
  SteadyTime filled_at_ ABSL_GUARDED_BY(mutex_){};
};

}  // namespace userintent::usecase
