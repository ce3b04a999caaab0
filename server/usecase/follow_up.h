// FollowUp: reads the intents whose status may still change, at growing distances and within the read budget, so that a
// lost webhook costs minutes and not the truth (contract section 7).
//
// It knows the requests, and when each is due; what there is to know of one it asks the ledger, when it is due. So a
// reading by anybody else counts as well, and a row that ended, or was forgotten, is dropped then.
//
// Replicas that share a ledger know the same requests, and each reads its part of them; one that is gone leaves its
// part to the others when it is due next. What is watched is read where the watch is.
//
// Lives on one shard's loop, which runs Start(), Stop() and everything else but what any thread may call. Outlives the
// ledger and the loop's tasks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/random/random.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/ledger.h"
#include "server/usecase/follow_table.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/watch_hub.h"

namespace userintent::usecase {

class FollowUp final : public ledger::ChangeListener, public WatchFollower {
 public:
  // Who watches all of their requests has those followed that are younger than this, whatever --follow_up says.
  static constexpr absl::Duration kWatchedAge = absl::Hours(168);

  struct Options {
    absl::Duration follow_up = absl::Hours(168);  // after the creation; zero: only while it is watched
    size_t capacity = 500'000;                    // requests, of 45 bytes each
  };
  struct Dependencies {
    ledger::Ledger& ledger;
    IntentReads& reads;
    IntentReads::Shard shard;
    // Whether somebody watches this request; null: nobody. Called on the loop's thread.
    std::function<Watching(const std::string& caller, const Uuid& request_id)> watched;
    absl::Time (*wall_clock)() = absl::Now;
  };
  struct Stats {
    size_t followed = 0;
    size_t watched = 0;        // of these
    uint64_t left_out = 0;     // requests that are not followed, because there are too many
    absl::Duration late = {};  // how long ago the first of the others was due
  };

  FollowUp(const Dependencies& dependencies, const Options& options);
  FollowUp(const FollowUp&) = delete;
  FollowUp& operator=(const FollowUp&) = delete;

  // Asks the ledger, slice by slice, which intents there are to follow.
  void Start();
  // Nothing is read from now on.
  void Stop();

  // ledger::ChangeListener.
  void OnChanges(absl::Span<const ledger::Change> changes) override;

  // WatchFollower. Any thread.
  void OnWatchBegins(const std::string& caller, absl::Span<const Uuid> request_ids) override;

  // Any thread; as of the last second or so.
  Stats stats() const;

 private:
  using Lane = FollowTable::Lane;
  using Slot = FollowTable::Slot;
  // Rows that are asked of the ledger, a slice at a time.
  struct Load {
    std::optional<std::string> caller;  // nothing: everybody's
    ledger::SucceededRequest next;
  };
  // A caller whose requests in the table are to be watched, a slice at a time.
  struct Scan {
    std::string caller;
    Slot next = 0;
  };

  // Where a request belongs now.
  Lane LaneOf(const ledger::Key& key) const;
  // Whether it is this replica that reads it.
  bool IsOurs(const ledger::Key& key, Lane lane) const;
  SteadyTime Now() const { return deps_.shard.loop.Now(); }
  SteadyTime SteadyOf(absl::Time time) const;
  absl::Duration Jittered(absl::Duration distance);

  void TakeChanges();
  void OnChanged(const ledger::Key& key);
  void Watch(const ledger::Key& key, Lane lane);
  void WatchAll(const std::string& caller);
  // In the lane, at the latest at `due`.
  void Hurry(const ledger::Key& key, Lane lane, SteadyTime due);
  void ScanSlice();
  void LoadSlice();
  void OnLoaded(const ledger::SucceededAnswer& answer);

  void Pump();
  void Arm();
  std::optional<Slot> NextDue(SteadyTime now) const;
  void Look(Slot slot);
  void OnFound(Slot slot, ledger::GetAnswer answer);
  void Read(Slot slot, std::shared_ptr<const ledger::Record> record, Lane lane);
  void OnRead(Slot slot, const ledger::Record& record, const Result<ledger::Reading>& result);
  void OnReading(Slot slot, const ledger::Record& record, Lane lane, const ledger::Reading& reading);
  void OnFailure(Slot slot, Lane lane, absl::Duration retry_after);
  void Later(Slot slot, Lane lane, SteadyTime due);
  void Drop(Slot slot);
  void Ended();

  const Dependencies deps_;
  const Options options_;
  absl::BitGen random_;
  FollowTable table_;
  bool started_ = false;
  bool stopped_ = false;
  int running_ = 0;          // requests that are looked at or read
  SteadyTime held_until_{};  // nothing is read before
  int failures_ = 0;         // in a row
  Loop::TimerId timer_ = 0;
  SteadyTime timer_at_{};
  std::deque<Load> loads_;  // the first one runs
  std::deque<Scan> scans_;  // the same

  Mutex changes_mutex_;
  std::vector<ledger::Key> changes_ ABSL_GUARDED_BY(changes_mutex_);  // not taken yet

  std::atomic<size_t> followed_{0};
  std::atomic<size_t> watched_{0};
  std::atomic<uint64_t> left_out_{0};
  std::atomic<int64_t> late_ms_{0};
};

}  // namespace userintent::usecase
