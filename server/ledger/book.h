// ledger::Book: the whole state machine of a row, and every decision about it, as synchronous code over a Store.
//
// The rules exist here once; the memory and the SQLite ledger differ only in their Store. Single-threaded, like the
// Store, which it does not own. Book opens no transaction: the caller brackets one or many operations. A status other
// than OK means that the store failed (the caller rolls back), except kFailedPrecondition, kNotFound and
// kInvalidArgument, which mean that the caller broke the protocol; those have written nothing.
//
//   (none) --Begin--> SENDING --Finish--> SUCCEEDED | FAILED | UNKNOWN       for ever
//                     SENDING --Finish--> RELEASED --Begin--> SENDING     proof of "not sent" or "refused unprocessed"
//                     SENDING --Recover-> UNKNOWN                         the process died
//                     UNKNOWN --Resolve-> SUCCEEDED | FAILED              an operator, with evidence
//                               SUCCEEDED | FAILED --Purge--> (none)      only where a retention is set
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

// What an operator found out about a row whose outcome nobody knew.
struct ResolveRequest {
  Key key;
  std::optional<std::string> created;  // the intent's id, 1-256 bytes; nothing: it was not created
  int not_created_reason = 0;          // of a row that ends as FAILED
  std::string actor;                   // who says so; 1-128 bytes, printable ASCII
  std::string evidence;                // how that is known; 1-1024 bytes, printable ASCII, no "@"
  absl::Time now;
};

struct ResolveAnswer {
  bool changed = false;  // false: the row says so already, and nothing was written
  Record record;
  Budget budget;
};

struct PurgeAnswer {
  size_t seen = 0;  // 0: every old row was looked at
  size_t purged = 0;
};

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
  absl::StatusOr<GetAnswer> FindIntent(const std::string& caller, const std::string& intent);

  // See Ledger::RecordReading.
  absl::Status RecordReading(const Key& key, const Reading& reading);

  // Turns up to `limit` SENDING rows into UNKNOWN with this reason; returns how many. Call it at start until it
  // returns 0: the calls that owned them are gone, and nobody can tell whether they sent.
  absl::StatusOr<size_t> Recover(int reason, absl::Time now, size_t limit);

  // Ends an UNKNOWN row, with an entry in the audit table. A status of IsProtocolError is a refusal whose text is meant
  // for the operator.
  absl::StatusOr<ResolveAnswer> Resolve(const ResolveRequest& request);

  // Looks at the next `limit` old rows and forgets those that ended before `before` and that no open row refers to.
  absl::StatusOr<PurgeAnswer> Purge(absl::Time before, size_t limit);

 protected:
  // The rules that hold the promise, one function each. Virtual for one purpose: the model checker breaks each of them
  // in turn and must notice.
  virtual bool MaySendFrom(State state) const { return state == State::kReleased; }
  virtual absl::StatusOr<bool> SameContent(const Row& own, const BeginRequest& request) const;
  virtual bool IsBusy(const Row& other) const { return other.record.state == State::kSending; }
  virtual bool IsUnresolved(const Row& other, const Key& asking) const;
  virtual bool MaySupersede(const Row& named, const BeginRequest& request) const;
  virtual bool CreatedBefore(const Row& found, const BeginRequest& request) const;
  virtual bool MayTellAtOnce(const Key& created, const Key& asking) const { return created.caller == asking.caller; }
  virtual bool FreesSuperseded(State ended) const { return ended == State::kReleased; }
  virtual bool MayFinish(State state) const { return state == State::kSending; }
  virtual State StateAfterCrash() const { return State::kUnknown; }
  virtual Counters CountOf(const Record& record) const;  // what one row adds to its address
  virtual absl::Status MayResolve(const Record& record, bool created) const;
  virtual State StateIfNotCreated() const { return State::kFailed; }
  virtual bool MayPurge(const Record& record, absl::Time before) const;
  virtual bool IsNeededBy(const Record& other) const;  // an old row, by one that it superseded or that superseded it

 private:
  absl::StatusOr<GetAnswer> GotFrom(absl::StatusOr<std::optional<Row>> found);
  static bool SameEmail(const Row& row, const BeginRequest& request);
  absl::Status Rekey(const BeginRequest& request, std::optional<Row>& own);
  // Under every fingerprint of the request.
  absl::StatusOr<Counters> CountAll(const BeginRequest& request);
  absl::StatusOr<std::vector<Row>> OpenAll(const BeginRequest& request);
  absl::StatusOr<std::optional<Row>> SucceededAny(const BeginRequest& request);
  // Writes `after` in place of `before` and keeps the counters of the address equal to the sum over its rows.
  absl::Status Replace(const Record* before, const Row& after);
  absl::Status MarkSuperseded(const Key& key, const std::optional<Uuid>& by, absl::Time now);
  absl::StatusOr<std::vector<Row>> LinkedTo(const Record& record);

  Store& store_;
};

// The current budget that these counters mean.
Budget BudgetOf(const Counters& counters);

// True for the statuses with which Book blames its caller and not the store.
bool IsProtocolError(const absl::Status& status);

}  // namespace userintent::ledger
