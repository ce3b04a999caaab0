#include "server/ledger/memory_ledger.h"

#include <utility>
#include <vector>

namespace userintent::ledger {

void MemoryLedger::Run(Op op) {
  std::vector<Op> batch;
  batch.push_back(std::move(op));
  const MutexLock lock(mutex_);
  front_.Run(std::move(batch));
}

}  // namespace userintent::ledger
