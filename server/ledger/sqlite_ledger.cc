#include "server/ledger/sqlite_ledger.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/ledger/backup.h"
#include "server/ledger/execute.h"

namespace userintent::ledger {
namespace {

constexpr size_t kRecoverAtOnce = 1000;

}  // namespace

absl::StatusOr<size_t> RecoverAll(SqliteStore& store, const SqliteStoreOptions& options, int unknown_reason) {
  size_t all = 0;
  for (;;) {
    if (absl::Status s = store.Start(); !s.ok()) return s;
    const absl::StatusOr<size_t> some = Execute(store, RecoverRequest{unknown_reason, options.now(), kRecoverAtOnce});
    if (!some.ok()) return some.status();
    if (options.crash_point != nullptr) options.crash_point("during-recovery");
    if (absl::Status s = store.Commit(); !s.ok()) return s;
    all += *some;
    if (*some == 0) return all;
  }
}

absl::StatusOr<std::unique_ptr<SqliteLedger>> SqliteLedger::Open(SqliteLedgerOptions options) {
  OpeningOptions opening;
  opening.store = options.store;
  opening.must_exist = options.must_exist;
  opening.restored = options.restored;
  opening.warn = options.warn;
  absl::StatusOr<OpenedFiles> files = OpenFiles(opening);
  if (!files.ok()) return files.status();
  if (files->file->volatile_storage()) {
    options.warn(absl::StrCat("ledger ", options.store.path,
                              ": lies in memory (tmpfs); a reboot empties it and voids the promise"));
  }
  SqliteStore& store = *files->store;
  const absl::StatusOr<size_t> recovered = RecoverAll(store, options.store, options.unknown_reason);
  if (!recovered.ok()) return recovered.status();
  Facts facts{*recovered, files->made, absl::FromUnixMicros(store.made_at()), files->restored, store.needed_keys()};
  auto housekeeper = std::make_unique<SqliteHousekeeper>(store, std::move(files->file), files->acknowledged,
                                                         static_cast<SqliteHousekeeping&>(options), options.store);
  options.crash_point = options.store.crash_point;
  options.ledger_id = static_cast<uint64_t>(store.made_at());
  SqliteHousekeeper& keeper = *housekeeper;
  return std::unique_ptr<SqliteLedger>(new SqliteLedger(keeper, std::move(files->store), std::move(housekeeper),
                                                        static_cast<BatchOptions&>(options), std::move(facts)));
}

SqliteLedger::SqliteLedger(SqliteHousekeeper& keeper, std::unique_ptr<SqliteStore> store,
                           std::unique_ptr<Housekeeper> owned, BatchOptions options, Facts facts)
    : BatchLedger(std::move(store), std::move(owned), std::move(options)),
      facts_(std::move(facts)),
      housekeeper_(keeper) {}

absl::Status SqliteLedger::Administer(Work work) {
  return RunOnWriter([&](GroupCommit& commit) { return housekeeper_.Transact(commit, work); });
}

absl::Status SqliteLedger::Between(Work work) {
  return RunOnWriter([&](GroupCommit&) { return housekeeper_.Between(work); });
}

absl::Status SqliteLedger::Transact(OperatorAccess::Work work) {
  return Administer([&work](SqliteStore& store) { return work(store, store); });
}

absl::StatusOr<BackupReport> SqliteLedger::BackUp(const BackupOptions& options) {
  return ledger::BackUp([this](Work work) { return Between(work); }, options);
}

}  // namespace userintent::ledger
