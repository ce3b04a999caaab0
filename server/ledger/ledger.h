// ledger::Ledger: what is known about each request, and the only judge of whether one may be sent.
//
// Asynchronous and free of SQL, gRPC and protobuf, so that memory, SQLite and (later) PostgreSQL fit behind it. Any
// thread may call any method; none blocks. Every call answers exactly once through the caller's Executor, never inline.
// Executors outlive the ledger's last answer.
//
// The rules (contract section 1 and 4):
//  * When Begin answers kGo, the row is SENDING and durable. Only then may a byte leave.
//  * Only the call that got kGo ends the row, once, by Finish. SENDING and UNKNOWN rows are never given out again.
//  * The caller of the API hears an outcome only after Finish has answered.
//  * Rows hold keyed hashes, ids, states and times; no personal data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/lease.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"

namespace userintent::ledger {

using Digest = std::array<uint8_t, 32>;  // HMAC-SHA256

// One request under one ledger key. Which key: the first 8 bytes of a keyed hash of a constant, as a number.
struct Fingerprints {
  uint64_t key_id = 0;
  Digest content{};  // every field that Astra is sent
  Digest person{};   // content without ip_address and metadata, in Unicode NFC, UNSPECIFIED counted as VERIFIED
  Digest email{};    // lower-cased address
};

enum class State : uint8_t { kSending = 1, kSucceeded = 2, kFailed = 3, kUnknown = 4, kReleased = 5 };

// Was a request for this id handed to Astra; ordered, the strongest over all tries counts.
enum class Sent : uint8_t { kNo = 0, kMaybe = 1, kYes = 2 };

// A request_id belongs to its caller.
struct Key {
  std::string caller;
  Uuid request_id{};
  friend bool operator==(const Key&, const Key&) = default;
  friend auto operator<=>(const Key&, const Key&) = default;
};

// What Astra answered, as far as it is kept. Strings are already bounded and printable.
struct Answer {
  int http_status = 0;     // 0: no status line
  bool confirmed = false;  // a 2xx status line came: the attempt is surely used
  std::string user_intent_id;
  std::string astra_status;
  std::string astra_request_id;
  absl::Time at = absl::InfinitePast();  // when it came
};

// What Astra last said about an intent that was created: its answer to the creation, until a later reading. Strings are
// bounded and printable, as in Answer. Numbers of verification types are the proto's; opaque to the ledger.
struct Reading {
  std::string astra_status;
  std::string user_id;  // empty: Astra named no user
  int verification_type = 0;
  absl::Time status_since = absl::InfinitePast();  // when this status was first seen
  absl::Time read_at = absl::InfinitePast();       // when Astra said it; InfinitePast: nothing was read yet
  // What was recorded as read_at when this reading was begun. Not kept. Where that is still so, this one came after it,
  // whatever the clocks of two machines say.
  absl::Time after = absl::InfiniteFuture();
  // Of the POST that made the intent, where Astra said so. Not kept: a row has its own.
  std::optional<Uuid> attempt_id = std::nullopt;
};

// One row. `reason` is a number of the proto enum ErrorReason (0 for SENDING and SUCCEEDED); opaque to the ledger.
struct Record {
  Key key;
  State state = State::kSending;
  Sent sent = Sent::kNo;
  int reason = 0;
  Answer answer;
  Uuid attempt_id{};          // of the last POST
  int posts = 0;              // POSTs begun
  int verification_type = 0;  // as the creation asked for
  Reading latest;             // of a SUCCEEDED row
  std::optional<Uuid> supersedes;
  std::optional<Uuid> superseded_by;
  absl::Time created = absl::InfinitePast();
  absl::Time updated = absl::InfinitePast();
};

// What a SUCCEEDED row's `latest` is until a later reading: what the answer to the creation said. A row that an
// operator resolved has no such answer, and no status: nothing was read.
inline Reading LatestOf(const Record& record) {
  if (record.state != State::kSucceeded) return {};
  const Answer& answer = record.answer;
  return {answer.astra_status, "", record.verification_type, answer.at,
          answer.astra_status.empty() ? absl::InfinitePast() : answer.at};
}

// When the status of `reading` was first seen, by a row whose latest reading was `before`.
inline absl::Time StatusSince(const Reading& before, const Reading& reading) {
  return reading.astra_status == before.astra_status ? before.status_since : reading.read_at;
}

// Attempts of one e-mail address. See AttemptBudget in the proto.
struct Budget {
  int used_min = 0;
  int used_max = 0;
};

// What the ledger asks and tells its caller while it decides about one Begin. On the ledger's own thread, perhaps under
// its lock: must not block, and must not call the ledger.
class Admission {
 public:
  virtual ~Admission() = default;
  // Everything else says go: may the request start now? Asked at most once. False: as if may_start were false.
  virtual bool MayStart() = 0;
  // The request runs already, and `done` waits for its end. Comes before `done` does.
  virtual void OnWaiting() = 0;
};

// How many calls may wait for the end of a running one; the others hear kInProgress at once.
struct WaiterLimits {
  size_t per_request = 64;
  size_t per_caller = 1024;
};

struct BeginRequest {
  Key key;
  Fingerprints current;
  // What rows of the same request may be found by beside that: the same under a key before a rotation, or in a form
  // that was hashed before. Few, mostly none, in any order; what equals `current` does no harm. A call that may start
  // moves what it finds by them to `current`.
  std::vector<Fingerprints> older;
  Uuid attempt_id{};
  bool allow_repeat = false;
  std::optional<Uuid> supersedes;
  bool may_supersede_others = false;  // `supersedes` may be another caller's; a right that an operator gives
  int attempt_limit = 3;              // 0: no limit
  int verification_type = 0;          // kept in the row
  // True: insert the row and go. False: decide everything, write nothing (validate_only, or admission refused).
  bool may_start = true;
  // True: when the request runs already, wait for its end, as far as WaiterLimits allow. False: answer kInProgress.
  bool may_join = true;
  Admission* admission = nullptr;  // null: go, and tell nobody. Lives as long as `done`.
  int64_t owner = 0;               // the ledger's to set: Owner::epoch of the process that asks
  absl::Time now;
};

enum class BeginVerdict {
  kGo,                 // the row is SENDING and durable: send now
  kWouldGo,            // as kGo, had may_start been true
  kRecorded,           // the id's own row answers: SUCCEEDED, FAILED, UNKNOWN; or, after a join, RELEASED
  kInProgress,         // the id's own row is SENDING, and may_join is false or too many wait already
  kReused,             // same id, other content
  kPersonExists,       // existing_id set only if this caller created it; another's is told last, instead of kGo
  kExhausted,          // used_min >= attempt_limit
  kEmailBusy,          // another request for the address is SENDING
  kEmailUnresolved,    // another request for the address is UNKNOWN; unresolved set only if it is this caller's
  kSupersedesInvalid,  // `supersedes` names no unresolved request for this address that this caller may replace
  kUnavailable,        // the ledger cannot be read or written; nothing was recorded
};

// Who answers for a row that is SENDING, where several processes share one ledger.
struct Owner {
  int64_t epoch = 0;  // one start of one process; never used again. 0: the ledger is one process's
  // While it holds, a request of this owner may begin to leave. Null: there is no such limit.
  std::shared_ptr<const Lease> lease;
};

struct BeginAnswer {
  BeginVerdict verdict = BeginVerdict::kUnavailable;
  bool joined = false;             // kRecorded after waiting for the call that ran
  std::optional<Record> own;       // the id's own row, where there is one (kGo: the fresh row)
  Budget budget;                   // of the e-mail address, after this decision
  std::string existing_intent_id;  // kPersonExists
  std::optional<Uuid> unresolved;  // kEmailUnresolved, kSupersedesInvalid
  std::optional<Digest> content;   // kReused: what the id's own row is bound to
  Owner owner;                     // kGo: to be looked at before the first byte of each try, and told to Finish
  std::optional<absl::Duration> retry_after;  // joined: what the call that ran told Finish
};

// How the sending call ends its row.
struct FinishRequest {
  Key key;
  int64_t owner = 0;              // BeginAnswer::owner
  State state = State::kUnknown;  // kSucceeded, kFailed, kUnknown or kReleased
  Sent sent = Sent::kMaybe;       // of the tries since Begin; the ledger keeps the strongest
  int reason = 0;
  Answer answer;
  absl::Time now;
  // When the same call may succeed, where Astra said so. Not recorded: it is for the calls that wait for this one.
  std::optional<absl::Duration> retry_after = std::nullopt;
};

struct FinishAnswer {
  // False: the outcome could not be made durable. The ledger keeps it in memory and tries again by itself; the caller
  // must hear OUTCOME_UNKNOWN.
  bool committed = false;
  Record record;
  Budget budget;
};

// Of Get and FindIntent.
struct GetAnswer {
  bool available = false;  // false: the ledger cannot be read
  std::optional<Record> record;
  Budget budget;
};

// Proof of what became of a POST whose outcome was not known (contract section 7).
struct SettleRequest {
  Key key;
  Uuid attempt_id{};  // the POST that the proof speaks of
  // kSucceeded, kFailed or kReleased. kUnknown: a 2xx line came, so the attempt counts for sure, and still nobody knows
  // what it made (`answer` is confirmed and has no intent).
  State state = State::kSucceeded;
  Sent sent = Sent::kYes;          // the ledger keeps the strongest of all tries
  int reason = 0;                  // of a row that does not end as SUCCEEDED
  Answer answer;                   // kSucceeded: with the intent's id
  std::optional<Reading> reading;  // what a GET said of the intent, where one was made
  // The intent is known to be another POST's, so it is evidence, but no proof: kConflict, unless this row has it.
  bool intent_of_another = false;
  std::string action;    // for the audit: "settle by late answer"; 1-128 bytes, printable ASCII
  std::string evidence;  // for the audit: "webhook <id>"; 1-1024 bytes, printable ASCII
  absl::Time now;
};

enum class SettleVerdict {
  kSettled,      // the row was UNKNOWN and is now as the proof says
  kCounted,      // the row is UNKNOWN as before, and its attempt counts as one that was made for sure
  kSaysSo,       // that is recorded already; a newer `reading` was taken
  kConflict,     // the proof contradicts what is recorded: the row is marked for operators, and nothing else changed
  kStillRuns,    // the row is SENDING, or its outcome waits for the disk: ask again later
  kNotFound,     // no such row, the proof speaks of another POST than the row's last, or it is no proof at all
  kUnavailable,  // the ledger cannot be read or written; nothing was recorded
};

struct SettleAnswer {
  SettleVerdict verdict = SettleVerdict::kUnavailable;
  Record record;  // as it is afterwards; empty for kNotFound and kUnavailable
};

// Which rows something speaks of that came from Astra by itself. Of any caller, in any state.
struct TraceRequest {
  std::string intent = {};                        // empty: look by the attempt only
  std::optional<Uuid> attempt_id = std::nullopt;  // of a row's last POST
  absl::Time since = absl::InfinitePast();  // SUCCEEDED rows that were created earlier are not searched by attempt
  int64_t cursor = 0;                       // 0, or where the last answer ended
  // Only what costs nothing: where nothing was found so, the answer says that there is more. A ledger in memory may
  // begin to search all the same.
  bool by_index_only = false;
};

struct TraceAnswer {
  bool available = false;           // false: the ledger cannot be read
  std::optional<Record> by_intent;  // the newest SUCCEEDED row with the intent
  std::optional<Record> by_attempt;
  // by_attempt was not found yet, and older SUCCEEDED rows are left to search: ask again with `cursor`.
  bool more = false;
  int64_t cursor = 0;
};

// SUCCEEDED rows that were created since then.
struct SucceededRequest {
  absl::Time since = absl::InfinitePast();
  int64_t cursor = 0;  // 0, or where the last answer ended
  size_t limit = 500;
};

struct SucceededAnswer {
  bool available = false;       // false: the ledger cannot be read
  std::vector<Record> records;  // in the order of arrival; at most `limit`, perhaps none though there are more
  bool more = false;            // ask again with `cursor`
  int64_t cursor = 0;
};

// How many requests have an unknown outcome, those that were superseded among them; and the oldest one's creation.
struct UnresolvedRequest {};
struct UnresolvedAnswer {
  bool available = false;  // false: the ledger cannot be read
  int64_t count = 0;       // at most kUnresolvedCounted
  absl::Time oldest = absl::InfiniteFuture();
};
inline constexpr int64_t kUnresolvedCounted = 100'000;

// Which part of what is done once for a whole ledger falls to this process: part `rank` of `count`, by the processes
// that share the ledger and are alive. For a moment two of them may see it differently, so only such work is divided
// that may be done twice, or later.
struct Share {
  int rank = 0;   // from 0
  int count = 1;  // at least 1
};

class Ledger {
 public:
  using Token = uint64_t;
  using BeginDone = absl::AnyInvocable<void(BeginAnswer)>;
  using FinishDone = absl::AnyInvocable<void(FinishAnswer)>;
  using AttemptDone = absl::AnyInvocable<void(bool committed)>;
  using GetDone = absl::AnyInvocable<void(GetAnswer)>;
  using ReadingDone = absl::AnyInvocable<void(bool committed)>;
  using SettleDone = absl::AnyInvocable<void(SettleAnswer)>;
  using TraceDone = absl::AnyInvocable<void(TraceAnswer)>;
  using SucceededDone = absl::AnyInvocable<void(SucceededAnswer)>;
  using UnresolvedDone = absl::AnyInvocable<void(UnresolvedAnswer)>;

