// TokenBucket: how often something may be done. It holds at most `burst` tokens and gains `per_second`; over any time t
// it gives out at most burst + per_second * t (contract section 9).
//
// It keeps the time at which it will be full, which says what is missing at any other, and the wait for the next token
// is exact. All times are whole nanoseconds of the steady clock, as the caller tells them; one that is earlier than the
// last token's (shards' clocks are those of their turns) counts as that.
//
// Plain value; whoever shares it between threads holds a lock.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/policy/policy.h"

namespace userintent::policy {

class TokenBucket {
 public:
  // Full. `rate` within the ranges of Rate; what lies outside counts as the nearest number inside.
  explicit TokenBucket(const Rate& rate)
      : interval_(IntervalOf(rate.per_second)), burst_(std::clamp(rate.burst, 1, kMostBurst)) {}

  // Nothing: there is a token. Otherwise the next one comes so much later: never earlier, and not a nanosecond after.
  std::optional<absl::Duration> Peek(SteadyTime now) const {
    const int64_t at = std::max(Nanoseconds(now), last_);
    const int64_t missing = std::max(full_at_, at) - at;
    const int64_t room = interval_ * (burst_ - 1);  // what may be missing while there is one more
    if (missing <= room) return std::nullopt;
    return absl::Nanoseconds(at + missing - room - Nanoseconds(now));
  }

  // Peek, and takes the token where there is one.
  std::optional<absl::Duration> Take(SteadyTime now) {
    std::optional<absl::Duration> wait = Peek(now);
    if (wait) return wait;
    last_ = std::max(Nanoseconds(now), last_);
    full_at_ = std::max(full_at_, last_) + interval_;
    return std::nullopt;
  }

  // Gives one back that was taken; the bucket never holds more than its burst.
  void GiveBack() {
    if (full_at_ != kEver) full_at_ -= interval_;
  }

  bool Full(SteadyTime now) const { return full_at_ <= Nanoseconds(now); }

  // The rate changes: a full bucket stays full, another keeps what tokens it has, as far as they fit.
  void Change(const Rate& rate, SteadyTime now) {
    const TokenBucket next(rate);
    if (next.interval_ == interval_ && next.burst_ == burst_) return;
    const int64_t at = Nanoseconds(now);
    if (full_at_ > at) {
      const auto most = static_cast<double>(next.burst_);
      const double left =
          static_cast<double>(burst_) - static_cast<double>(full_at_ - at) / static_cast<double>(interval_);
      const double missing = most - std::clamp(left, 0.0, most);
      full_at_ = at + static_cast<int64_t>(std::ceil(missing * static_cast<double>(next.interval_)));
    }
    interval_ = next.interval_;
    burst_ = next.burst_;
  }

 private:
  // So that the time to fill a bucket, 1e18 ns at most, can be counted.
  static constexpr double kLeastPerSecond = 0.001;
  static constexpr double kMostPerSecond = 1e9;
  static constexpr int kMostBurst = 1'000'000;
  static constexpr int64_t kEver = std::numeric_limits<int64_t>::min();  // it was always full

  // Of one token, rounded up: never more than the rate.
  static int64_t IntervalOf(double per_second) {
    return static_cast<int64_t>(std::ceil(1e9 / std::clamp(per_second, kLeastPerSecond, kMostPerSecond)));
  }
  static int64_t Nanoseconds(SteadyTime time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  }

  int64_t interval_;
  int64_t burst_;
  int64_t full_at_ = kEver;
  int64_t last_ = kEver;  // when the last token was taken
};

}  // namespace userintent::policy
