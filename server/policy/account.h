// CallerAccount: how much one caller has used of its limits. Accounts: those of all callers of the process.
//
// The limits are its rule's (contract section 9). Without one, or where it is silent: no create_rate, no read_rate, no
// max_in_flight, and kDefaultProbeRate. A rule that says `enforce: false` refuses nothing: what is over a limit passes
// and is counted.
//
// Any thread may call everything here; nothing allocates but Accounts::Of for a caller that it does not know.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/policy/policy.h"
#include "server/policy/token_bucket.h"

namespace userintent::policy {

inline constexpr Rate kDefaultProbeRate{5, 50};

struct Limits {
  std::optional<Rate> create, read;
  Rate probe = kDefaultProbeRate;
  int max_in_flight = std::numeric_limits<int>::max();
  bool enforce = true;
};

// Of a rule; null: of a caller that no rule names.
Limits LimitsOf(const Rule* rule);

// What a caller can be over.
enum class Limit : uint8_t { kCreateRate, kReadRate, kInFlight, kProbeRate };
inline constexpr size_t kLimitCount = 4;

// Calls that were over a limit, in all. By Limit.
struct OverLimit {
  std::array<uint64_t, kLimitCount> refused{};
  std::array<uint64_t, kLimitCount> passed{};  // by `enforce: false`
};

// Of several accounts.
class OverLimitCounters {
 public:
  void Count(Limit limit, bool enforced) {
    (enforced ? refused_ : passed_)[static_cast<size_t>(limit)].fetch_add(1, std::memory_order_relaxed);
  }
  OverLimit Read() const;

 private:
  std::array<std::atomic<uint64_t>, kLimitCount> refused_{};
  std::array<std::atomic<uint64_t>, kLimitCount> passed_{};
};

class CallerAccount {
 public:
  // With full buckets. `counters` outlives the account; null: nobody counts.
  explicit CallerAccount(const Limits& limits, OverLimitCounters* counters = nullptr);
  CallerAccount(const CallerAccount&) = delete;
  CallerAccount& operator=(const CallerAccount&) = delete;

  // Nothing: go, a token was taken, or none is needed. Otherwise none was, and the next comes after so long.
  std::optional<absl::Duration> TakeCreate(SteadyTime now) { return Take(now, Limit::kCreateRate, true); }
  std::optional<absl::Duration> TakeRead(SteadyTime now) { return Take(now, Limit::kReadRate, true); }
  std::optional<absl::Duration> TakeProbe(SteadyTime now) { return Take(now, Limit::kProbeRate, true); }
  // The same answer, and nothing is taken.
  std::optional<absl::Duration> LookAtCreate(SteadyTime now) { return Take(now, Limit::kCreateRate, false); }
  std::optional<absl::Duration> LookAtProbe(SteadyTime now) { return Take(now, Limit::kProbeRate, false); }
  // The call that took it does not begin after all.
  void GiveBackCreate();
  // Whether the log is told that this caller is over its probe_rate: once a minute.
  bool TellOfProbes(SteadyTime now);

  // Creations under way that hold a place among --max_in_flight. AdmissionControl alone changes the number, under its
  // lock.
  int in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  void AddInFlight(int delta) { in_flight_.fetch_add(delta, std::memory_order_relaxed); }
  // Whether max_in_flight has room for one more; one that is over it is counted.
  bool MayEnter();

  // Other limits are in force from now on. Buckets keep their level, see TokenBucket::Change.
  void SetLimits(const Limits& limits, SteadyTime now);

  // Nothing is remembered of this caller: a new account would be the same.
  bool Idle(SteadyTime now) const;

 private:
  // A limit that may be absent; its level is kept in case it comes back.
  struct Bucket {
    TokenBucket tokens;
    bool limited;
  };

  std::optional<absl::Duration> Take(SteadyTime now, Limit limit, bool take);
  Bucket& BucketOf(Limit limit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountOver(Limit limit, bool enforced) const {
    if (counters_ != nullptr) counters_->Count(limit, enforced);
  }

  OverLimitCounters* const counters_;
  std::atomic<int> in_flight_{0};
  mutable Mutex mutex_;
  Bucket create_ ABSL_GUARDED_BY(mutex_);
  Bucket read_ ABSL_GUARDED_BY(mutex_);
  Bucket probe_ ABSL_GUARDED_BY(mutex_);
  int max_in_flight_ ABSL_GUARDED_BY(mutex_);
  bool enforce_ ABSL_GUARDED_BY(mutex_);
  std::optional<SteadyTime> told_of_probes_ ABSL_GUARDED_BY(mutex_);
};

// Keeps the account of every caller that has used some of its limits, and of at most `most` callers. One that is idle
// and that nobody holds is dropped when room is needed; no other is, because it would give its caller a new burst. When
// there is no room all the same, callers that have no account yet share one for each rule, with that rule's limits:
// each may find it used by others of them.
//
// One for the process; outlives its accounts.
class Accounts {
 public:
  static constexpr size_t kMost = 20'000;  // about 400 bytes each

  explicit Accounts(size_t most = kMost) : most_(most) {}
  Accounts(const Accounts&) = delete;
  Accounts& operator=(const Accounts&) = delete;

  // By the caller's internal name; with the limits of `rule` (null: none names the caller) in force from now on. Never
  // null. Whoever asks keeps it while the caller is there, and asks again when the policy has changed.
  std::shared_ptr<CallerAccount> Of(const std::string& caller, const Rule* rule, SteadyTime now);

  size_t size() const;
  OverLimit over_limit() const { return counters_.Read(); }

 private:
  using Map = absl::flat_hash_map<std::string, std::shared_ptr<CallerAccount>>;

  bool MakeRoom(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t most_;
  OverLimitCounters counters_;
  mutable Mutex mutex_;
  Map accounts_ ABSL_GUARDED_BY(mutex_);
  Map shared_ ABSL_GUARDED_BY(mutex_);             // by the rule's name; "" without one
  size_t look_at_ ABSL_GUARDED_BY(mutex_) = 1024;  // so many accounts, and idle ones are looked for
  SteadyTime looked_at_ ABSL_GUARDED_BY(mutex_){};
};

}  // namespace userintent::policy
