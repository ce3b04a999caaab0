// LineBudget: lets so many lines through each second, for lines that a caller can bring about as fast as it likes.
// Unlike LogLimiter it lets a few of them through together. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "server/base/mutex.h"

namespace userintent::observe {

class LineBudget {
 public:
  using Clock = std::chrono::steady_clock;

  explicit LineBudget(int per_second) : per_second_(per_second) {}

  // Empty: do not write the line. Otherwise: write it, with the number of lines left out since the last one.
  std::optional<uint64_t> Allow(Clock::time_point now = Clock::now()) ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    if (now >= window_end_) {
      window_end_ = now + std::chrono::seconds(1);
      written_ = 0;
    }
    if (written_ == per_second_) {
      ++held_;
      return std::nullopt;
    }
    ++written_;
    const uint64_t held = held_;
    held_ = 0;
    return held;
  }

 private:
  const int per_second_;
  Mutex mutex_;
  Clock::time_point window_end_ ABSL_GUARDED_BY(mutex_){};
  int written_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t held_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace userintent::observe