  virtual ~Ledger() = default;

  // Decides, in the contract's order of checks: the id's own row (replay, join, reused), person exists, attempts
  // exhausted, e-mail busy, e-mail unresolved / supersedes invalid; then inserts or re-opens the row if may_start and
  // the admission agree. That another caller created this person is told only here, in place of kGo: wherever a wrong
  // guess at a birth date would cost nothing, the right one is not confirmed.
  virtual Token Begin(BeginRequest request, Executor& executor, BeginDone done) = 0;

  // Stops waiting for a join: `done` will not run, unless it is already on its way. Unknown tokens are ignored.
  virtual void Forget(Token token) = 0;

  // The row is SENDING and owned by this call; another POST with a new attempt id is about to leave. Durable before
  // `done(true)`. `sent_so_far` is kept in the row.
  virtual void NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                           AttemptDone done) = 0;

  // Ends the row and wakes every join.
  virtual void Finish(FinishRequest request, Executor& executor, FinishDone done) = 0;

  virtual void Get(Key key, Executor& executor, GetDone done) = 0;

  // The caller's SUCCEEDED row with this intent, the newest if there are several; no record where there is none.
  virtual void FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) = 0;

  // Astra was asked about the intent of a SUCCEEDED row and said this; it becomes the row's `latest`. `status_since` of
  // `reading` is not used: the ledger moves it to `read_at` when the status is another one than before. A reading that
  // is older than the latest changes nothing, and is no failure. `done` may be null; it hears false when the reading
  // could not be made durable (it is not kept for later) or the row is not SUCCEEDED.
  virtual void RecordReading(Key key, Reading reading, Executor& executor, ReadingDone done) = 0;

  // Settles an UNKNOWN row by proof, with an audit entry of the actor "astra"; see SettleVerdict. Never makes a request
  // startable that may have created something: only proof of "not processed" releases.
  virtual void Settle(SettleRequest request, Executor& executor, SettleDone done) = 0;

  // A slice of work at a time: the SUCCEEDED rows, which are most and have no index by attempt, are searched from the
  // newest one back.
  virtual void Trace(TraceRequest request, Executor& executor, TraceDone done) = 0;

  // A slice of them at a time.
  virtual void ListSucceeded(SucceededRequest request, Executor& executor, SucceededDone done) = 0;

  // For metrics; by an index, so it is cheap as long as such requests are few.
  virtual void CountUnresolved(Executor& executor, UnresolvedDone done) {
    executor.Post([done = std::move(done)]() mutable { done({}); });
  }

  // False while an outcome waits for the disk, or writes fail: readiness and health follow it. Cheap; any thread.
  virtual bool Writable() const = 0;

  // Cheap; any thread.
  virtual Share share() const { return {}; }
};

}  // namespace userintent::ledger
