// ledger::SqliteLedger: the durable ledger of one process: one SQLite file, one writer thread, group commit.
//
// Any thread may call any method; they put the operation into a queue and return. The writer takes everything that
// waits (up to max_batch operations), runs it in one transaction, and posts the answers after COMMIT has returned. The
// destructor runs what is queued, tries once more to write what waits for the disk, and joins the writer.
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
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/book.h"
#include "server/ledger/front.h"
#include "server/ledger/ledger.h"
#include "server/ledger/ledger_file.h"
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
  absl::Duration retry_first = absl::Milliseconds(200);
  absl::Duration retry_most = absl::Seconds(2);
  // Below this much free space nothing new starts, so that the outcomes of what runs can still be written.
  int64_t min_free_bytes = 64 << 20;
  // One line for the log, from Open's thread or the writer's: a failing disk, its recovery, a volatile file system.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  // After every batch, on the writer's thread.
  std::function<void(const BatchReport&)> on_batch = [](const BatchReport&) {};
};

class SqliteLedger : public Ledger {
 public:
  // Locks, opens, checks and recovers: rows that a dead process left SENDING become UNKNOWN. Blocks. Everything it
  // refuses is one clear line.
  static absl::StatusOr<std::unique_ptr<SqliteLedger>> Open(SqliteLedgerOptions options);
  ~SqliteLedger() override;
  SqliteLedger(const SqliteLedger&) = delete;
  SqliteLedger& operator=(const SqliteLedger&) = delete;

  Token Begin(BeginRequest request, Executor& executor, BeginDone done) override;
  void Forget(Token token) override;
  void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                   AttemptDone done) override;
  void Finish(FinishRequest request, Executor& executor, FinishDone done) override;
  void Get(Key key, Executor& executor, GetDone done) override;
  bool Writable() const override { return writable_.load(std::memory_order_relaxed); }

  // Rows that Open turned from SENDING into UNKNOWN.
  size_t recovered() const { return recovered_; }

 private:
  SqliteLedger(SqliteLedgerOptions options, std::unique_ptr<LedgerFile> file, std::unique_ptr<SqliteStore> store,
               size_t recovered);
  void Enqueue(Op op);
  void Write();  // the writer thread
  void LookAtFreeSpace();
  void Report();

  const SqliteLedgerOptions options_;
  const std::unique_ptr<LedgerFile> file_;
  const size_t recovered_;
  std::atomic<Token> last_token_{0};
  std::atomic<bool> writable_{true};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Op> queue_;  // guarded by mutex_
  bool idle_ = true;      // guarded by mutex_: the writer sleeps, so whoever brings work must wake it
  bool stop_ = false;     // guarded by mutex_

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
