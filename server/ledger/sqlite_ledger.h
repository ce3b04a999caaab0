// ledger::SqliteLedger: the durable ledger of one process: one SQLite file, one writer thread, group commit.
//
// Any thread may call any method; they put the operation into a queue and return. The writer takes everything that
// waits (up to max_batch operations), runs it in one transaction, and posts the answers after COMMIT has returned.
// Between two batches it does what Administer asks for, and, when nothing waits, forgets rows older than the retention.
// The destructor runs what is queued, tries once more to write what waits for the disk, and joins the writer.
//
// When the ledger's file is moved, removed or replaced under it, nothing new starts and nothing is sent again: it would
// be recorded where the next start does not find it. What runs is recorded into the open file, which is the truth if it
// comes back; repeats are answered from it. Writable() is false until the very files are back.
//
// When the disk fails: see Front. The writer tries again by itself, after retry_first, then ever slower up to
// retry_most; Writable() is false meanwhile.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/front.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/marker.h"
#include "server/ledger/op_ledger.h"
#include "server/ledger/opening.h"
#include "server/ledger/operator_access.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

// What one turn of the writer did, for metrics.
struct BatchReport {
  size_t operations = 0;
  absl::Duration took;
  bool committed = true;
  size_t waiting_outcomes = 0;  // that could not be written yet
};

struct SqliteLedgerOptions {
  SqliteStoreOptions store;
  // The reason number of "outcome unknown": for rows found SENDING at start, and shown while an outcome waits for the
  // disk.
  int unknown_reason = 0;
  size_t max_batch = 256;
  WaiterLimits waiters;
  absl::Duration retry_first = absl::Milliseconds(200);
  absl::Duration retry_most = absl::Seconds(2);
  // Below this much free space nothing new starts, so that the outcomes of what runs can still be written.
  int64_t min_free_bytes = 64 << 20;
  // Rows that ended longer ago are forgotten; 0: never. So many of them are looked at in one turn, one turn an
  // interval, and when all were seen the writer waits for the pause before it looks again.
  absl::Duration retention = absl::ZeroDuration();
  size_t purge_at_once = 200;
  absl::Duration purge_interval = absl::Seconds(1);
  absl::Duration purge_pause = absl::Minutes(10);
  // OpeningOptions::must_exist and restored.
  bool must_exist = false;
  std::optional<absl::Time> restored;
  // The mark beside the ledger is moved on so often while there are changes.
  absl::Duration mark_interval = absl::Seconds(3);
  // So often the writer looks whether the files are in their place: before a batch, and while it has nothing to do.
  absl::Duration look_interval = absl::Milliseconds(100);
  absl::Duration idle_look_interval = absl::Seconds(1);
  // One line for the log, from Open's thread or the writer's: a failing disk, its recovery, a volatile file system.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  // After every batch, on the writer's thread.
  std::function<void(const BatchReport&)> on_batch = [](const BatchReport&) {};
  // Rows that were forgotten, on the writer's thread.
  std::function<void(size_t rows)> on_purge = [](size_t) {};
};

// Turns every row that a dead process left SENDING into UNKNOWN, in steps; returns how many. Whoever opens a store
// calls it before anything is decided.
absl::StatusOr<size_t> RecoverAll(SqliteStore& store, const SqliteStoreOptions& options, int unknown_reason);

class SqliteLedger : public OpLedger, public OperatorAccess {
 public:
  // Locks, opens, checks and recovers: rows that a dead process left SENDING become UNKNOWN. Blocks. Everything it
  // refuses is one clear line.
  static absl::StatusOr<std::unique_ptr<SqliteLedger>> Open(SqliteLedgerOptions options);
  ~SqliteLedger() override;
  SqliteLedger(const SqliteLedger&) = delete;
  SqliteLedger& operator=(const SqliteLedger&) = delete;

  bool Writable() const override { return writable_.load(std::memory_order_relaxed); }

  // Rows that Open turned from SENDING into UNKNOWN.
  size_t recovered() const { return recovered_; }
  // Open made a new ledger.
  bool made() const { return made_; }
  absl::Time made_at() const { return made_at_; }
  // The last restore that an operator acknowledged, at this start or an earlier one.
  const std::optional<Restored>& restored() const { return restored_; }
  int64_t rows() const { return rows_.load(std::memory_order_relaxed); }
  // False while its files are not where they were opened.
  bool InPlace() const { return in_place_.load(std::memory_order_relaxed); }

  // Whether anything may still be found under this previous key, as of Open.
  bool needs_key(uint64_t key_id) const { return needed_keys_.count(key_id) != 0; }

  absl::Status Transact(OperatorAccess::Work work) override;
  absl::StatusOr<BackupReport> BackUp(const BackupOptions& options) override;

  // Runs `work` on the writer's thread in a transaction of its own (Front::Transact), and waits for it.
  using Work = absl::FunctionRef<absl::Status(SqliteStore&)>;
  absl::Status Administer(Work work);

  // The same outside of any transaction, between two batches, also while writes fail. For what SQLite does not do
  // within one: copying the database. The work leaves no transaction behind.
  absl::Status Between(Work work);

 private:
  using Steady = std::chrono::steady_clock;
  struct Job {
    Work work;
    bool in_transaction;
    std::promise<absl::Status> done;
  };
  // What the writer does next.
  struct Turn {
    std::vector<Op> batch;
    Job* job = nullptr;
    bool stopping = false;
  };

  SqliteLedger(SqliteLedgerOptions options, OpenedFiles files, size_t recovered);
  void Run(Op op) override;
  absl::Status Await(Job job);
  void Wake();   // under mutex_
  void Write();  // the writer thread
  Turn Take();
  Steady::time_point WakeAt() const;
  void Look(Steady::time_point now);
  void LookAtPlace();
  void LookAtFreeSpace();
  void Retry(Steady::time_point now, bool stopping);
  void RunBatch(std::vector<Op> batch, Steady::time_point now);
  void RunJob(Job* job);
  bool PurgeSome();
  void Report();
  void EndWriting();

  const SqliteLedgerOptions options_;
  const bool made_;
  const std::optional<Restored> restored_;
  const std::unique_ptr<LedgerFile> file_;
  const size_t recovered_;
  const std::set<uint64_t> needed_keys_;
  const absl::Time made_at_;
  std::atomic<bool> writable_{true};
  std::atomic<bool> in_place_{true};
  std::atomic<int64_t> rows_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Op> queue_;   // guarded by mutex_
  std::deque<Job*> jobs_;  // guarded by mutex_; they live in Await
  bool idle_ = true;       // guarded by mutex_: the writer sleeps, so whoever brings work must wake it
  bool stop_ = false;      // guarded by mutex_

  // The writer's own, from its start to its end. The front goes before the store.
  const std::unique_ptr<SqliteStore> store_;
  Front front_;
  Marker marker_;
  bool room_ = true;  // enough free space
  Steady::time_point look_at_space_{};
  Steady::time_point look_at_place_{};
  Steady::time_point retry_at_ = Steady::time_point::max();
  std::chrono::milliseconds pause_{};
  Steady::time_point purge_at_{};
  bool log_copied_ = true;
  bool reported_writable_ = true;

  std::thread writer_;
};

}  // namespace userintent::ledger
