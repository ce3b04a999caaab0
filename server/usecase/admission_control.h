// AdmissionControl: may a new creation begin now? The caller's own limits, draining, the breaker, Astra's rate limit,
// the number of calls in flight, and a slot for an exchange with Astra (upstream_queue.h), which a call may have to
// wait for. A call that waits holds its place among --max_in_flight, and its token is spent.
//
// One for the whole process, shared by all shards; every method may be called from any thread. It is asked on the
// ledger's thread, for a call that everything else lets go: replays, joins and refusals hold no place and cost no
// token. The order of its checks is the contract's (section 3): caller's limit, draining, breaker, held back,
// overload, deadline.
//
// Fair shares (contract section 9): while there are places, anybody gets one. When --max_in_flight are taken, a caller
// that holds less than an equal share of them still gets one, and the others are refused, so whoever floods makes room
// as its calls end. Shares are counted among the callers that hold a place or were refused within the last second.
// There are never more than twice --max_in_flight calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/policy/account.h"
#include "server/usecase/upstream_breaker.h"
#include "server/usecase/upstream_queue.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::usecase {

class AdmissionControl {
 public:
  struct Options {
    int max_in_flight = 4096;
    SteadyClock::duration min_deadline = std::chrono::milliseconds(100);
    // What tokens come and go by. Null: what the caller of each function says, which is the time of its loop's turn, a
    // little earlier: whoever comes when it was told to must not find itself too early.
    SteadyTime (*clock)() = nullptr;
    // Hears of every exchange with Astra; outlives this. Null: --noupstream_breaker, and tests.
    UpstreamBreaker* breaker = nullptr;
    UpstreamQueue::Options upstream = {};
  };
  struct Refusal {
    v1::ErrorReason reason;
    absl::Duration retry_after;
    bool waits = false;  // it is none: the call has entered, and hears from the queue when it has a slot
  };
  // The caller's. Null: of one that stands for all that have none.
  using Account = std::shared_ptr<policy::CallerAccount>;

  explicit AdmissionControl(const Options& options) : options_(options), upstream_(options.upstream) {}

  // Takes a place and one of the caller's create tokens, and answers nothing; or takes neither and says why. Where
  // there is no slot and `taker` is given, the call may also wait: it has then taken both. Each place taken is given
  // back by one Leave() or Undo() of the same account and taker.
  std::optional<Refusal> Enter(SteadyTime now, SteadyTime deadline, const Account& account = nullptr,
                               const std::shared_ptr<SlotTaker>& taker = nullptr) {
    const Account& who = account ? account : nobody_;
    const MutexLock lock(mutex_);
    std::optional<Refusal> refusal = Check(now, deadline, who, taker != nullptr);
    if (!refusal) refusal = OverRate(who->TakeCreate(Clock(now)));
    if (!refusal) {
      if (who->in_flight() == 0) ++holders_;
      who->AddInFlight(1);
      in_flight_.fetch_add(1, std::memory_order_acq_rel);
      if (!upstream_.Enter(taker, who)) return Refusal{v1::ERROR_REASON_UNSPECIFIED, absl::ZeroDuration(), true};
      if (options_.breaker != nullptr) options_.breaker->OnBegins(Clock(now));
    } else if (refusal->reason == v1::ERROR_REASON_OVERLOADED && refused_.size() < kMostRefused) {
      refused_.insert_or_assign(who, now);
    }
    return refusal;
  }
  // What Enter() would say of a call that may wait; nothing is taken.
  std::optional<Refusal> Look(SteadyTime now, SteadyTime deadline, const Account& account = nullptr) {
    const MutexLock lock(mutex_);
    return Check(now, deadline, account ? account : nobody_, true);
  }
  // What a call that entered holds by now of what it may wait for.
  SlotTaker::Holds Holds(const SlotTaker& taker) const {
    const MutexLock lock(mutex_);
    return UpstreamQueue::Holds(taker);
  }
  // Of a call that comes out of the queue with its slot: what has changed since it entered.
  std::optional<Refusal> LookAgain(SteadyTime now, SteadyTime deadline) {
    const MutexLock lock(mutex_);
    std::optional<Refusal> refusal = Closed(now);
    if (!refusal) refusal = TooLate(now, deadline);
    if (!refusal && options_.breaker != nullptr) options_.breaker->OnBegins(Clock(now));
    return refusal;
  }
  // Of a call whose time in the queue is over.
  Refusal AfterQueue(SteadyTime now) const {
    return Closed(now).value_or(Refusal{v1::ERROR_REASON_OVERLOADED, kRoomLater});
  }
  // Of a call that has had a try, and its wait before another one: what nothing may leave for now.
  std::optional<Refusal> BeforeTry(SteadyTime now) { return LookAgain(now, SteadyTime::max()); }
  void Leave(const Account& account = nullptr, SlotTaker* taker = nullptr) {
    const Account& who = account ? account : nobody_;
    const MutexLock lock(mutex_);
    who->AddInFlight(-1);
    if (who->in_flight() == 0) --holders_;
    in_flight_.fetch_sub(1, std::memory_order_acq_rel);
    upstream_.Leave(taker);
  }
  // As Leave(), for a call that does not begin after all: the token goes back as well.
  void Undo(const Account& account = nullptr, SlotTaker* taker = nullptr) {
    Leave(account, taker);
    (account ? account : nobody_)->GiveBackCreate();
  }

