#include "server/postgres/ledger.h"

#include <atomic>
#include <limits>
#include <utility>

namespace userintent::postgres {

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(LedgerOptions options) {
  const ConnectionOptions connection = options.member.connection;
  options.member.on_lost = options.on_lost;
  absl::StatusOr<std::unique_ptr<Member>> joined = Member::Join(std::move(options.member));
  if (!joined.ok()) return joined.status();
  const std::shared_ptr<Member> member = *std::move(joined);
  const absl::StatusOr<int64_t> revision = member->LastRevision();
  if (!revision.ok()) return revision.status();
  StoreOptions store_options;
  store_options.connection = connection;
  // A commit that hangs is waited for as long as the process lives, and for a moment when it ends; but not at a server
  // whose place another one has taken.
  const auto give_up_at = std::make_shared<std::atomic<BootNanos>>(std::numeric_limits<BootNanos>::max());
  store_options.connection.while_waiting = [give_up_at, member](BootNanos opened) {
    return BootNow() < give_up_at->load(std::memory_order_acquire) && !member->superseded(opened);
  };
  store_options.owner = [member] { return member->owner(); };
  store_options.gone = [member] { return member->gone(); };
  store_options.released_reason = options.released_reason;
  store_options.on_lost = options.on_lost;
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(std::move(store_options));
  if (!store.ok()) return store.status();
  Store& as_store = **store;
  auto keeper = std::make_unique<Keeper>(as_store, *member, std::move(options.housekeeping));
  Keeper& as_keeper = *keeper;
  options.batch.ledger_id = member->ledger_id();
  auto ledger = std::unique_ptr<Ledger>(new Ledger(member, *std::move(store), as_store, std::move(keeper), as_keeper,
                                                   std::move(options.batch), *revision));
  Ledger& it = *ledger;
  it.give_up_at_ = give_up_at;
  member->Run(
      {{&it.changes_, &it.joins_}, [&as_store] { return as_store.committing_since(); }, [&it] { it.GiveUp(); }});
  return ledger;
}

Ledger::Ledger(std::shared_ptr<Member> member, std::unique_ptr<Store> store, Store& as_store,
               std::unique_ptr<Keeper> keeper, Keeper& as_keeper, ledger::BatchOptions batch, int64_t revision)
    : BatchLedger(std::move(store), std::move(keeper), std::move(batch)),
      member_(std::move(member)),
      store_(as_store),
      keeper_(as_keeper),
      changes_(revision),
      joins_(
          {[this] { return ForeignWaits(); }, [this](std::vector<ledger::Key> keys) { WakeEnded(std::move(keys)); }}) {}

Ledger::~Ledger() {
  constexpr BootNanos kLastMoment = 5'000'000'000;
  if (give_up_at_ != nullptr) give_up_at_->store(BootNow() + kLastMoment, std::memory_order_release);
  StopWriter();
  member_->Stop(keeper_.clean());
}

}  // namespace userintent::postgres
