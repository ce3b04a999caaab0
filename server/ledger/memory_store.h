// ledger::MemoryStore: a Store in the process's memory, with transactions that roll back. For tests, benchmarks and the
// model checker; copyable, so that a checker can branch. Single-threaded.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class MemoryStore : public Store {
 public:
  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;

  absl::StatusOr<std::optional<Row>> Find(const Key& key) override;
  absl::StatusOr<std::optional<Row>> FindIntent(const std::string& caller, const std::string& intent) override;
  absl::StatusOr<std::vector<Row>> Open(const Digest& email) override;
  absl::StatusOr<std::optional<Row>> Succeeded(const Digest& email, const Digest& person,
                                               const std::string& caller) override;
  absl::StatusOr<Counters> Count(const Digest& email) override;
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override;
  absl::Status Put(const Row& row) override;
  absl::Status SetLatest(const Key& key, const Reading& latest) override;
  absl::Status AddCount(const Digest& email, Counters delta) override;
  absl::Status MoveEmail(const Digest& from, const Digest& to) override;
  absl::Status MovePerson(const Digest& email, const Digest& from, const Digest& to) override;
  absl::Status Append(const AuditEntry& entry) override;
  absl::StatusOr<std::vector<Row>> Old(absl::Time created_before, size_t limit) override;
  absl::Status Purge(const Row& row, Counters counted) override;
  absl::Status Touch() override { return absl::OkStatus(); }

  // Everything, for tests.
  std::vector<Row> AllRows() const;
  std::map<Digest, Counters> AllCounters() const;
  std::map<Digest, Counters> AllPurged() const;  // what purged rows counted for; part of AllCounters
  const std::vector<AuditEntry>& audit() const { return audit_; }

 private:
  struct Address {
    Counters counters;
    Counters purged;
  };
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
  std::vector<AuditEntry> audit_;
  std::optional<std::pair<absl::Time, Key>> old_to_;  // where Old goes on

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
  size_t audit_before_ = 0;  // entries before the open transaction
};

}  // namespace userintent::ledger
