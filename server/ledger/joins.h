// ledger::Joins: the calls that wait for the end of a request that another call runs (singleflight), counted per
// request and per caller.
//
// Single-threaded: used on the thread that owns the store. Answers go out through the calls' executors.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/base/loop.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

class Joins {
 public:
  explicit Joins(WaiterLimits limits) : limits_(limits) {}
  // Calls that still wait hear kInProgress.
  ~Joins();
  Joins(const Joins&) = delete;
  Joins& operator=(const Joins&) = delete;

  bool HasRoomFor(const Key& key) const;
  void Add(Ledger::Token token, const Key& key, Executor& executor, Ledger::BeginDone done);
  // The call will not hear of it. An unknown token is ignored.
  void Forget(Ledger::Token token);
  // The request has ended: every call that waits for it hears how.
  void Wake(const Key& key, const Record& record, const Budget& budget);

  size_t size() const { return by_token_.size(); }

 private:
  struct Waiter {
    Ledger::Token token;
    Executor* executor;
    Ledger::BeginDone done;
  };
  void CountDown(const std::string& caller, size_t waiters);

  const WaiterLimits limits_;
  absl::flat_hash_map<Key, std::vector<Waiter>, KeyHash> waiters_;
  absl::flat_hash_map<Ledger::Token, Key> by_token_;
  absl::flat_hash_map<std::string, size_t> by_caller_;  // none of them zero
};

}  // namespace userintent::ledger
