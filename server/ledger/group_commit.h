// ledger::GroupCommit: runs batches of operations over a Store, each batch in one transaction, and posts their answers
// once it is committed.
//
// Single-threaded but for what says otherwise: the memory ledger calls it under its lock, a ledger with a writer thread
// from that thread. Owns the calls that wait for another call's end (Joins) and the outcomes that wait for the disk
// (Outbox), not the store. After each commit the listener hears what changed, before anybody gets an answer.
//
// When a batch cannot be committed, nothing of it is promised: Begins are decided again read-only (replays, joins and
// refusals still answer, what would have started hears kUnavailable), NextAttempts hear false, Finishes hear
// committed=false and their outcome waits in the outbox. Until Retry() has written those, nothing new starts.
//
// A batch that met another process's changes (Store::Commit says Aborted) is decided again; one that does so again and
// again is run in halves, so that one address that many processes want does not hold up the others. An operation that
// loses by itself twenty times is answered as if the store had failed, and the store counts as well all the same,
// unless an outcome waits now.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/joins.h"
#include "server/ledger/operation.h"
#include "server/ledger/outbox.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class GroupCommit {
 public:
  using Batch = absl::Span<const std::unique_ptr<Operation>>;

  // `unknown_reason` is the reason number shown for a row whose outcome waits for the disk.
  GroupCommit(Store& store, int unknown_reason, CrashPoint crash_point = nullptr, WaiterLimits limits = {})
      : joins_(limits), outbox_(unknown_reason), at_{store, joins_, outbox_, crash_point}, revision_(store.logged()) {}
  GroupCommit(const GroupCommit&) = delete;
  GroupCommit& operator=(const GroupCommit&) = delete;

  // Runs the operations in order, in one transaction, and posts their answers.
  void Run(Batch batch);

  // Runs `work` in a transaction of its own, so that no batch suffers when it fails, and commits what it did when it
  // returns OK. Runs it again where another process was quicker. Unavailable while writes fail.
  absl::Status Transact(absl::FunctionRef<absl::Status()> work);

  Store& store() const { return at_.store; }
  // False: writes failed, and Retry() has not succeeded since.
  bool healthy() const { return healthy_; }

  // Writes the waiting outcomes, or something harmless where there are none. True when that stuck.
  bool Retry();

  void set_admit(bool admit) { at_.admit = admit; }
  void set_resend(bool resend) { at_.resend = resend; }
  void set_webhook_limit(size_t limit) { at_.webhook_limit = limit; }

  // Any thread. See Joins.
  std::vector<Key> ForeignWaits() const { return joins_.ForeignKeys(); }

  // Any thread. See ChangeFeed.
  int64_t revision() const { return revision_.load(std::memory_order_acquire); }
  void set_listener(ChangeListener* listener) { listener_.store(listener, std::memory_order_release); }

  size_t waiting_outcomes() const { return outbox_.size(); }
  size_t waiting_joins() const { return joins_.size(); }
  // Why the last write failed, for the log. Holds no data of a row.
  const absl::Status& last_error() const { return last_error_; }

 private:
  absl::Status WriteUntilDecided(Batch batch);
  void Pause();
  absl::Status Write(Batch batch);
  absl::Status Commit(Batch batch);
  void TellChanges();

  Joins joins_;
  Outbox outbox_;
  Workplace at_;
  std::atomic<int64_t> revision_;
  std::atomic<ChangeListener*> listener_{nullptr};
  absl::InsecureBitGen random_;
  bool healthy_ = true;
  absl::Status last_error_;
};

}  // namespace userintent::ledger
