// ledger::Store: rows and counters, as Book sees them. It keeps; it decides nothing.
//
// Single-threaded: whoever owns the store calls it from one thread, or under one lock. Every operation may fail; after
// a failure the owner rolls the transaction back. Reads inside a transaction see its writes. Writes outside one are
// not allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ledger/ledger.h"

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
};

// What a SUCCEEDED row's `latest` is until a later reading: what the answer to the creation said. A row that an
// operator resolved has no such answer, and no status: nothing was read.
inline Reading LatestOf(const Record& record) {
  if (record.state != State::kSucceeded) return {};
  const Answer& answer = record.answer;
  return {answer.astra_status, "", record.verification_type, answer.at,
          answer.astra_status.empty() ? absl::InfinitePast() : answer.at};
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

class Store {
 public:
  virtual ~Store() = default;

  // One transaction at a time. After a failed Commit nothing of it may be seen by later reads once Rollback was called.
  virtual absl::Status Start() = 0;
  virtual absl::Status Commit() = 0;
  virtual void Rollback() = 0;

  virtual absl::StatusOr<std::optional<Row>> Find(const Key& key) = 0;
  // The newest SUCCEEDED row of this caller with this intent.
  virtual absl::StatusOr<std::optional<Row>> FindIntent(const std::string& caller, const std::string& intent) = 0;
  // The rows of this address, of any caller, that are SENDING or UNKNOWN; the oldest first.
  virtual absl::StatusOr<std::vector<Row>> Open(const Digest& email) = 0;
  // A SUCCEEDED row of this person, whose address is part of who it is: the newest of this caller's, else the newest of
  // anybody's.
  virtual absl::StatusOr<std::optional<Row>> Succeeded(const Digest& email, const Digest& person,
                                                       const std::string& caller) = 0;
  // Zeros for an address that was never seen.
  virtual absl::StatusOr<Counters> Count(const Digest& email) = 0;
  // Up to `limit` rows that are SENDING, in any order.
  virtual absl::StatusOr<std::vector<Row>> Sending(size_t limit) = 0;

  // Inserts or replaces. Of a row that is there, `latest` stays as it is: SetLatest alone changes it. Of a row that
  // becomes SUCCEEDED, `latest` is the answer to the creation (LatestOf).
  virtual absl::Status Put(const Row& row) = 0;
  // Of a SUCCEEDED row.
  virtual absl::Status SetLatest(const Key& key, const Reading& latest) = 0;
  virtual absl::Status AddCount(const Digest& email, Counters delta) = 0;

  // A key rotation: everything known under `from` is known under `to` from now on. Cheap when there is nothing.
  virtual absl::Status MoveEmail(const Digest& from, const Digest& to) = 0;
  // A person of this address; SUCCEEDED rows only, which are those that are searched.
  virtual absl::Status MovePerson(const Digest& email, const Digest& from, const Digest& to) = 0;

  // `seq` is the store's to give. There is nothing that changes or removes an entry.
  virtual absl::Status Append(const AuditEntry& entry) = 0;

  // Up to `limit` rows of any state that were created before that time, in the order of arrival. Each call goes on
  // where the last one ended; one that finds nothing says that all were seen, and the next one begins anew.
  virtual absl::StatusOr<std::vector<Row>> Old(absl::Time created_before, size_t limit) = 0;
  // Forgets the row. The counters of its address stay: what the row counted for goes to the purged ones, which the
  // store keeps beside them, so that counters = sum over the rows + purged.
  virtual absl::Status Purge(const Row& row, Counters counted) = 0;

  // Writes something harmless, so that committing it proves that the store can be written.
  virtual absl::Status Touch() = 0;
};

}  // namespace userintent::ledger
