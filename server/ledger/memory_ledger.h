// ledger::MemoryLedger: the ledger of one process's life. For tests and benchmarks: what it knows is gone with the
// process, and with it the promise.
//
// Any thread may call any method; a mutex orders them. Answers are posted through the callers' executors while it is
// held, which is safe because an Executor never runs a task inline.
#pragma once

#include "server/base/mutex.h"
#include "server/ledger/front.h"
#include "server/ledger/memory_store.h"
#include "server/ledger/op_ledger.h"

namespace userintent::ledger {

class MemoryLedger : public OpLedger {
 public:
  explicit MemoryLedger(WaiterLimits limits = {}) : front_(store_, 0, nullptr, limits) {}

  bool Writable() const override { return true; }

 private:
  void Run(Op op) override;

  Mutex mutex_;
  MemoryStore store_ ABSL_GUARDED_BY(mutex_);
  Front front_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::ledger
