// ledger::MemoryLedger: the ledger of one process's life. For tests and benchmarks: what it knows is gone with the
// process, and with it the promise.
//
// Any thread may call any method; a mutex orders them. Answers are posted through the callers' executors while it is
// held, which is safe because an Executor never runs a task inline.
#pragma once

#include <atomic>
#include <mutex>

#include "server/ledger/book.h"
#include "server/ledger/front.h"
#include "server/ledger/ledger.h"
#include "server/ledger/memory_store.h"

namespace userintent::ledger {

class MemoryLedger : public Ledger {
 public:
  MemoryLedger() : book_(store_), front_(store_, book_, 0) {}

  Token Begin(BeginRequest request, Executor& executor, BeginDone done) override;
  void Forget(Token token) override;
  void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                   AttemptDone done) override;
  void Finish(FinishRequest request, Executor& executor, FinishDone done) override;
  void Get(Key key, Executor& executor, GetDone done) override;
  bool Writable() const override { return true; }

 private:
  void Run(Op op);

  std::atomic<Token> last_token_{0};
  std::mutex mutex_;  // guards what follows
  MemoryStore store_;
  Book book_;
  Front front_;
};

}  // namespace userintent::ledger
