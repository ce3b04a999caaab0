// The change log of a ledger that replicas share (ledger::ChangeFeed).
//
// A revision is the number of the transaction that wrote the change, times 2^20, plus the change's place in it. Numbers
// of transactions are given when they begin to write and become visible when they commit, in another order; so only
// those changes can be read that no running transaction may come before: of transactions below the oldest one that
// runs (pg_snapshot_xmin). What was told once never has anything inserted before it, at no replica. The price: a
// transaction that writes and stays open anywhere in the cluster holds all news back (Membership watches for those).
//
// What is told as "up to here" is always the revision of a change that could be read, never the horizon itself: a
// failover may give a number again that was given to a transaction of which nothing reached the standby.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/store.h"
#include "server/postgres/poller.h"

namespace userintent::postgres {

// The last change that can be read; 0: there is none.
absl::StatusOr<int64_t> LastRevision(Connection& connection);

// See Store::ReadLog. At most two round trips.
absl::StatusOr<ledger::LogSlice> ReadLog(Connection& connection, const ledger::LogLookup& lookup);

// Forgets up to `at_once` of the oldest changes, if more than `keep` (at least 1) are there. In a transaction of its
// own. Returns how many.
absl::StatusOr<int64_t> PruneLog(Connection& connection, int64_t keep, int64_t at_once);

// Tells the listener what all replicas change, in the order of revision, each change once: about 50 ms after it can be
// read while there is news, and after at most 250 ms.
//
// Turn on the member's thread; the listener is called there. Everything else on any thread.
class ChangePoller final : public Poller {
 public:
  static constexpr BootNanos kBusyPause = 50'000'000;
  static constexpr BootNanos kQuietPause = 250'000'000;
  static constexpr BootNanos kBusyFor = 5'000'000'000;  // after the last news

  // `revision`: the last change that needs no telling.
  explicit ChangePoller(int64_t revision) : revision_(revision) {}
  ChangePoller(const ChangePoller&) = delete;
  ChangePoller& operator=(const ChangePoller&) = delete;

  // See ChangeFeed.
  int64_t revision() const { return revision_.load(std::memory_order_acquire); }
  void SetListener(ledger::ChangeListener* listener) { listener_.store(listener, std::memory_order_release); }

  absl::StatusOr<BootNanos> Turn(Connection& connection, BootNanos now) override;

 private:
  std::atomic<int64_t> revision_;  // written by the member's thread alone
  std::atomic<ledger::ChangeListener*> listener_{nullptr};
  BootNanos news_at_ = 0;
  BootNanos due_at_ = 0;
};

}  // namespace userintent::postgres
