#include "server/policy/access.h"

#include <algorithm>
#include <utility>

namespace userintent::policy {

void Gatekeeper::Install(std::shared_ptr<const Policy> policy) {
  const MutexLock lock(mutex_);
  policy_.swap(policy);
  generation_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const Access> Gatekeeper::AccessOf(const std::string& caller) {
  auto access = std::make_shared<Access>();
  const MutexLock lock(mutex_);
  access->policy = policy_;
  if (policy_ != nullptr) access->rule = policy_->RuleOf(caller);
  access->account = accounts_.Of(caller, access->rule, SteadyClock::now());
  return access;
}

// A bucket of tokens, kept as the time up to which all lines so far have been paid for.
bool Gatekeeper::MayWriteLine(SteadyTime now) {
  constexpr SteadyClock::rep kPrice = SteadyClock::duration(std::chrono::milliseconds(50)).count();
  constexpr SteadyClock::rep kBurst = 20 * kPrice;
  const SteadyClock::rep at = now.time_since_epoch().count();
  SteadyClock::rep paid = lines_paid_until_.load(std::memory_order_relaxed);
  for (;;) {
    const SteadyClock::rep next = std::max(paid, at) + kPrice;
    if (next - at > kBurst) return false;
    if (lines_paid_until_.compare_exchange_weak(paid, next, std::memory_order_relaxed)) return true;
  }
}

Gate::Known& Gate::Find(const std::string& caller) {
  constexpr size_t kKept = 1000;  // callers that never come back leave theirs behind
  // Read before the policy is: what is asked then is of this policy or of a newer one, and a newer one is noticed.
  const uint64_t generation = keeper_.generation();
  if (generation != generation_) {
    for (auto& [name, known] : known_) known.access.reset();
    generation_ = generation;
  }
  if (known_.size() >= kKept && !known_.contains(caller)) known_.clear();
  Known& known = known_[caller];
  if (known.access == nullptr) known.access = keeper_.AccessOf(caller);
  return known;
}

Admission Gate::Admit(const std::string& caller, Method method, SteadyTime now) {
  Known& known = Find(caller);
  Admission admission{known.access->Decide(method), known.access, std::nullopt};
  if (admission.verdict.allowed && !admission.verdict.would_deny) return admission;
  Known::Lines& lines = known.lines[static_cast<size_t>(method)];
  if (now < lines.next || !keeper_.MayWriteLine(now)) {
    ++lines.left_out;
    return admission;
  }
  lines.next = now + kLineEvery;
  admission.line = std::exchange(lines.left_out, 0);
  return admission;
}

}  // namespace userintent::policy
