#include "server/usecase/watch_hub.h"

#include <algorithm>
#include <utility>

namespace userintent::usecase {
namespace {

template <typename Seats, typename Seat>
void Remove(Seats& seats, const Seat* seat) {
  seats.erase(std::remove(seats.begin(), seats.end(), seat), seats.end());
}

}  // namespace

// ---- the hub

std::shared_ptr<WatchHub::Seat> WatchHub::Enter(std::string caller, std::vector<Uuid> request_ids, Executor& executor,
                                                Task wake, Refusal* refusal) {
  const auto seat = std::make_shared<Seat>(*this, std::move(caller), std::move(request_ids), executor, std::move(wake));
  {
    const MutexLock lock(mutex_);
    const auto found = callers_.find(seat->caller_);
    if (draining()) {
      *refusal = Refusal::kDraining;
      return nullptr;
    }
    if (streams_ >= limits_.streams || (found != callers_.end() && found->second.count >= limits_.per_caller)) {
      *refusal = Refusal::kTooMany;
      return nullptr;
    }
    ++streams_;
    CallerSeats& seats = found != callers_.end() ? found->second : callers_[seat->caller_];
    ++seats.count;
    if (seat->request_ids_.empty()) seats.all.push_back(seat.get());
    for (const Uuid& id : seat->request_ids_) seats.by_request[id].push_back(seat.get());
    seat->seated_ = true;
    seat->after_ = Now();
  }
  if (follower_ != nullptr) follower_->OnWatchBegins(seat->caller_, seat->request_ids_);
  return seat;
}

void WatchHub::Leave(Seat& seat) {
  const MutexLock lock(mutex_);
  if (!seat.seated_) return;
  --streams_;
  const auto found = callers_.find(seat.caller_);
  CallerSeats& seats = found->second;
  if (--seats.count == 0) {
    callers_.erase(found);
    return;
  }
  Remove(seats.all, &seat);
  for (const Uuid& id : seat.request_ids_) {
    const auto of_request = seats.by_request.find(id);
    Remove(of_request->second, &seat);
    if (of_request->second.empty()) seats.by_request.erase(of_request);
  }
}

// The feed may be ahead of what was heard, or behind it when the listener is told before others can see it.
int64_t WatchHub::Now() const { return std::max(revision_, feed_.revision()); }

void WatchHub::Drain() {
  Woken woken;
  {
    const MutexLock lock(mutex_);
    draining_.store(true, std::memory_order_release);
    for (const auto& [caller, seats] : callers_) {
      for (Seat* const seat : seats.all) Poke(*seat, woken);
      for (const auto& [id, of_request] : seats.by_request) {
        for (Seat* const seat : of_request) Poke(*seat, woken);
      }
    }
  }
  Wake(std::move(woken));
}

size_t WatchHub::streams() const {
  const MutexLock lock(mutex_);
  return streams_;
}

Watching WatchHub::Watched(const std::string& caller, const Uuid& request_id) const {
  const MutexLock lock(mutex_);
  const auto found = callers_.find(caller);
  if (found == callers_.end()) return Watching::kNobody;
  if (found->second.by_request.contains(request_id)) return Watching::kByName;
  return found->second.all.empty() ? Watching::kNobody : Watching::kWithAll;
}

void WatchHub::OnChanges(absl::Span<const ledger::Change> changes) {
  Woken woken;
  {
    const MutexLock lock(mutex_);
    for (const ledger::Change& change : changes) {
      revision_ = change.revision;
      const auto found = callers_.find(change.key.caller);
      if (found == callers_.end()) continue;
      const Entry entry{change.revision, change.key.request_id};
      for (Seat* const seat : found->second.all) Add(entry, *seat, woken);
      const auto of_request = found->second.by_request.find(entry.request_id);
      if (of_request == found->second.by_request.end()) continue;
      for (Seat* const seat : of_request->second) Add(entry, *seat, woken);
    }
  }
  Wake(std::move(woken));
}

void WatchHub::Add(const Entry& entry, Seat& seat, Woken& woken) {
  if (entry.revision <= seat.after_) return;
  // An entry keeps its place when its request changes again, so that one which changes all the time has its turn, too.
  // Its state is read when the turn comes.
  const auto waiting = seat.waiting_.find(entry.request_id);
  if (waiting != seat.waiting_.end()) {
    waiting->second = entry.revision;
  } else if (seat.pending_.size() < kMaxPending) {
    seat.pending_.push_back(entry);
    seat.waiting_.emplace(entry.request_id, entry.revision);
  } else {
    seat.Forget();
    seat.after_ = entry.revision;
  }
  Poke(seat, woken);
}

void WatchHub::Poke(Seat& seat, Woken& woken) {
  if (!std::exchange(seat.poked_, true)) woken.push_back({&seat.executor_, seat.weak_from_this()});
}

// Seats are looked at on their own threads only, where they are destroyed.
void WatchHub::Wake(Woken woken) {
  for (Poked& one : woken) {
    one.executor->Post([weak = std::move(one.seat)] {
      if (const std::shared_ptr<Seat> seat = weak.lock()) seat->wake_();
    });
  }
}

// ---- a seat

WatchHub::Seat::Seat(WatchHub& hub, std::string caller, std::vector<Uuid> request_ids, Executor& executor, Task wake)
    : hub_(hub),
      caller_(std::move(caller)),
      request_ids_(std::move(request_ids)),
      executor_(executor),
      wake_(std::move(wake)) {}

WatchHub::Seat::~Seat() { hub_.Leave(*this); }

void WatchHub::Seat::Forget() {
  pending_ = {};
  waiting_ = {};
}

int64_t WatchHub::Seat::Restart() {
  const MutexLock lock(hub_.mutex_);
  Forget();
  after_ = hub_.Now();
  return after_;
}

WatchHub::Seat::News WatchHub::Seat::Take(int64_t done, size_t limit) {
  const MutexLock lock(hub_.mutex_);
  News news;
  poked_ = false;
  news.after = after_;
  if (done < after_) return news;
  auto end = pending_.begin();
  for (; end != pending_.end(); ++end) {
    const auto waiting = waiting_.find(end->request_id);
    if (waiting->second > done) {
      if (news.entries.size() == limit) break;
      news.entries.push_back(*end);
    }
    waiting_.erase(waiting);
  }
  pending_.erase(pending_.begin(), end);
  if (!pending_.empty()) return news;
  if (pending_.capacity() > 64) Forget();  // what a burst needed is given back
  // Of what the hub has not heard of yet, nothing is known.
  if (news.entries.empty()) news.upto = std::max(after_, hub_.revision_);
  return news;
}

}  // namespace userintent::usecase
