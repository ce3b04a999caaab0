// UpstreamQueue: who holds one of the slots for exchanges with Astra, and who waits for one (contract section 10).
//
// A creation holds a slot from the moment it is let go until its outcome is recorded, waits between tries included.
// What does not fit waits: in the order of arrival for one caller, and callers in turn, so that whoever floods waits
// behind its own calls only. In a full queue a caller with fewer calls than another one takes the place of that one's
// last call.
//
// AdmissionControl owns the one of the process and calls everything here under its lock, from any thread. A call that
// waits is held weakly: it leaves by itself when its time is over or its caller has left.
#pragma once

#include <cstddef>
#include <list>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "server/base/loop.h"
#include "server/policy/account.h"
#include "server/usecase/upstream_limit.h"

namespace userintent::usecase {

class UpstreamQueue;

// A call that may wait for a slot.
class SlotTaker {
 public:
  enum class Holds {
    kNothing,
    kWaits,
    kSlot,
  };
  // It waits no more: it holds a slot now, or nothing, because its place in the queue is another caller's. Under
  // AdmissionControl's lock, on any thread: must not block, and must not call it.
  virtual void OnQueueNews() = 0;

 protected:
  SlotTaker() = default;
  ~SlotTaker() = default;

 private:
  friend class UpstreamQueue;
  struct Line;  // of one caller
  Holds holds_ = Holds::kNothing;
  std::list<Line>::iterator line_;
  std::list<std::weak_ptr<SlotTaker>>::iterator at_;
};

class UpstreamQueue {
 public:
  struct Options {
    UpstreamLimit::Options limit;
    size_t most = 1000;  // calls that wait; 0: none does
  };
  using Account = std::shared_ptr<policy::CallerAccount>;

  explicit UpstreamQueue(const Options& options) : most_(options.most), limit_(options.limit) {}

  // Whether a call of this caller would get a slot or, where it may wait, a place in the queue.
  bool HasRoom(const Account& account, bool may_wait) {
    return HasSlot() || (may_wait && (waiting_ < most_ || Fattest(account) != lines_.end()));
  }
  // After HasRoom. True: it holds a slot. False: it waits. `taker` null: of a call that never waits.
  bool Enter(const std::shared_ptr<SlotTaker>& taker, const Account& account) {
    if (!HasSlot()) {
      Wait(taker, account);
      return false;
    }
    ++slots_;
    if (taker) taker->holds_ = SlotTaker::Holds::kSlot;
    return true;
  }
  // Of a call that entered: it gives back its slot, or stops waiting.
  void Leave(SlotTaker* taker);

  void Tell(UpstreamLimit::Sample sample, SteadyTime begun, SteadyTime now) {
    limit_.Tell(sample, begun, now, slots_);
    if (waiting_ > 0) Grant();
  }

  static SlotTaker::Holds Holds(const SlotTaker& taker) { return taker.holds_; }
  int limit() const { return limit_.limit(); }
  int slots() const { return slots_; }  // taken; for a while more than the limit, after it was cut
  size_t waiting() const { return waiting_; }

 private:
  using Line = SlotTaker::Line;

  // Who waits goes first.
  bool HasSlot() const { return waiting_ == 0 && slots_ < limit_.limit(); }
  // The line with the most calls, where this caller has at least two fewer; else none.
  std::list<Line>::iterator Fattest(const Account& account);
  void Wait(const std::shared_ptr<SlotTaker>& taker, const Account& account);
  void MakeRoom(const Account& account);
  void Remove(std::list<Line>::iterator line, std::list<std::weak_ptr<SlotTaker>>::iterator place);
  void Grant();

  const size_t most_;
  UpstreamLimit limit_;
  int slots_ = 0;
  size_t waiting_ = 0;
  std::list<Line> lines_;  // none is empty; the first one has its turn
  absl::flat_hash_map<const policy::CallerAccount*, std::list<Line>::iterator> line_of_;
};

struct SlotTaker::Line {
  UpstreamQueue::Account account;
  std::list<std::weak_ptr<SlotTaker>> calls;  // the oldest first
};

}  // namespace userintent::usecase
