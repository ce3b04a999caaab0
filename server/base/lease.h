// Lease: until when this process may begin something that must not begin once others have given it up for dead.
//
// Whoever holds the lease extends it and ends it; whoever is about to let a first byte out asks Holds() right before.
// Any thread. Counted by CLOCK_BOOTTIME, which goes on while the machine is suspended: a process that was frozen or
// moved finds its lease over when it wakes.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <limits>

namespace userintent {

// Nanoseconds since the machine started, times of suspension included. Compared only with itself, on one machine.
using BootNanos = int64_t;

inline BootNanos BootNow() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<BootNanos>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class Lease {
 public:
  Lease() = default;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  bool Holds(BootNanos now) const { return now < until_.load(std::memory_order_acquire); }
  bool Holds() const { return Holds(BootNow()); }
  BootNanos until() const { return until_.load(std::memory_order_acquire); }

  // Never shortens it, and does nothing once it was ended.
  void Extend(BootNanos until) {
    BootNanos was = until_.load(std::memory_order_relaxed);
    while (was != kEnded && was < until && !until_.compare_exchange_weak(was, until, std::memory_order_acq_rel)) {
    }
  }
  // For ever.
  void End() { until_.store(kEnded, std::memory_order_release); }

 private:
  static constexpr BootNanos kEnded = std::numeric_limits<BootNanos>::min();
  std::atomic<BootNanos> until_{0};
};

}  // namespace userintent
