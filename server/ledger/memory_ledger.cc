#include "server/ledger/memory_ledger.h"

#include <utility>
#include <vector>

namespace userintent::ledger {

void MemoryLedger::Run(Op op) {
  std::vector<Op> batch;
  batch.push_back(std::move(op));
  const std::lock_guard<std::mutex> lock(mutex_);
  front_.Run(std::move(batch));
}

Ledger::Token MemoryLedger::Begin(BeginRequest request, Executor& executor, BeginDone done) {
  const Token token = ++last_token_;
  Run(BeginOp{token, std::move(request), &executor, std::move(done)});
  return token;
}

void MemoryLedger::Forget(Token token) { Run(ForgetOp{token}); }

void MemoryLedger::NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                               AttemptDone done) {
  Run(NextAttemptOp{std::move(key), attempt_id, sent_so_far, now, &executor, std::move(done)});
}

void MemoryLedger::Finish(FinishRequest request, Executor& executor, FinishDone done) {
  Run(FinishOp{std::move(request), &executor, std::move(done)});
}

void MemoryLedger::Get(Key key, Executor& executor, GetDone done) {
  Run(GetOp{std::move(key), &executor, std::move(done)});
}

}  // namespace userintent::ledger
