// postgres::Ledger: the ledger that replicas share: a BatchLedger over a Store in PostgreSQL, with the Member that
// makes this process one of them.
//
// Any thread may call any method. Owns the member, the writer's thread (BatchLedger) and the pollers. On destruction
// the writer ends what is queued first, while the member still beats; then the member leaves.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/batch_ledger.h"
#include "server/postgres/change_log.h"
#include "server/postgres/foreign_joins.h"
#include "server/postgres/keeper.h"
#include "server/postgres/member.h"
#include "server/postgres/store.h"

namespace userintent::postgres {

struct LedgerOptions {
  MemberOptions member;
  Housekeeping housekeeping;
  int released_reason = 0;  // of a row that was begun in a commit whose answer was lost
  // The database has forgotten so many rows that it had confirmed: see StoreOptions.
  std::function<void(size_t rows)> on_lost = [](size_t) {};
  ledger::BatchOptions batch;
};

class Ledger : public ledger::BatchLedger {
 public:
  // Connects, checks and registers. Blocks. Everything it refuses is one clear line.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(LedgerOptions options);
  ~Ledger() override;

  int64_t revision() const override { return changes_.revision(); }
  void SetListener(ledger::ChangeListener* listener) override { changes_.SetListener(listener); }
  ledger::Share share() const override { return member_->share(); }

  absl::Time made_at() const { return member_->made_at(); }
  int64_t restored() const { return member_->restored(); }
  int64_t epoch() const { return member_->owner().epoch; }
  MemberReport report() const { return member_->report(); }
  // Requests whose begin was sent to the database and not answered.
  size_t in_doubt() const { return store_.in_doubt(); }

 private:
  Ledger(std::shared_ptr<Member> member, std::unique_ptr<Store> store, Store& as_store, std::unique_ptr<Keeper> keeper,
         Keeper& as_keeper, ledger::BatchOptions batch, int64_t revision);

  const std::shared_ptr<Member> member_;  // the store and the keeper, which the base owns, ask it
  const Store& store_;                    // the base's
  Keeper& keeper_;
  ChangePoller changes_;
  ForeignJoins joins_;
  std::shared_ptr<std::atomic<BootNanos>> give_up_at_;  // what the writer waits for, it waits for until then
};

}  // namespace userintent::postgres
