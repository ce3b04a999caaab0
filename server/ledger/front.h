// ledger::Front: what makes an asynchronous ledger of a Store: batches in one transaction, calls that wait for another
// call's end, and outcomes that could not be written yet.
//
// Single-threaded: the memory ledger calls it under its lock, the SQLite ledger from its writer thread. Owned by one of
// them; owns the waiters and the outcomes that wait for the disk. Answers go out through the callers' executors, never
// inline, and only after Commit.
//
// Calls that wait are counted per request and per caller; one too many is answered at once.
//
// When a batch cannot be committed, nothing of it is promised: Begins are decided again read-only (replays, joins and
// refusals still answer, what would have started hears kUnavailable), NextAttempts hear false, Finishes hear
// committed=false and their outcome waits here. Until Retry() has written those, nothing new starts.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/ledger/execute.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

struct BeginOp {
  Ledger::Token token = 0;
  BeginRequest request;
  Executor* executor = nullptr;
  Ledger::BeginDone done;
};

struct ForgetOp {
  Ledger::Token token = 0;
};

struct NextAttemptOp {
  NextAttemptRequest request;
  Executor* executor = nullptr;
  Ledger::AttemptDone done;
};

struct FinishOp {
  FinishRequest request;
  Executor* executor = nullptr;
  Ledger::FinishDone done;
};

struct GetOp {
  GetRequest request;
  Executor* executor = nullptr;
  Ledger::GetDone done;
};

struct RecordReadingOp {
  ReadingRequest request;
  Executor* executor = nullptr;
  Ledger::ReadingDone done;  // may be null
};

using Op = std::variant<BeginOp, ForgetOp, NextAttemptOp, FinishOp, GetOp, RecordReadingOp>;

class Front {
 public:
  // Names the points at which a test ends the process; null in production.
  using CrashPoint = void (*)(std::string_view name);

  // `unknown_reason` is the reason number shown for a row whose outcome waits for the disk.
  Front(Store& store, int unknown_reason, CrashPoint crash_point = nullptr, WaiterLimits limits = {})
      : store_(store), unknown_reason_(unknown_reason), crash_point_(crash_point), limits_(limits) {}
  // Calls that still wait for another call hear kInProgress.
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  // Runs the operations in order, in one transaction, and posts their answers.
  void Run(std::vector<Op> batch);

  // Runs `work` in a transaction of its own, so that no batch suffers when it fails, and commits what it did when it
  // returns OK. Unavailable while writes fail.
  absl::Status Transact(absl::FunctionRef<absl::Status()> work);

  // False: writes failed, and Retry() has not succeeded since.
  bool healthy() const { return healthy_; }

  // Writes the waiting outcomes, or something harmless where there are none. True when that stuck.
  bool Retry();

  // While false, nothing new starts, as if the store could not be written; outcomes are still written.
  void set_admit(bool admit) { admit_ = admit; }
  // While false, what runs sends no further POST either (NextAttempt hears false).
  void set_resend(bool resend) { resend_ = resend; }

  size_t waiting_outcomes() const { return outcomes_.size(); }
  size_t waiting_joins() const { return waiters_by_token_.size(); }
  // Why the last write failed, for the log. Holds no data of a row.
  const absl::Status& last_error() const { return last_error_; }

 private:
  struct Waiter {
    Ledger::Token token;
    Executor* executor;
    Ledger::BeginDone done;
  };
  // What was decided about to one operation of the batch; monostate where it said nothing (Forget) or refused the
  // operation.
  struct Recorded {};
  using Result = std::variant<std::monostate, BeginAnswer, FinishAnswer, GetAnswer, bool, Recorded>;

  absl::Status Write(std::vector<Op>& batch, std::vector<Result>& results);
  absl::Status Apply(Op& op, Result& result);
  void ReadOnly(Op& op, Result& result);
  void Deliver(Op& op, Result& result);
  void DeliverBegin(BeginOp& op, BeginAnswer answer);
  bool HasRoomFor(const Key& key) const;
  void CountDown(const std::string& caller, size_t waiters);
  void Wake(const Key& key, const Record& record, const Budget& budget);
  void Forget(Ledger::Token token);
  Record AsUnknown(Record record, const FinishRequest& waiting) const;
  void Reach(std::string_view point) const {
    if (crash_point_ != nullptr) crash_point_(point);
  }

  Store& store_;
  const int unknown_reason_;
  const CrashPoint crash_point_;
  const WaiterLimits limits_;
  bool healthy_ = true;
  bool admit_ = true;
  bool resend_ = true;
  absl::Status last_error_;
  absl::flat_hash_map<Key, std::vector<Waiter>, KeyHash> waiters_;
  absl::flat_hash_map<Ledger::Token, Key> waiters_by_token_;
  absl::flat_hash_map<std::string, size_t> waiters_by_caller_;  // none of them zero
  absl::flat_hash_map<Key, FinishRequest, KeyHash> outcomes_;   // that wait for the disk
};

}  // namespace userintent::ledger
