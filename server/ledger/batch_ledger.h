// ledger::BatchLedger: the asynchronous Ledger over any Store, its ChangeFeed and its WebhookQueue.
//
// Any thread may call any method of these. With a writer thread, calls put their operation into a queue and return;
// the writer takes everything that waits (up to max_batch operations), runs it in one transaction (GroupCommit), and
// posts the answers after the commit. Between two batches it does what RunOnWriter asks for, and what the Housekeeper
// has to do. Without a writer thread each operation is a batch of its own, run on the caller's thread under a lock: an
// Executor never runs a task inline, so posting under the lock is safe.
//
// When the disk fails: see GroupCommit. The writer tries again by itself, after retry_first, then ever slower up to
// retry_most; Writable() is false meanwhile. So it is while the writer hangs: on a disk that neither does nor refuses.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/mutex.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/group_commit.h"
#include "server/ledger/housekeeper.h"
#include "server/ledger/ledger.h"
#include "server/ledger/operation.h"
#include "server/ledger/store.h"
#include "server/ledger/webhook_queue.h"

namespace userintent::ledger {

// What one turn of the writer did, for metrics.
struct BatchReport {
  size_t operations = 0;
  bool may_write = true;  // false: all of them only read
  absl::Duration took;
  bool committed = true;
  size_t waiting_outcomes = 0;  // that could not be written yet
};

struct BatchOptions {
  // The reason number of "outcome unknown", shown while an outcome waits for the disk.
  int unknown_reason = 0;
  uint64_t ledger_id = 0;  // ChangeFeed::ledger_id
  size_t max_batch = 256;
  WaiterLimits waiters;
  size_t webhook_limit = 10'000;  // so many webhooks may wait
  absl::Duration retry_first = absl::Milliseconds(200);
  absl::Duration retry_most = absl::Seconds(2);
  absl::Duration hangs_after = absl::Seconds(2);  // the writer, when a turn takes longer
  CrashPoint crash_point = nullptr;
  // After every batch, on the writer's thread.
  std::function<void(const BatchReport&)> on_batch = [](const BatchReport&) {};
};

class BatchLedger : public Ledger, public ChangeFeed, public WebhookQueue {
 public:
  // With a writer thread, and a housekeeper that it calls.
  BatchLedger(std::unique_ptr<Store> store, std::unique_ptr<Housekeeper> housekeeper, BatchOptions options);
  // Without.
  BatchLedger(std::unique_ptr<Store> store, BatchOptions options);
  // Runs what is queued, tries once more to write what waits for the disk, and joins the writer.
  ~BatchLedger() override;
  BatchLedger(const BatchLedger&) = delete;
  BatchLedger& operator=(const BatchLedger&) = delete;

  Token Begin(BeginRequest request, Executor& executor, BeginDone done) override;
  void Forget(Token token) override;
  void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                   AttemptDone done) override;
  void Finish(FinishRequest request, Executor& executor, FinishDone done) override;
  void Get(Key key, Executor& executor, GetDone done) override;
  void FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) override;
  void RecordReading(Key key, Reading reading, Executor& executor, ReadingDone done) override;
  void Settle(SettleRequest request, Executor& executor, SettleDone done) override;
  void Trace(TraceRequest request, Executor& executor, TraceDone done) override;
  void ListSucceeded(SucceededRequest request, Executor& executor, SucceededDone done) override;
  void CountUnresolved(Executor& executor, UnresolvedDone done) override;
  bool Writable() const override { return housekeeper_ == nullptr || (housekeeper_->writable() && !Hangs()); }

  uint64_t ledger_id() const override { return options_.ledger_id; }
  int64_t revision() const override { return commit_.revision(); }
  void SetListener(ChangeListener* listener) override { commit_.set_listener(listener); }
  void ReadChanges(Request request, Executor& executor, Done done) override;

  void Receive(Webhook webhook, Executor& executor, ReceiveDone done) override;
  void Next(absl::Time now, size_t limit, Executor& executor, NextDone done) override;
  void End(EndRequest request, Executor& executor, EndDone done) override;
  void ReceiverAlive(absl::Time now) override;

  // For a ledger that several processes share. The requests that calls wait for here and that others run; and that some
  // of them have ended: those calls hear how.
  std::vector<Key> ForeignWaits() const { return commit_.ForeignWaits(); }
  void WakeEnded(std::vector<Key> keys);
  // While the writer hangs: answers "unavailable" to everything that is queued and by which nothing is lost.
  void GiveUp();

  // Runs `work` on the writer's thread, outside of any transaction, between two batches, also while writes fail, and
  // waits for it. It leaves no transaction behind. Never from a shard's thread.
  using Work = absl::FunctionRef<absl::Status(GroupCommit&)>;
  absl::Status RunOnWriter(Work work);

 protected:
  // What the destructor does first, for a derived class whose parts the writer uses. No call may come any more.
  void StopWriter();

 private:
  using Steady = std::chrono::steady_clock;
  struct Job {
    Work work;
    std::promise<absl::Status> done;
  };
  // What the writer does next.
  struct Turn {
    std::vector<std::unique_ptr<Operation>> batch;
    Job* job = nullptr;
    bool stopping = false;
  };

  void Submit(std::unique_ptr<Operation> operation);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !queue_.empty() || !jobs_.empty(); }

  // The writer's.
  void Write();
  Turn Take();
  Steady::time_point NextDue() const;
  void Retry(Steady::time_point now, bool stopping);
  void RunBatch(GroupCommit::Batch batch, Steady::time_point now);
  bool Hangs() const;

  const BatchOptions options_;
  std::atomic<Token> last_token_{0};

  Mutex mutex_;
  CondVar wake_;
  std::vector<std::unique_ptr<Operation>> queue_ ABSL_GUARDED_BY(mutex_);
  std::deque<Job*> jobs_ ABSL_GUARDED_BY(mutex_);  // they live in RunOnWriter
  bool idle_ ABSL_GUARDED_BY(mutex_) = true;       // the writer sleeps, so what brings work must wake it
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  // The writer's own, from its start to its end; without a writer: used under mutex_.
  const std::unique_ptr<Store> store_;
  const std::unique_ptr<Housekeeper> housekeeper_;  // null: there is no writer
  GroupCommit commit_;
  Steady::time_point retry_at_ = Steady::time_point::max();
  std::chrono::milliseconds pause_{};
  std::atomic<Steady::time_point> runs_since_{Steady::time_point::max()};  // its turn began; max: none is on

  std::thread writer_;
};

}  // namespace userintent::ledger
