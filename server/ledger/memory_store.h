// ledger::MemoryStore: a Store in the process's memory, with transactions that roll back. For tests, benchmarks and the
// model checker; copyable, so that a checker can branch. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "server/ledger/memory_webhooks.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class MemoryStore : public Store {
 public:
  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;

  absl::StatusOr<View> Load(const Lookup& lookup) override;
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override;
  absl::StatusOr<OldRows> NextOldRows(absl::Time created_before, size_t limit) override;
  absl::StatusOr<TraceAnswer> Trace(const TraceRequest& request) override;
  absl::StatusOr<SucceededAnswer> Succeeded(const SucceededRequest& request) override;
  absl::StatusOr<UnresolvedAnswer> Unresolved() override;
  absl::StatusOr<LogSlice> ReadLog(const LogLookup& lookup) override;
  int64_t logged() const override { return static_cast<int64_t>(open_ ? log_before_ : log_.size()); }
  std::vector<Change> TakeLogged() override;
  absl::Status Apply(Changes changes) override;
  absl::Status Touch() override { return absl::OkStatus(); }
  MemoryWebhooks& webhooks() override { return webhooks_; }

  // Everything, for tests.
  const Row* Find(const Key& key) const;  // null: there is none
  Counters Count(const Digest& email) const { return Of(email).counters; }
  std::vector<Row> AllRows() const;
  std::map<Digest, Counters> AllCounters() const;
  std::map<Digest, Counters> AllPurged() const;  // what purged rows counted for; part of AllCounters
  const std::vector<AuditEntry>& audit() const { return audit_; }
  const std::vector<Conflict>& conflicts() const { return conflicts_; }

 private:
  struct Address {
    Counters counters;
    Counters purged;
  };
  const Row* FindLinked(const Row& own, const Uuid& id, bool own_replaces) const;
  const Row* FindIntent(const std::string& caller, const std::string& intent) const;
  const Row* FindAttempt(const Uuid& attempt_id, const TraceRequest& request, TraceAnswer& answer) const;
  void AddOpen(const Digest& email, std::vector<const Row*>& open) const;
  const Row* FindPerson(const Lookup& lookup) const;
  void MoveEmail(const Digest& from, const Digest& to);
  void MovePerson(const Digest& email, const Digest& from, const Digest& to);
  void AddCount(const Digest& email, Counters delta);
  void Forget(const Row& row, Counters counted);
  void Mark(Conflict&& conflict);
  // The only two that change a row or an address; an undo is one of them again.
  void SetRow(const Key& key, std::optional<Row> row);
  void SetAddress(const Digest& email, std::optional<Address> address);
  Address Of(const Digest& email) const;
  // Null: the row was not there, or is no longer; not both.
  void Index(const Row* before, const Row* after);

  absl::node_hash_map<Key, Row, KeyHash> rows_;  // large: not moved when the map grows
  absl::flat_hash_map<Digest, Address> addresses_;
  absl::flat_hash_map<Digest, std::vector<Key>> by_email_;
  absl::flat_hash_map<Digest, std::vector<Key>> by_person_;       // SUCCEEDED rows
  absl::flat_hash_map<std::string, std::vector<Key>> by_intent_;  // SUCCEEDED rows
  std::set<std::pair<absl::Time, Key>> unknown_;                  // UNKNOWN rows, by their creation
  std::map<int64_t, Key> arrivals_;                               // by Row::handle, which grows with each new row
  int64_t last_arrival_ = 0;
  std::vector<AuditEntry> audit_;
  std::vector<Conflict> conflicts_;
  std::vector<Change> log_;  // the first one has revision 1; none is ever forgotten
  size_t taken_ = 0;         // entries that TakeLogged gave out
  MemoryWebhooks webhooks_;
  std::optional<std::pair<absl::Time, Key>> old_to_;  // where NextOldRows goes on

  struct RowUndo {
    Key key;
    std::optional<Row> row;
  };
  struct CountUndo {
    Digest email;
    std::optional<Address> address;
  };
  bool open_ = false;
  std::vector<std::variant<RowUndo, CountUndo>> undo_;
  // Entries before the open transaction.
  size_t audit_before_ = 0;
  size_t conflicts_before_ = 0;
  size_t log_before_ = 0;
};

}  // namespace userintent::ledger
