// ledger::SqliteLedger: the durable ledger of one process: one SQLite file, one writer thread, group commit.
//
// Any thread may call any method; they put the operation into a queue and return. The writer takes everything that
// waits (up to max_batch operations), runs it in one transaction, and posts the answers after COMMIT has returned.
// Between two batches it does what Administer asks for, and, when nothing waits, forgets rows older than the retention.
// The destructor runs what is queued, tries once more to write what waits for the disk, and joins the writer.
//
// When the disk fails: see Front. The writer tries again by itself, after retry_first, then ever slower up to
// retry_most; Writable() is false meanwhile.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/book.h"
#include "server/ledger/front.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/op_ledger.h"
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

class SqliteLedger : public OpLedger {
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

  // Whether anything may still be found under this previous key, as of Open.
  bool needs_key(uint64_t key_id) const { return needed_keys_.count(key_id) != 0; }

  // Runs `work` on the writer's thread in a transaction of its own (Front::Transact), and waits for it. For operators'
  // doings, which can wait: never from a shard's thread. Work that reads much does so in slices, a call each, because
  // every call of the gateway waits meanwhile.
  using Work = absl::FunctionRef<absl::Status(SqliteStore&, Book&)>;
  absl::Status Administer(Work work);

  // The same outside of any transaction, between two batches, also while writes fail. For what SQLite does not do
  // within one: copying the database. The work leaves no transaction behind.
  absl::Status Between(Work work);

 private:
  SqliteLedger(SqliteLedgerOptions options, std::unique_ptr<LedgerFile> file, std::unique_ptr<SqliteStore> store,
               size_t recovered);
  struct Job {
    Work work;
    bool in_transaction;
    std::promise<absl::Status> done;
  };

  void Run(Op op) override;
  absl::Status Await(Job job);
  void Wake();   // under mutex_
  void Write();  // the writer thread
  bool PurgeSome();
  void LookAtFreeSpace();
  void Report();

  const SqliteLedgerOptions options_;
  const std::unique_ptr<LedgerFile> file_;
  const size_t recovered_;
  const std::set<uint64_t> needed_keys_;
  std::atomic<bool> writable_{true};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Op> queue_;   // guarded by mutex_
  std::deque<Job*> jobs_;  // guarded by mutex_; they live in Await
  bool idle_ = true;       // guarded by mutex_: the writer sleeps, so whoever brings work must wake it
  bool stop_ = false;      // guarded by mutex_

  // The writer's own, from its start to its end. The front goes before the book, the book before the store.
  const std::unique_ptr<SqliteStore> store_;
  Book book_;
  Front front_;
  bool room_ = true;  // enough free space
  bool log_copied_ = true;
  bool reported_writable_ = true;

  std::thread writer_;
};

}  // namespace userintent::ledger
