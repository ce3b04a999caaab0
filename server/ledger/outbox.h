// ledger::Outbox: outcomes that could not be written yet and wait for the disk. Until they are written their rows are
// told as unknown. Single-threaded: used on the thread that owns the store.
#pragma once

#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class Outbox {
 public:
  // The reason number shown for a row whose outcome waits.
  explicit Outbox(int unknown_reason) : unknown_reason_(unknown_reason) {}

  // True: it is the first outcome told for its row. The first one is the one that counts.
  bool Add(const FinishRequest& outcome);
  // Makes a SENDING record whose outcome waits an UNKNOWN one; true if there is such an outcome.
  bool Correct(Record& record) const;

  // Writes them all, in the caller's transaction. They stay here until Clear.
  absl::Status WriteTo(Store& store) const;
  void Clear() { outcomes_.clear(); }

  size_t size() const { return outcomes_.size(); }

 private:
  const int unknown_reason_;
  absl::flat_hash_map<Key, FinishRequest, KeyHash> outcomes_;
};

}  // namespace userintent::ledger
