// UnresolvedCount: keeps the metrics of the requests whose outcome is unknown.
//
// Made and used by server.cc on main's thread. The ledger is asked every few seconds, and answers whenever it does;
// what it said last is shown meanwhile, with an age that grows.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/ledger/ledger.h"
#include "server/observe/metrics.h"

namespace userintent {

class UnresolvedCount {
 public:
  // `executor` is where the ledger answers. All outlive this; the ledger's answer may come after it.
  UnresolvedCount(ledger::Ledger& ledger, Executor& executor, observe::Metrics& metrics)
      : ledger_(ledger), executor_(executor), metrics_(metrics) {}

  // Asks, if it is time to, and shows what is known.
  void Look(SteadyTime now, absl::Time wall_clock);

 private:
  struct Known {
    Mutex mutex;
    bool asking ABSL_GUARDED_BY(mutex) = false;
    ledger::UnresolvedAnswer answer ABSL_GUARDED_BY(mutex);
  };

  ledger::Ledger& ledger_;
  Executor& executor_;
  observe::Metrics& metrics_;
  const std::shared_ptr<Known> known_ = std::make_shared<Known>();
  SteadyTime next_{};
};

}  // namespace userintent
