// ledger::SqliteHousekeeper: keeps the house of a ledger in a SQLite file: whether its files are in their place and the
// disk has room, the mark beside it, old rows, old webhooks, old changes, and the log.
//
// When the ledger's file is moved, removed or replaced under it, nothing new starts and nothing is sent again: it would
// be recorded where the next start does not find it. What runs is recorded into the open file, which is the truth if it
// comes back; repeats are answered from it. writable() is false until the very files are back.
//
// On the writer's thread, but for the three at the end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/ledger/housekeeper.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/marker.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

struct SqliteHousekeeping {
  // Below this much free space nothing new starts, so that the outcomes of what runs can still be written.
  int64_t min_free_bytes = 64 << 20;
  // Rows that ended longer ago are forgotten; 0: never. So many of them are looked at in one turn, one turn an
  // interval, and when all were seen the writer waits for the pause before it looks again.
  absl::Duration retention = absl::ZeroDuration();
  absl::Duration released_retention = absl::ZeroDuration();  // the same of RELEASED rows
  size_t purge_at_once = 200;                                // also webhooks that are done, see kWebhooksKept
  absl::Duration purge_interval = absl::Seconds(1);
  absl::Duration purge_pause = absl::Minutes(10);
  // So many of the last changes are kept for who follows them; what is older is forgotten while nothing else waits, so
  // many at once and once an interval.
  int64_t watch_history = 1'000'000;
  int64_t prune_at_once = 5'000;
  absl::Duration prune_interval = absl::Seconds(1);
  // The mark beside the ledger is moved on so often while there are changes.
  absl::Duration mark_interval = absl::Seconds(3);
  // So often the writer looks whether the files are in their place: before a batch, and while it has nothing to do.
  absl::Duration look_interval = absl::Milliseconds(100);
  absl::Duration idle_look_interval = absl::Seconds(1);
  // One line for the log: a failing disk, its recovery, a volatile file system.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  // Rows that were forgotten.
  std::function<void(size_t rows)> on_purge = [](size_t) {};
};

class SqliteHousekeeper final : public Housekeeper {
 public:
  // `store` outlives this. Writes the mark.
  SqliteHousekeeper(SqliteStore& store, std::unique_ptr<LedgerFile> file, int64_t acknowledged,
                    SqliteHousekeeping options, const SqliteStoreOptions& store_options);

  void Look(GroupCommit& commit, Time now) override;
  void BeforeWrites(GroupCommit& commit, Time now) override;
  void WhenIdle(GroupCommit& commit, Time now) override;
  void AfterTurn(const GroupCommit& commit) override;
  void AtEnd(GroupCommit& commit) override;
  Time NextDue(bool healthy) const override;

  // An operator's work in a transaction of its own; what it wrote is newer than every copy made before.
  absl::Status Transact(GroupCommit& commit, absl::FunctionRef<absl::Status(SqliteStore&)> work);
  // Outside of one. It may have made a copy.
  absl::Status Between(absl::FunctionRef<absl::Status(SqliteStore&)> work);

  bool writable() const override { return writable_.load(std::memory_order_relaxed); }
  bool in_place() const { return in_place_.load(std::memory_order_relaxed); }
  int64_t rows() const { return rows_.load(std::memory_order_relaxed); }

 private:
  void LookAtPlace();
  void LookAtFreeSpace();
  bool Purges() const {
    return options_.retention > absl::ZeroDuration() || options_.released_retention > absl::ZeroDuration();
  }
  bool PurgeSome(GroupCommit& commit);
  void PruneLog(GroupCommit& commit, Time now);
  bool ForgetSomeWebhooks(GroupCommit& commit);
  void Report(const GroupCommit& commit);

  SqliteStore& store_;
  const std::unique_ptr<LedgerFile> file_;
  const SqliteHousekeeping options_;
  const std::string path_;
  absl::Time (*const now_)();
  Marker marker_;
  bool room_ = true;  // enough free space
  Time look_at_space_{};
  Time look_at_place_{};
  Time purge_at_{};
  Time prune_at_{};
  Time forget_webhooks_at_{};
  bool log_copied_ = true;
  bool reported_writable_ = true;
  std::atomic<bool> writable_{true};
  std::atomic<bool> in_place_{true};
  std::atomic<int64_t> rows_;
};

}  // namespace userintent::ledger
