#include "server/policy/access.h"

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
  return access;
}

std::shared_ptr<const Access> Gate::AccessOf(const std::string& caller) {
  constexpr size_t kKept = 1000;  // callers that never come back leave theirs behind
  // Read before the policy is: what is asked then is of this policy or of a newer one, and a newer one is noticed.
  const uint64_t generation = keeper_.generation();
  if (generation != generation_ || known_.size() >= kKept) {
    known_.clear();
    generation_ = generation;
  }
  std::shared_ptr<const Access>& access = known_[caller];
  if (access == nullptr) access = keeper_.AccessOf(caller);
  return access;
}

}  // namespace userintent::policy