  // An exchange ended that began at `begun`: the breaker and the limit hear of it. After the credentials were read
  // again for it, so that a refusal of others than are in force now suspends nobody.
  void OnExchange(const astra::Outcome& outcome, SteadyTime begun, SteadyTime now) {
    if (options_.breaker != nullptr) options_.breaker->OnPost(now, begun, outcome);
    const UpstreamLimit::Sample sample = UpstreamLimit::SampleOf(outcome);
    if (sample == UpstreamLimit::Sample::kNothing) return;
    const MutexLock lock(mutex_);
    upstream_.Tell(sample, begun, now);
  }
  struct Upstream {
    int limit, slots;  // of exchanges, and of these taken
    size_t waiting;
  };
  Upstream upstream() const {
    const MutexLock lock(mutex_);
    return {upstream_.limit(), upstream_.slots(), upstream_.waiting()};
  }

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

  SteadyTime Clock(SteadyTime now) const { return options_.clock == nullptr ? now : options_.clock(); }

  void Drain() { draining_.store(true, std::memory_order_release); }
  bool draining() const { return draining_.load(std::memory_order_acquire); }
  int in_flight() const { return in_flight_.load(std::memory_order_acquire); }
  const Options& options() const { return options_; }
  UpstreamBreaker* breaker() const { return options_.breaker; }

 private:
  static constexpr absl::Duration kLongestHold = absl::Seconds(60);
  static constexpr absl::Duration kRoomLater = absl::Seconds(1);  // nobody knows when a place comes free
  static constexpr std::chrono::seconds kRefusedCounts{1};
  static constexpr size_t kMostRefused = 1'000;

  static std::optional<Refusal> OverRate(const std::optional<absl::Duration>& wait) {
    if (!wait) return std::nullopt;
    return Refusal{v1::ERROR_REASON_CALLER_RATE_LIMITED, *wait};
  }

  std::optional<Refusal> Closed(SteadyTime now) const {
    if (draining()) return Refusal{v1::ERROR_REASON_DRAINING, absl::Seconds(1)};
    if (options_.breaker != nullptr) {
      if (const auto wait = options_.breaker->Suspended(Clock(now))) {
        return Refusal{v1::ERROR_REASON_UPSTREAM_SUSPENDED, *wait};
      }
    }
    if (const absl::Duration held = Held(now); held > absl::ZeroDuration()) {
      return Refusal{v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, held};
    }
    return std::nullopt;
  }
  std::optional<Refusal> TooLate(SteadyTime now, SteadyTime deadline) const {
    if (deadline - now >= options_.min_deadline) return std::nullopt;
    return Refusal{v1::ERROR_REASON_DEADLINE_TOO_SHORT, absl::ZeroDuration()};
  }

  std::optional<Refusal> Check(SteadyTime now, SteadyTime deadline, const Account& who, bool may_wait)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!who->MayEnter()) return Refusal{v1::ERROR_REASON_CALLER_RATE_LIMITED, kRoomLater};
    if (const auto over = OverRate(who->LookAtCreate(Clock(now)))) return over;
    if (const auto closed = Closed(now)) return closed;
    if (!HasRoom(now, who) || !upstream_.HasRoom(who, may_wait)) {
      return Refusal{v1::ERROR_REASON_OVERLOADED, kRoomLater};
    }
    return TooLate(now, deadline);
  }

  bool HasRoom(SteadyTime now, const Account& who) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const int64_t total = in_flight();
    const int64_t most = options_.max_in_flight;
    if (total < most) return true;
    return total < 2 * most && who->in_flight() < std::max<int64_t>(1, most / Callers(now, who));
  }

  // Among how many the places are shared, `who` included.
  int64_t Callers(SteadyTime now, const Account& who) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    int64_t callers = holders_ + (who->in_flight() == 0 ? 1 : 0);
    for (auto one = refused_.begin(); one != refused_.end();) {
      const auto at = one++;
      if (now - at->second >= kRefusedCounts) {
        refused_.erase(at);
      } else if (at->first->in_flight() == 0 && at->first != who) {
        ++callers;
      }
    }
    return callers;
  }

  const Options options_;
  const Account nobody_ = std::make_shared<policy::CallerAccount>(policy::Limits{});
  std::atomic<bool> draining_{false};
  std::atomic<int> in_flight_{0};  // changed under the lock
  std::atomic<SteadyClock::rep> held_until_{0};
  mutable Mutex mutex_;
  UpstreamQueue upstream_ ABSL_GUARDED_BY(mutex_);
  int64_t holders_ ABSL_GUARDED_BY(mutex_) = 0;                               // callers that hold a place
  absl::flat_hash_map<Account, SteadyTime> refused_ ABSL_GUARDED_BY(mutex_);  // OVERLOADED, when last
};

}  // namespace userintent::usecase
