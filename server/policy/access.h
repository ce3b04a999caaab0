// Access: what one caller may do, by the policy in force when its call began; and Gatekeeper, which knows the policy.
//
// Whoever holds an Access decides on one policy, whatever is installed meanwhile.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/policy/account.h"
#include "server/policy/policy.h"

namespace userintent::policy {

// Never changes, but for what the account counts; any thread.
struct Access {
  std::shared_ptr<const Policy> policy;    // null: there is no policy file, and everything is allowed
  const Rule* rule = nullptr;              // the policy's; null: none names the caller, or there is no policy
  std::shared_ptr<CallerAccount> account;  // what the caller has left of its limits; null in tests: no limits

  Verdict Decide(Method method) const { return policy == nullptr ? Verdict{.allowed = true} : Judge(rule, method); }
};

// What would be refused if the rule did not say `enforce: false`; kWouldDenyNames has the words that metrics use.
enum class WouldDeny { kMethod, kCreateRate, kReadRate, kInFlight, kProbeRate };
inline constexpr std::string_view kWouldDenyNames[] = {"method", "create_rate", "read_rate", "in_flight", "probe_rate"};
inline constexpr size_t kWouldDenyCount = std::size(kWouldDenyNames);

// What a call is told at the door.
struct Admission {
  Verdict verdict;
  std::shared_ptr<const Access> access;  // never null
  // Where the verdict is a denial, or would be one: a log line is due, and so many were left out since the last one of
  // this caller and method.
  std::optional<uint64_t> line;
};

// The policy in force. One for the process, which outlives its shards; any thread.
class Gatekeeper {
 public:
  // Puts a policy in force, for each call that begins once this has returned.
  void Install(std::shared_ptr<const Policy> policy);

  // Grows with each policy. Whoever keeps an Access asks for another one when it has grown.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

  // By the caller's internal name. Takes a lock and looks the rule up; a shard's Gate (below) remembers the answer.
  std::shared_ptr<const Access> AccessOf(const std::string& caller);

  // Whether one more log line of a denial may be written: 20 a second in the process, and as many at once.
  bool MayWriteLine(SteadyTime now);

  // Calls of all callers that were over one of their limits.
  OverLimit over_limit() const { return accounts_.over_limit(); }

 private:
  std::atomic<uint64_t> generation_{0};
  std::atomic<SteadyClock::rep> lines_paid_until_{0};
  Accounts accounts_;
  Mutex mutex_;
  std::shared_ptr<const Policy> policy_ ABSL_GUARDED_BY(mutex_);
};

// What a shard knows of the callers that call there: a decision costs one look-up. Belongs to the shard's thread.
class Gate {
 public:
  // How long a caller's denials of one method share a log line.
  static constexpr std::chrono::seconds kLineEvery{10};

  explicit Gate(Gatekeeper& keeper) : keeper_(keeper) {}

  // By the caller's internal name and the policy in force now.
  Admission Admit(const std::string& caller, Method method, SteadyTime now);

  size_t size() const { return known_.size(); }

 private:
  struct Known {
    std::shared_ptr<const Access> access;
    struct Lines {
      SteadyTime next = SteadyTime::min();  // no line before
      uint64_t left_out = 0;
    };
    std::array<Lines, kMethodCount> lines;
  };

  Known& Find(const std::string& caller);

  Gatekeeper& keeper_;
  uint64_t generation_ = 0;  // of the policy, or an older one, that known_ was asked of
  absl::flat_hash_map<std::string, Known> known_;
};

}  // namespace userintent::policy
