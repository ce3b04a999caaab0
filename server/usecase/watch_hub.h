// WatchHub: hears of every change of the ledger and tells the streams that follow it (contract section 7, decision
// 0012).
//
// Each open stream has a seat. A change becomes an entry in the seats that follow its request: all of its caller's, and
// those that name it. Entries are folded, one for each request, and at most kMaxPending; beyond that the seat forgets
// them all and its stream reads the ledger's log instead. So a seat's memory is bounded whatever its reader does, and
// nothing is missed: `after` tells up to where the entries say nothing.
//
// One for the process. The hub is thread-safe; a seat belongs to its stream's thread. The hub outlives its seats and
// the ledger, which calls OnChanges.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/ledger/change_feed.h"

namespace userintent::usecase {

// Whether somebody follows a request: nobody, who follows all of the caller's, or who named it.
enum class Watching { kNobody, kWithAll, kByName };

// Told when somebody begins to watch, so that what is watched is asked for more often.
class WatchFollower {
 public:
  virtual ~WatchFollower() = default;
  // A stream of this caller follows these requests from now on; none: all of the caller's. On a shard's thread; must
  // not block.
  virtual void OnWatchBegins(const std::string& caller, absl::Span<const Uuid> request_ids) = 0;
};

class WatchHub final : public ledger::ChangeListener {
 public:
  static constexpr size_t kMaxPending = 1024;

  struct Limits {
    size_t streams = 1000;
    size_t per_caller = 100;
  };
  // A request that changed since a seat's `after`; at the first of its changes that have not been taken.
  struct Entry {
    int64_t revision = 0;
    Uuid request_id{};
  };
  enum class Refusal { kDraining, kTooMany };

  class Seat;

  // `feed` is used while there are seats.
  WatchHub(const ledger::ChangeFeed& feed, const Limits& limits) : feed_(feed), limits_(limits) {}
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // A seat for a stream of `caller` that follows `request_ids`, without doubles; none: all of the caller's. `wake` runs
  // on `executor` when there is something to take, not again before it was taken, and never once the seat is gone.
  // Null, with the reason in `refusal`: the process drains, or there are too many.
  std::shared_ptr<Seat> Enter(std::string caller, std::vector<Uuid> request_ids, Executor& executor, Task wake,
                              Refusal* refusal);

  // From now on nobody is let in, and every seat is told.
  void Drain();

  bool draining() const { return draining_.load(std::memory_order_acquire); }
  size_t streams() const;
  // Whether a stream follows this request; of several, the one that named it counts. Any thread.
  Watching Watched(const std::string& caller, const Uuid& request_id) const;
  // Before the first Enter; outlives the seats. Null: nobody.
  void SetFollower(WatchFollower* follower) { follower_ = follower; }

  // ledger::ChangeListener.
  void OnChanges(absl::Span<const ledger::Change> changes) override;

 private:
  using Seats = absl::InlinedVector<Seat*, 1>;
  struct CallerSeats {
    size_t count = 0;
    Seats all;  // that follow everything
    absl::flat_hash_map<Uuid, Seats> by_request;
  };
  using Callers = absl::flat_hash_map<std::string, CallerSeats>;
  struct Poked {
    Executor* executor;
    std::weak_ptr<Seat> seat;
  };
  using Woken = std::vector<Poked>;

  void Leave(Seat& seat);
  int64_t Now() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Add(const Entry& entry, Seat& seat, Woken& woken) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Poke(Seat& seat, Woken& woken);
  static void Wake(Woken woken);

  const ledger::ChangeFeed& feed_;
  const Limits limits_;
  WatchFollower* follower_ = nullptr;

  mutable Mutex mutex_;
  Callers callers_ ABSL_GUARDED_BY(mutex_);
  size_t streams_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t revision_ ABSL_GUARDED_BY(mutex_) = 0;  // the last one that was heard of
  std::atomic<bool> draining_{false};             // set while mutex_ is held
};

// Leaves the hub when it is destroyed.
class WatchHub::Seat : public std::enable_shared_from_this<Seat> {
 public:
  struct News {
    // What happened up to here is not among the entries: who stands before it must read the ledger's log.
    int64_t after = 0;
    // By revision; none while `done` is before `after`.
    std::vector<Entry> entries;
    // Where there are none: up to here nothing happened that the stream has not told.
    int64_t upto = 0;
  };

  Seat(WatchHub& hub, std::string caller, std::vector<Uuid> request_ids, Executor& executor, Task wake);
  ~Seat();
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  // Forgets all entries: everything that happens after the returned revision, which the ledger has reached, becomes
  // one. What is read from the ledger from now on holds all that happened up to it.
  int64_t Restart();

  // Takes at most `limit` entries. Those that say nothing beyond `done`, up to which the stream has told everything,
  // are forgotten.
  News Take(int64_t done, size_t limit);

  const std::string& caller() const { return caller_; }
  const std::vector<Uuid>& request_ids() const { return request_ids_; }

 private:
  friend class WatchHub;

  WatchHub& hub_;
  const std::string caller_;
  const std::vector<Uuid> request_ids_;
  Executor& executor_;
  Task wake_;

  void Forget();

  // Guarded by the hub's mutex.
  bool seated_ = false;
  bool poked_ = false;  // wake_ is on its way, or nothing was taken since
  int64_t after_ = 0;
  std::vector<Entry> pending_;                  // by revision
  absl::flat_hash_map<Uuid, int64_t> waiting_;  // the last change of each request in pending_
};

}  // namespace userintent::usecase
