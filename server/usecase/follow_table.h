// FollowTable: which intents are followed, and when each is due. Three lanes, each in the order of due times: those
// that somebody watches by name, those of callers who watch all of theirs, and the others.
//
// About 45 bytes for each request; at most `capacity` of them. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/ledger/ledger.h"

namespace userintent::usecase {

class FollowTable {
 public:
  // A request's place while it is in the table; another one's afterwards.
  using Slot = uint32_t;
  enum class Lane : uint8_t { kNamed, kAll, kOther };
  static constexpr Lane kLanes[] = {Lane::kNamed, Lane::kAll, Lane::kOther};

  // Times are kept in tenths of a second since `epoch`; none may lie before it.
  FollowTable(size_t capacity, SteadyTime epoch);
  FollowTable(const FollowTable&) = delete;
  FollowTable& operator=(const FollowTable&) = delete;
  ~FollowTable();

  std::optional<Slot> Find(const ledger::Key& key) const;
  // A request that is not in the table, in no lane yet. In a full table one of a later lane gives way, or one of the
  // same lane that is due later; nothing where none does. Either way one is left out.
  std::optional<Slot> Add(const ledger::Key& key, Lane lane, SteadyTime due);
  void Remove(Slot slot);

  // Puts it into a lane, or elsewhere in it.
  void Schedule(Slot slot, Lane lane, SteadyTime due);
  // Takes it out of its lane: it is being read.
  void TakeOut(Slot slot);
  bool InLane(Slot slot) const { return entries_[slot].place != kNoPlace; }

  // The one that is due first; nothing in an empty lane.
  std::optional<Slot> First(Lane lane) const;
  SteadyTime Due(Slot slot) const { return epoch_ + entries_[slot].due * kTick; }
  ledger::Key KeyOf(Slot slot) const { return {callers_[entries_[slot].caller], entries_[slot].request_id}; }
  Lane LaneOf(Slot slot) const { return entries_[slot].lane; }  // the last one

  // How often it was read since it began to be watched; kept for its owner.
  int step(Slot slot) const { return entries_[slot].step; }
  void set_step(Slot slot, int step) { entries_[slot].step = static_cast<uint8_t>(step); }

  size_t size() const { return index_.size(); }
  size_t in_lane(Lane lane) const { return heaps_[static_cast<size_t>(lane)].size(); }
  uint64_t left_out() const { return left_out_; }
  // Slots are numbers below this.
  Slot slots() const { return static_cast<Slot>(entries_.size()); }
  // Whether the slot holds a request of this caller.
  bool Holds(Slot slot, const std::string& caller) const;

 private:
  static constexpr auto kTick = std::chrono::milliseconds(100);
  static constexpr uint32_t kNoPlace = UINT32_MAX;
  static constexpr uint32_t kNoCaller = UINT32_MAX;  // of a slot that holds nothing

  struct Entry {
    Uuid request_id{};
    uint32_t caller = kNoCaller;
    uint32_t due = 0;           // ticks
    uint32_t place = kNoPlace;  // in its lane's heap
    Lane lane = Lane::kOther;
    uint8_t step = 0;
  };
  struct Name {
    uint32_t caller;
    const Uuid& request_id;
  };
  struct Hash {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    size_t operator()(Slot slot) const;
    size_t operator()(const Name& name) const;
  };
  struct Same {
    using is_transparent = void;
    const std::vector<Entry>* entries;
    bool operator()(Slot a, Slot b) const { return a == b; }
    bool operator()(Slot slot, const Name& name) const;
    bool operator()(const Name& name, Slot slot) const { return (*this)(slot, name); }
  };
  using Heap = std::vector<Slot>;  // a binary heap, the one that is due first at its front

  uint32_t TicksOf(SteadyTime time) const;
  uint32_t CallerOf(const std::string& caller);
  bool MakeRoom(Lane lane, uint32_t due);
  void Put(Heap& heap, size_t place, Slot slot);
  void Up(Heap& heap, size_t place);
  void Down(Heap& heap, size_t place);

  const size_t capacity_;
  const SteadyTime epoch_;
  std::vector<Entry> entries_;
  std::vector<Slot> free_;
  Heap heaps_[std::size(kLanes)];  // by Lane
  absl::flat_hash_set<Slot, Hash, Same> index_;
  std::vector<std::string> callers_;  // each name once, for as long as the table lives
  absl::flat_hash_map<std::string, uint32_t> caller_numbers_;
  uint64_t left_out_ = 0;
};

}  // namespace userintent::usecase
