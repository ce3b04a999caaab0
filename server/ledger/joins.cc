#include "server/ledger/joins.h"

#include <utility>

#include "server/ledger/operation.h"

namespace userintent::ledger {

Joins::~Joins() {
  for (auto& [key, waiters] : waiters_) {
    for (Waiter& waiter : waiters) {
      BeginAnswer answer;
      answer.verdict = BeginVerdict::kInProgress;
      Post(*waiter.executor, std::move(waiter.done), std::move(answer));
    }
  }
}

bool Joins::HasRoomFor(const Key& key) const {
  const auto of_request = waiters_.find(key);
  const auto of_caller = by_caller_.find(key.caller);
  return (of_request == waiters_.end() ? 0 : of_request->second.size()) < limits_.per_request &&
         (of_caller == by_caller_.end() ? 0 : of_caller->second) < limits_.per_caller;
}

void Joins::Add(Ledger::Token token, const Key& key, Executor& executor, Ledger::BeginDone done, bool foreign) {
  if (foreign) {
    const MutexLock lock(mutex_);
    foreign_.insert(key);
  }
  by_token_.emplace(token, key);
  ++by_caller_[key.caller];
  waiters_[key].push_back({token, &executor, std::move(done)});
}

void Joins::CountDown(const std::string& caller, size_t waiters) {
  const auto at = by_caller_.find(caller);
  at->second -= waiters;
  if (at->second == 0) by_caller_.erase(at);
}

void Joins::Wake(const Key& key, const Record& record, const Budget& budget,
                 std::optional<absl::Duration> retry_after) {
  const auto at = waiters_.find(key);
  if (at == waiters_.end()) return;
  std::vector<Waiter> waiters = std::move(at->second);
  waiters_.erase(at);
  NobodyWaits(key);
  CountDown(key.caller, waiters.size());
  for (Waiter& waiter : waiters) {
    by_token_.erase(waiter.token);
    BeginAnswer answer;
    answer.verdict = BeginVerdict::kRecorded;
    answer.joined = true;
    answer.own = record;
    answer.budget = budget;
    answer.retry_after = retry_after;
    Post(*waiter.executor, std::move(waiter.done), std::move(answer));
  }
}

void Joins::NobodyWaits(const Key& key) {
  const MutexLock lock(mutex_);
  foreign_.erase(key);
}

std::vector<Key> Joins::ForeignKeys() const {
  const MutexLock lock(mutex_);
  return {foreign_.begin(), foreign_.end()};
}

void Joins::Forget(Ledger::Token token) {
  const auto by_token = by_token_.find(token);
  if (by_token == by_token_.end()) return;
  const auto at = waiters_.find(by_token->second);
  std::erase_if(at->second, [token](const Waiter& waiter) { return waiter.token == token; });
  CountDown(at->first.caller, 1);
  if (at->second.empty()) {
    NobodyWaits(at->first);
    waiters_.erase(at);
  }
  by_token_.erase(by_token);
}

}  // namespace userintent::ledger
