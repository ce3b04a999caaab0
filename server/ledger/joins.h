// ledger::Joins: the calls that wait for the end of a request that another call runs (singleflight), counted per
// request and per caller.
//
// Used on the thread that owns the store, but for ForeignKeys. Answers go out through the calls' executors.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
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
  // `foreign`: another process runs the request, so nobody here will tell of its end; see ForeignKeys.
  void Add(Ledger::Token token, const Key& key, Executor& executor, Ledger::BeginDone done, bool foreign = false);
  // The call will not hear of it. An unknown token is ignored.
  void Forget(Ledger::Token token);
  // The request has ended: every call that waits for it hears how, and what FinishRequest::retry_after was.
  void Wake(const Key& key, const Record& record, const Budget& budget,
            std::optional<absl::Duration> retry_after = std::nullopt);

  size_t size() const { return by_token_.size(); }

  // Any thread: the requests that calls wait for here and that other processes run.
  std::vector<Key> ForeignKeys() const;

 private:
  struct Waiter {
    Ledger::Token token;
    Executor* executor;
    Ledger::BeginDone done;
  };
  void CountDown(const std::string& caller, size_t waiters);
  void NobodyWaits(const Key& key);

  const WaiterLimits limits_;
  absl::flat_hash_map<Key, std::vector<Waiter>, KeyHash> waiters_;
  absl::flat_hash_map<Ledger::Token, Key> by_token_;
  absl::flat_hash_map<std::string, size_t> by_caller_;  // none of them zero

  mutable Mutex mutex_;
  absl::flat_hash_set<Key, KeyHash> foreign_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::ledger
