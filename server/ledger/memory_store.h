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
#include "absl/hash/hash.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

struct KeyHash {
  size_t operator()(const Key& key) const { return absl::HashOf(key.caller, key.request_id); }
};

class MemoryStore : public Store {
 public:
  absl::Status Start() override;
  absl::Status Commit() override;
  void Rollback() override;

  absl::StatusOr<std::optional<Row>> Find(const Key& key) override;
  absl::StatusOr<std::vector<Row>> Open(const Digest& email) override;
  absl::StatusOr<std::optional<Row>> Succeeded(const Digest& person, const std::string& caller) override;
  absl::StatusOr<Counters> Count(const Digest& email) override;
  absl::StatusOr<std::vector<Row>> Sending(size_t limit) override;
  absl::Status Put(const Row& row) override;
  absl::Status AddCount(const Digest& email, Counters delta) override;
  absl::Status MoveEmail(const Digest& from, const Digest& to) override;
  absl::Status MovePerson(const Digest& from, const Digest& to) override;
  absl::Status Touch() override { return absl::OkStatus(); }

  // Everything, for tests.
  std::vector<Row> AllRows() const;
  std::map<Digest, Counters> AllCounters() const;

 private:
  // The only two that change anything outside the indexes; an undo is one of them again.
  void SetRow(const Key& key, std::optional<Row> row);
  void SetCounters(const Digest& email, std::optional<Counters> counters);
  void Index(const Row& row, bool add);

  absl::flat_hash_map<Key, Row, KeyHash> rows_;
  absl::flat_hash_map<Digest, Counters> counters_;
  absl::flat_hash_map<Digest, std::vector<Key>> by_email_;
  absl::flat_hash_map<Digest, std::vector<Key>> by_person_;  // SUCCEEDED rows

  struct RowUndo {
    Key key;
    std::optional<Row> row;
  };
  struct CountUndo {
    Digest email;
    std::optional<Counters> counters;
  };
  bool open_ = false;
  std::vector<std::variant<RowUndo, CountUndo>> undo_;
};

}  // namespace userintent::ledger
