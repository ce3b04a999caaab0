// AdmissionControl: may a new creation begin now? Draining, Astra's rate limit, and the number of calls in flight.
//
// One for the whole process, shared by all shards; every method may be called from any thread. It is asked on the
// ledger's thread, for a call that everything else lets go: replays, joins and refusals hold no place. The order of its
// checks is the contract's (section 3): draining, held back, overload, deadline.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>

#include "absl/time/time.h"
#include "server/base/loop.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::usecase {

class AdmissionControl {
 public:
  struct Options {
    int max_in_flight = 4096;
    SteadyClock::duration min_deadline = std::chrono::milliseconds(100);
  };
  struct Refusal {
    v1::ErrorReason reason;
    absl::Duration retry_after;
  };

  explicit AdmissionControl(const Options& options) : options_(options) {}

  // Takes a place and answers nothing, or says why there is none. Each place taken is given back by one Leave().
  std::optional<Refusal> Enter(SteadyTime now, SteadyTime deadline) {
    if (draining_.load(std::memory_order_acquire)) {
      return Refusal{v1::ERROR_REASON_DRAINING, absl::Seconds(1)};
    }
    const SteadyClock::duration held(held_until_.load(std::memory_order_relaxed) - now.time_since_epoch().count());
    if (held.count() > 0) return Refusal{v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, absl::FromChrono(held)};
    if (in_flight_.fetch_add(1, std::memory_order_acq_rel) >= options_.max_in_flight) {
      Leave();
      return Refusal{v1::ERROR_REASON_OVERLOADED, absl::Seconds(1)};
    }
    if (deadline - now < options_.min_deadline) {
      Leave();
      return Refusal{v1::ERROR_REASON_DEADLINE_TOO_SHORT, absl::ZeroDuration()};
    }
    return std::nullopt;
  }
  void Leave() { in_flight_.fetch_sub(1, std::memory_order_acq_rel); }

  // Astra answered 429: no creation begins before `wait` is over. Never shortens, and never holds for longer than
  // kLongestHold, so that one odd Retry-After cannot shut the gateway for a day.
  void HoldBack(SteadyTime now, absl::Duration wait) {
    const auto until = now + absl::ToChronoNanoseconds(std::min(wait, kLongestHold));
    SteadyClock::rep seen = held_until_.load(std::memory_order_relaxed);
    const SteadyClock::rep wanted = until.time_since_epoch().count();
    while (seen < wanted && !held_until_.compare_exchange_weak(seen, wanted)) {
    }
  }
  // What is left of the hold; zero when nothing is held.
  absl::Duration Held(SteadyTime now) const {
    const SteadyClock::duration held(held_until_.load(std::memory_order_relaxed) - now.time_since_epoch().count());
    return std::max(absl::FromChrono(held), absl::ZeroDuration());
  }

  void Drain() { draining_.store(true, std::memory_order_release); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }
  int in_flight() const { return in_flight_.load(std::memory_order_acquire); }
  const Options& options() const { return options_; }

 private:
  static constexpr absl::Duration kLongestHold = absl::Seconds(60);

  const Options options_;
  std::atomic<bool> draining_{false};
  std::atomic<int> in_flight_{0};
  std::atomic<SteadyClock::rep> held_until_{0};
};

}  // namespace userintent::usecase
