// ledger::SqliteLedger: the durable ledger of one process: a BatchLedger over one SQLite file.
//
// Any thread may call any method. What happens when the disk fails: GroupCommit; when the files are moved:
// SqliteHousekeeper.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/batch_ledger.h"
#include "server/ledger/opening.h"
#include "server/ledger/operator_access.h"
#include "server/ledger/sqlite_housekeeper.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

// `crash_point` is the store's; `unknown_reason` is also that of rows found SENDING at start.
struct SqliteLedgerOptions : BatchOptions, SqliteHousekeeping {
  SqliteStoreOptions store;
  // OpeningOptions::must_exist and restored.
  bool must_exist = false;
  std::optional<absl::Time> restored;
};

// Turns every row that a dead process left SENDING into UNKNOWN, in steps; returns how many. To be called on every
// store that was opened to write, before anything is decided.
absl::StatusOr<size_t> RecoverAll(SqliteStore& store, const SqliteStoreOptions& options, int unknown_reason);

class SqliteLedger : public BatchLedger, public OperatorAccess {
 public:
  // Locks, opens, checks and recovers: rows that a dead process left SENDING become UNKNOWN. Blocks. Everything it
  // refuses is one clear line.
  static absl::StatusOr<std::unique_ptr<SqliteLedger>> Open(SqliteLedgerOptions options);

  // What Open found.
  size_t recovered() const { return facts_.recovered; }  // rows turned from SENDING into UNKNOWN
  bool made() const { return facts_.made; }              // it made a new ledger
  absl::Time made_at() const { return facts_.made_at; }
  // The last restore that an operator acknowledged, at this start or an earlier one.
  const std::optional<Restored>& restored() const { return facts_.restored; }
  // Whether anything may still be found under this previous key.
  bool needs_key(uint64_t key_id) const { return facts_.needed_keys.count(key_id) != 0; }

  int64_t rows() const { return housekeeper_.rows(); }
  // False while its files are not where they were opened.
  bool InPlace() const { return housekeeper_.in_place(); }

  absl::Status Transact(OperatorAccess::Work work) override;
  absl::StatusOr<BackupReport> BackUp(const BackupOptions& options) override;

  // Runs `work` on the writer's thread in a transaction of its own, and waits for it.
  using Work = absl::FunctionRef<absl::Status(SqliteStore&)>;
  absl::Status Administer(Work work);

  // The same outside of any transaction, between two batches, also while writes fail. For what SQLite does not do
  // within one: copying the database. The work leaves no transaction behind.
  absl::Status Between(Work work);

 private:
  struct Facts {
    size_t recovered = 0;
    bool made = false;
    absl::Time made_at;
    std::optional<Restored> restored;
    std::set<uint64_t> needed_keys;
  };

  SqliteLedger(SqliteHousekeeper& keeper, std::unique_ptr<SqliteStore> store, std::unique_ptr<Housekeeper> owned,
               BatchOptions options, Facts facts);

  const Facts facts_;
  SqliteHousekeeper& housekeeper_;  // the base owns it
};

}  // namespace userintent::ledger
