#include "server/usecase/follow_table.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"

namespace userintent::usecase {

size_t FollowTable::Hash::operator()(Slot slot) const {
  const Entry& entry = (*entries)[slot];
  return (*this)(Name{entry.caller, entry.request_id});
}

size_t FollowTable::Hash::operator()(const Name& name) const {
  return absl::Hash<std::pair<uint32_t, Uuid>>()({name.caller, name.request_id});
}

bool FollowTable::Same::operator()(Slot slot, const Name& name) const {
  const Entry& entry = (*entries)[slot];
  return entry.caller == name.caller && entry.request_id == name.request_id;
}

FollowTable::FollowTable(size_t capacity, SteadyTime epoch)
    : capacity_(capacity), epoch_(epoch), index_(0, Hash{&entries_}, Same{&entries_}) {
  static_assert(sizeof(Entry) == 32);
}

FollowTable::~FollowTable() = default;

std::optional<FollowTable::Slot> FollowTable::Find(const ledger::Key& key) const {
  const auto caller = caller_numbers_.find(key.caller);
  if (caller == caller_numbers_.end()) return std::nullopt;
  const auto found = index_.find(Name{caller->second, key.request_id});
  return found == index_.end() ? std::nullopt : std::optional(*found);
}

std::optional<FollowTable::Slot> FollowTable::Add(const ledger::Key& key, Lane lane, SteadyTime due) {
  if (index_.size() >= capacity_) {
    ++left_out_;
    if (!MakeRoom(lane, TicksOf(due))) return std::nullopt;
  }
  Slot slot;
  if (free_.empty()) {
    slot = static_cast<Slot>(entries_.size());
    entries_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
  }
  Entry& entry = entries_[slot];
  entry = Entry();
  entry.request_id = key.request_id;
  entry.caller = CallerOf(key.caller);
  entry.lane = lane;
  index_.insert(slot);
  return slot;
}

// The last one of a heap is not the one that is due last, but one of the later half, and it is found at once.
bool FollowTable::MakeRoom(Lane lane, uint32_t due) {
  for (auto other = std::rbegin(kLanes); other != std::rend(kLanes) && *other >= lane; ++other) {
    const Heap& heap = heaps_[static_cast<size_t>(*other)];
    if (heap.empty() || (*other == lane && entries_[heap.back()].due <= due)) continue;
    Remove(heap.back());
    return true;
  }
  return false;
}

void FollowTable::Remove(Slot slot) {
  TakeOut(slot);
  index_.erase(slot);
  entries_[slot] = Entry();
  free_.push_back(slot);
}

void FollowTable::Schedule(Slot slot, Lane lane, SteadyTime due) {
  TakeOut(slot);
  Entry& entry = entries_[slot];
  entry.lane = lane;
  entry.due = TicksOf(due);
  Heap& heap = heaps_[static_cast<size_t>(lane)];
  heap.push_back(slot);
  Up(heap, heap.size() - 1);
}

void FollowTable::TakeOut(Slot slot) {
  Entry& entry = entries_[slot];
  if (entry.place == kNoPlace) return;
  Heap& heap = heaps_[static_cast<size_t>(entry.lane)];
  const size_t place = entry.place;
  entry.place = kNoPlace;
  const Slot last = heap.back();
  heap.pop_back();
  if (last == slot) return;
  Put(heap, place, last);
  Up(heap, place);
  Down(heap, entries_[last].place);
}

std::optional<FollowTable::Slot> FollowTable::First(Lane lane) const {
  const Heap& heap = heaps_[static_cast<size_t>(lane)];
  return heap.empty() ? std::nullopt : std::optional(heap.front());
}

bool FollowTable::Holds(Slot slot, const std::string& caller) const {
  const uint32_t number = entries_[slot].caller;
  return number != kNoCaller && callers_[number] == caller;
}

uint32_t FollowTable::TicksOf(SteadyTime time) const {
  return static_cast<uint32_t>(std::max<int64_t>(0, (time - epoch_ + kTick - SteadyClock::duration(1)) / kTick));
}

uint32_t FollowTable::CallerOf(const std::string& caller) {
  const auto [number, added] = caller_numbers_.try_emplace(caller, static_cast<uint32_t>(callers_.size()));
  if (added) callers_.push_back(caller);
  return number->second;
}

void FollowTable::Put(Heap& heap, size_t place, Slot slot) {
  heap[place] = slot;
  entries_[slot].place = static_cast<uint32_t>(place);
}

void FollowTable::Up(Heap& heap, size_t place) {
  const Slot slot = heap[place];
  while (place > 0 && entries_[slot].due < entries_[heap[(place - 1) / 2]].due) {
    Put(heap, place, heap[(place - 1) / 2]);
    place = (place - 1) / 2;
  }
  Put(heap, place, slot);
}

void FollowTable::Down(Heap& heap, size_t place) {
  const Slot slot = heap[place];
  for (;;) {
    size_t child = 2 * place + 1;
    if (child >= heap.size()) break;
    if (child + 1 < heap.size() && entries_[heap[child + 1]].due < entries_[heap[child]].due) ++child;
    if (entries_[slot].due <= entries_[heap[child]].due) break;
    Put(heap, place, heap[child]);
    place = child;
  }
  Put(heap, place, slot);
}

}  // namespace userintent::usecase
