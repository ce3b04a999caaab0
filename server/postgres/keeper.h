// postgres::Keeper: the housekeeper of a Store: what may start, whose rows are recovered, what is forgotten.
//
// Called by BatchLedger on the writer's thread, but for writable(). Asks the Member, which outlives it.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "server/base/time.h"
#include "server/ledger/housekeeper.h"
#include "server/postgres/member.h"
#include "server/postgres/store.h"

namespace userintent::postgres {

struct Housekeeping {
  int unknown_reason = 0;                                    // of rows whose replica is gone
  absl::Duration retention = absl::ZeroDuration();           // of requests that ended; zero: for ever
  absl::Duration released_retention = absl::ZeroDuration();  // of RELEASED ones
  int64_t watch_history = 1'000'000;                         // changes that are kept
  size_t at_once = 200;
  absl::Duration interval = absl::Seconds(1);  // between two turns that found something
  absl::Duration pause = absl::Minutes(10);    // after one that found nothing
  absl::Duration sweep = absl::Milliseconds(500);
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  std::function<void(size_t rows)> on_purge = [](size_t) {};
  std::function<void(size_t rows)> on_recovered = [](size_t) {};
  absl::Time (*now)() = NowMicros;
};

class Keeper final : public ledger::Housekeeper {
 public:
  Keeper(Store& store, const Member& member, Housekeeping options)
      : store_(store), member_(member), options_(std::move(options)) {}

  void Look(ledger::GroupCommit& commit, Time now) override;
  void BeforeWrites(ledger::GroupCommit&, Time) override {}
  void WhenIdle(ledger::GroupCommit& commit, Time now) override;
  void AfterTurn(const ledger::GroupCommit& commit) override;
  void AtEnd(ledger::GroupCommit& commit) override;
  Time NextDue(bool healthy) const override;

  // Any thread.
  bool writable() const override { return healthy_.load(std::memory_order_acquire) && member_.well(); }
  // Everything that ended here is in the database.
  bool clean() const { return clean_.load(std::memory_order_acquire); }

 private:
  void Sweep(ledger::GroupCommit& commit, Time now);
  bool PurgeSome(ledger::GroupCommit& commit);
  bool PruneLog();
  bool ForgetSomeWebhooks();

  Store& store_;
  const Member& member_;
  const Housekeeping options_;
  Time sweep_at_{};
  Time purge_at_{};
  Time prune_at_{};
  Time forget_at_{};
  bool told_healthy_ = true;
  std::atomic<bool> healthy_{true};
  std::atomic<bool> clean_{false};
};

}  // namespace userintent::postgres
