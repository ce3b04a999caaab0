// ledger::Store: rows and counters. It keeps; it decides nothing (see decide.h).
//
// One operation asks it twice: Load answers everything that the decision needs to know, Apply writes everything that
// the decision changed. So a store behind a network needs one round trip for each.
//
// Single-threaded: the owner calls it from one thread, or under one lock. Every call may fail; after a failure the
// owner rolls the transaction back. Reads inside a transaction see its writes. Writes outside one are not allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/ledger.h"
#include "server/ledger/webhook_store.h"

namespace userintent::ledger {

struct KeyHash {
  size_t operator()(const Key& key) const { return absl::HashOf(key.caller, key.request_id); }
};

// A record and what it is found by. `key_id` names the key of `content`; the other two digests may already be under the
// newer key, because they are moved as soon as anybody shows them under both.
struct Row {
  Record record;
  uint64_t key_id = 0;
  Digest content{};
  Digest person{};
  Digest email{};
  int64_t handle = 0;  // the store's own number of the row; 0: the store does not have it, or needs no number
  // Owner::epoch of the process that began what runs, as long as nobody but a recovery ended it; then 0.
  int64_t owner = 0;
};

// Whether one row has replaced the other. They tell each other by their ids alone, and the other one may be another
// caller's; so both must say it, of one address.
inline bool Replaces(const Row& by, const Row& row) {
  return by.record.supersedes == row.record.key.request_id && row.record.superseded_by == by.record.key.request_id &&
         by.email == row.email;
}

// Whether `own` has replaced `row`, or `row` has replaced `own`. What was released replaces nothing, though it may
// still say so.
inline bool IsLinked(const Row& own, const Row& row, bool own_replaces) {
  return own_replaces ? Replaces(own, row) : Replaces(row, own) && row.record.state != State::kReleased;
}

// By the time of creation; of the same time, by the key.
inline bool IsOlder(const Row& a, const Row& b) {
  return std::tie(a.record.created, a.record.key) < std::tie(b.record.created, b.record.key);
}

// Attempts of one e-mail address. used_min = confirmed, used_max = confirmed + possible.
struct Counters {
  int confirmed = 0;  // a 2xx status line came
  int possible = 0;   // unknown without one, in flight, or rejected
  friend bool operator==(const Counters&, const Counters&) = default;
  Counters& operator+=(const Counters& other) {
    confirmed += other.confirmed;
    possible += other.possible;
    return *this;
  }
};

// One deed of an operator, kept for ever. No personal data: `evidence` names where the proof is.
struct AuditEntry {
  int64_t seq = 0;  // given by the store, in the order of the deeds
  absl::Time at = absl::InfinitePast();
  std::string actor;
  std::string action;
  Key key;
  State from = State::kUnknown;
  State to = State::kUnknown;
  std::string evidence;
};

// A proof that contradicts what is recorded. Kept for ever, once for each thing that is claimed of a request: `key`,
// `claimed` and `claimed_intent` tell one from another.
struct Conflict {
  int64_t seq = 0;  // given by the store, in the order of their coming
  absl::Time at = absl::InfinitePast();
  Key key;
  Uuid attempt_id{};
  State recorded = State::kUnknown;
  std::string recorded_intent;  // empty: none is known
  State claimed = State::kUnknown;
  std::string claimed_intent;  // empty: that none was made
  std::string action;          // as the audit entry would have said
  std::string evidence;
};

// What an operation needs to know. Points into the operation's request.
struct Lookup {
  using Digests = absl::InlinedVector<const Digest*, 2>;

  const Key* key = nullptr;             // View::own: this row,
  const std::string* intent = nullptr;  // or the newest SUCCEEDED row of key->caller with this intent
  std::optional<Uuid> other;            // View::other: this request of key->caller,
  bool superseded = false;              // or the one that `own` superseded, perhaps another caller's
  bool superseding = false;             // View::superseding: the one that superseded `own`, likewise
  // View::counters: of these addresses, added up;
  Digests emails;
  bool counters = false;  // or of the address of `own`
  // View::open and View::person: also the open rows of `emails`, and the person under these digests. Left out where
  // there is an `own` in a state of which this says no: then it alone answers.
  bool open = false;
  Digests persons;
  bool (*open_if)(State own) = nullptr;  // null: always

