// ledger::Book: the whole state machine of a row, and every decision about it, as synchronous code over a Store.
//
// The rules exist here once; the memory and the SQLite ledger differ only in their Store. Single-threaded, like the
// Store, which it does not own. Book opens no transaction: the caller brackets one or many operations. A status other
// than OK means that the store failed (the caller rolls back), except kFailedPrecondition, kNotFound and
// kInvalidArgument, which mean that the caller broke the protocol; those have written nothing.
//
//   (none) --Begin--> SENDING --Finish--> SUCCEEDED | FAILED | UNKNOWN       for ever
//                     SENDING --Finish--> RELEASED  --Begin--> SENDING        proof of "not sent" or "refused
//                     unprocessed" SENDING --Recover-> UNKNOWN                             the process died
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class Book {
 public:
  explicit Book(Store& store) : store_(store) {}
  virtual ~Book() = default;
  Book(const Book&) = delete;
  Book& operator=(const Book&) = delete;

  // Never waits: a row that is SENDING answers kInProgress, whatever may_join says. With may_start false nothing is
  // written, not even re-keyed.
  absl::StatusOr<BeginAnswer> Begin(const BeginRequest& request);

  // `committed` is set; it is true once the caller's transaction is committed.
  absl::StatusOr<FinishAnswer> Finish(const FinishRequest& request);

  absl::Status NextAttempt(const Key& key, const Uuid& attempt_id, Sent sent_so_far, absl::Time now);

  absl::StatusOr<GetAnswer> Get(const Key& key);

  // Turns up to `limit` SENDING rows into UNKNOWN with this reason; returns how many. Call it at start until it
  // returns 0: the calls that owned them are gone, and nobody can tell whether they sent.
  absl::StatusOr<size_t> Recover(int reason, absl::Time now, size_t limit);

 protected:
  // The rules that hold the promise, one function each. Virtual for one purpose: the model checker breaks each of them
  // in turn and must notice.
  virtual bool MaySendFrom(State state) const { return state == State::kReleased; }
  virtual absl::StatusOr<bool> SameContent(const Row& own, const BeginRequest& request) const;
  virtual bool IsBusy(const Row& other) const { return other.record.state == State::kSending; }
  virtual bool IsUnresolved(const Row& other, const Key& asking) const;
  virtual bool MaySupersede(const Row& named, const BeginRequest& request) const;
  virtual bool CreatedBefore(const Row& found, const BeginRequest& request) const;
  virtual bool FreesSuperseded(State ended) const { return ended == State::kReleased; }
  virtual bool MayFinish(State state) const { return state == State::kSending; }
  virtual State StateAfterCrash() const { return State::kUnknown; }
  virtual Counters CountOf(const Record& record) const;  // what one row adds to its address

 private:
  static bool SameEmail(const Row& row, const BeginRequest& request);
  absl::Status Rekey(const BeginRequest& request, std::optional<Row>& own);
  absl::StatusOr<Counters> CountBoth(const BeginRequest& request);
  absl::StatusOr<std::vector<Row>> OpenBoth(const BeginRequest& request);
  absl::StatusOr<std::optional<Row>> SucceededBoth(const BeginRequest& request);
  // Writes `after` in place of `before` and keeps the counters of the address equal to the sum over its rows.
  absl::Status Replace(const Record* before, const Row& after);
  absl::Status MarkSuperseded(const Key& key, const std::optional<Uuid>& by, absl::Time now);

  Store& store_;
};

// The current budget that these counters mean.
Budget BudgetOf(const Counters& counters);

// True for the statuses with which Book blames its caller and not the store.
bool IsProtocolError(const absl::Status& status);

}  // namespace userintent::ledger
