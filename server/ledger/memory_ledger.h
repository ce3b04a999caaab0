// ledger::MemoryLedger: the ledger of one process's life. For tests and benchmarks: what it knows is gone with the
// process, and with it the promise. A BatchLedger without a writer thread.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include "server/base/uuid.h"
#include "server/ledger/batch_ledger.h"
#include "server/ledger/memory_store.h"

namespace userintent::ledger {

class MemoryLedger : public BatchLedger {
 public:
  explicit MemoryLedger(WaiterLimits limits = {}, size_t webhook_limit = BatchOptions().webhook_limit)
      : BatchLedger(std::make_unique<MemoryStore>(), With(limits, webhook_limit)) {}

 private:
  static BatchOptions With(WaiterLimits limits, size_t webhook_limit) {
    BatchOptions options;
    options.waiters = limits;
    options.webhook_limit = webhook_limit;
    const Uuid id = RandomUuid();
    std::memcpy(&options.ledger_id, id.data(), sizeof options.ledger_id);
    return options;
  }
};

}  // namespace userintent::ledger