  bool WantsOpen(const std::optional<Row>& own) const {
    return open && (!own || open_if == nullptr || open_if(own->record.state));
  }
};

// What is known.
struct View {
  std::optional<Row> own;
  std::optional<Row> other;
  std::optional<Row> superseding;
  // A SUCCEEDED row of this person, whose address is part of who it is: the newest of this caller's, else the newest of
  // any caller's.
  std::optional<Row> person;
  // The rows of the addresses, of any caller, that are SENDING or UNKNOWN; the oldest first.
  std::vector<Row> open;
  Counters counters;  // zeros for an address that was never seen
};

// Rows that are old enough to be forgotten, and every row that they name as superseded or superseding.
struct OldRows {
  std::vector<Row> rows;
  std::vector<Row> linked;
};

struct RowChange {
  enum class Part : uint8_t {
    kProgress,  // of a row that is there: what changes while a request runs, and after
    kWhole,     // a new row; or of one that is there everything but `latest`
    kLatest,    // of a SUCCEEDED row: `latest` alone
  };
  RowChange(Row&& row_after, Part part_changed, bool log_it = false)
      : row(std::move(row_after)), part(part_changed), logged(log_it) {}

  Row row;  // as it is afterwards, whole
  Part part;
  bool logged;  // the change log gets an entry; never of a new row
};

// What a decision changes. Applied in the order of the members.
struct Changes {
  // A key rotation: everything known under `from` is known under `to` from now on. Cheap when there is nothing.
  struct EmailMove {
    Digest from, to;
  };
  // A person of this address; SUCCEEDED rows only, which are those that are searched.
  struct PersonMove {
    Digest email, from, to;
  };
  struct Count {
    Digest email;
    Counters delta;
  };
  // The row is forgotten. The counters of its address stay: what the row counted for goes to the purged ones, which the
  // store keeps beside them, so that counters = sum over the rows + purged.
  struct Purge {
    Row row;
    Counters counted;
  };
  std::vector<EmailMove> emails;
  std::vector<PersonMove> persons;
  absl::InlinedVector<Count, 1> counts;
  std::vector<RowChange> rows;
  std::vector<Purge> purged;
  // `seq` is the store's to give. Nothing changes or removes an entry.
  std::optional<AuditEntry> audit;
  std::optional<Conflict> conflict;  // nothing happens where there is one of the same

  bool empty() const {
    return emails.empty() && persons.empty() && counts.empty() && rows.empty() && purged.empty() && !audit && !conflict;
  }
};

// What is asked of the change log; see ChangeFeed::Request.
struct LogLookup {
  const std::string* caller = nullptr;
  const absl::flat_hash_set<Uuid>* only = nullptr;
  int64_t after = 0;
  size_t limit = 64;
};

// A slice of the change log.
struct LogSlice {
  struct Entry {
    int64_t revision = 0;
    Row row;
    Counters counters;  // of its address
  };
  bool too_old = false;
  std::vector<Entry> entries;  // by revision; a row once, at its last entry in the slice
  int64_t upto = 0;
};

class Store {
 public:
  virtual ~Store() = default;

  // One transaction at a time. After a failed Commit nothing of it may be seen by later reads once Rollback was called.
  // A Commit that says Aborted has met another process's changes: nothing was committed, nothing is wrong with the
  // store, and what was decided must be decided again, after Rollback, in a new transaction.
  virtual absl::Status Start() = 0;
  virtual absl::Status Commit() = 0;
  virtual void Rollback() = 0;

  // What the transaction will be asked by Load, all at once: one round trip for a store behind a network. Only a hint:
  // other lookups are answered as well. After Start; at most once a transaction.
  virtual absl::Status Prepare(absl::Span<const Lookup> /*lookups*/) { return absl::OkStatus(); }
  // False: Prepare does nothing, so nobody need put together what it would be told.
  virtual bool prepares() const { return false; }
  virtual absl::StatusOr<View> Load(const Lookup& lookup) = 0;
  // Who rows belong to that are begun from now on.
  virtual Owner owner() const { return {}; }
  // Up to `limit` rows that are SENDING and whose owner is known to be gone, in any order.
  virtual absl::StatusOr<std::vector<Row>> Sending(size_t limit) = 0;
  // Up to `limit` rows of any state that were created before that time, in the order of arrival. Each call goes on
  // where the last one ended; one that finds nothing says that all were seen, and the next one begins anew.
  virtual absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) = 0;

  // See Ledger::Trace, Ledger::ListSucceeded and ChangeFeed::ReadChanges: one slice. They look at a bounded number of
  // rows, but for the open ones, which are few.
  virtual absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) = 0;
  virtual absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) = 0;
  virtual absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) = 0;
  // See Ledger::CountUnresolved.
  virtual absl::StatusOr<UnresolvedAnswer> Unresolved() = 0;

  // The last committed entry of the change log; 0: there was none.
  virtual int64_t logged() const = 0;
  // The entries that were committed since the last call, by revision.
  virtual std::vector<Change> TakeLogged() = 0;

  // The rows were loaded in this transaction, and nothing was applied to them since.
  virtual absl::Status Apply(Changes changes) = 0;

  // Writes something harmless, so that committing it proves that the store can be written.
  virtual absl::Status Touch() = 0;

  // The part that keeps webhooks. What is written there is part of the transaction, too.
  virtual WebhookStore& webhooks() = 0;
};

}  // namespace userintent::ledger
