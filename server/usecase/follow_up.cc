#include "server/usecase/follow_up.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "server/usecase/follow_distance.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Changes are taken together, so that a busy ledger does not wake the loop at each of its commits.
constexpr milliseconds kChangesWait{200};
// Looked at and read at the same time: enough for the budget while Astra answers in time, and few of the connections
// that creations need while it does not.
constexpr int kMaxRunning = 4;
// Of the ledger's rows, and of the table, at a time; and the pause in between, for those who need them more.
constexpr size_t kLoadSlice = 500;
constexpr FollowTable::Slot kScanSlice = 4096;
constexpr milliseconds kSlicePause{20};
constexpr seconds kLedgerPause{5};
// After failures in a row, nothing is read for so long; doubled from the shortest.
constexpr absl::Duration kShortestHold = absl::Seconds(1);
constexpr absl::Duration kLongestHold = absl::Seconds(60);
// Retry-After is obeyed, within reason.
constexpr absl::Duration kLongestRetryAfter = absl::Hours(1);
// A reading that is younger than this part of the distance was made by somebody else, and counts.
constexpr double kFresh = 0.75;
// What another replica should have read by now is looked at again after half of the time that it waits already, and
// at most after so long: then it may be ours.
constexpr absl::Duration kLongestOthersWait = absl::Minutes(10);

// The same in every process and version: FNV-1a.
uint64_t HashOf(const Uuid& id) {
  uint64_t hash = 14695981039346656037U;
  for (const uint8_t byte : id) hash = (hash ^ byte) * 1099511628211U;
  return hash ^ hash >> 32;  // the low bits of callers' counters are not alone in the last ones
}

}  // namespace

// In this file: what begins to be followed; the loads and scans; the order of reading; one reading.

FollowUp::FollowUp(const Dependencies& dependencies, const Options& options)
    : deps_(dependencies), options_(options), table_(options.capacity, dependencies.shard.loop.Now()) {}

void FollowUp::Start() {
  started_ = true;
  if (options_.follow_up > absl::ZeroDuration()) {
    loads_.push_back({std::nullopt, {deps_.wall_clock() - options_.follow_up, 0, kLoadSlice}});
    if (loads_.size() == 1) LoadSlice();
  }
}

void FollowUp::Stop() {
  stopped_ = true;
  loads_.clear();
  scans_.clear();
  deps_.shard.loop.CancelTimer(std::exchange(timer_, 0));
}

void FollowUp::OnChanges(absl::Span<const ledger::Change> changes) {
  {
    const MutexLock lock(changes_mutex_);
    const bool waits = !changes_.empty();
    for (const ledger::Change& change : changes) changes_.push_back(change.key);
    if (waits) return;
  }
  deps_.shard.loop.Post([this] { deps_.shard.loop.CallAt(Now() + kChangesWait, [this] { TakeChanges(); }); });
}

void FollowUp::TakeChanges() {
  std::vector<ledger::Key> taken;
  {
    const MutexLock lock(changes_mutex_);
    taken.swap(changes_);
  }
  if (stopped_) return;
  for (const ledger::Key& key : taken) OnChanged(key);
  Pump();
}

// Which change it was is not known: a creation that ended without an intent is dropped when it is due.
void FollowUp::OnChanged(const ledger::Key& key) {
  if (const Lane lane = LaneOf(key); lane != Lane::kOther) return Watch(key, lane);
  if (options_.follow_up <= absl::ZeroDuration()) return;
  Hurry(key, Lane::kOther, Now() + absl::ToChronoNanoseconds(Jittered(kShortestOther)));
}

void FollowUp::OnWatchBegins(const std::string& caller, absl::Span<const Uuid> request_ids) {
  deps_.shard.loop.Post([this, caller, ids = std::vector<Uuid>(request_ids.begin(), request_ids.end())] {
    if (stopped_) return;
    if (ids.empty()) WatchAll(caller);
    for (const Uuid& id : ids) Watch({caller, id}, Lane::kNamed);
    Pump();
  });
}

FollowUp::Lane FollowUp::LaneOf(const ledger::Key& key) const {
  switch (deps_.watched ? deps_.watched(key.caller, key.request_id) : Watching::kNobody) {
    case Watching::kByName:
      return Lane::kNamed;
    case Watching::kWithAll:
      return Lane::kAll;
    case Watching::kNobody:
      break;
  }
  return Lane::kOther;
}

bool FollowUp::IsOurs(const ledger::Key& key, Lane lane) const {
  if (lane != Lane::kOther) return true;
  const ledger::Share share = deps_.ledger.share();
  return share.count <= 1 ||
         HashOf(key.request_id) % static_cast<uint64_t>(share.count) == static_cast<uint64_t>(share.rank);
}

void FollowUp::Watch(const ledger::Key& key, Lane lane) {
  Hurry(key, lane, Now() + absl::ToChronoNanoseconds(WatchedDistance(0)));
}

void FollowUp::Hurry(const ledger::Key& key, Lane lane, SteadyTime due) {
  std::optional<Slot> slot = table_.Find(key);
  if (!slot) {
    slot = table_.Add(key, lane, due);
    if (!slot) return;
  } else if (!table_.InLane(*slot)) {
    return table_.set_step(*slot, 0);  // it is being read, and what follows upon that is decided then
  } else {
    due = std::min(due, table_.Due(*slot));
  }
  table_.set_step(*slot, 0);
  table_.Schedule(*slot, lane, due);
}

// --- loads and scans

void FollowUp::WatchAll(const std::string& caller) {
  const bool waits = std::ranges::any_of(scans_, [&](const Scan& scan) { return scan.caller == caller; });
  if (!waits) {
    scans_.push_back({caller});
    if (scans_.size() == 1) ScanSlice();
  }
  if (options_.follow_up >= kWatchedAge) return;  // they are in the table
  if (std::ranges::any_of(loads_, [&](const Load& load) { return load.caller == caller; })) return;
  loads_.push_back({caller, {deps_.wall_clock() - kWatchedAge, 0, kLoadSlice}});
  if (loads_.size() == 1) LoadSlice();
}

void FollowUp::ScanSlice() {
  if (scans_.empty()) return;
  Scan& scan = scans_.front();
  const Slot end = std::min(scan.next + kScanSlice, table_.slots());
  for (; scan.next < end; ++scan.next) {
    if (!table_.Holds(scan.next, scan.caller) || table_.LaneOf(scan.next) != Lane::kOther) continue;
    Watch(table_.KeyOf(scan.next), Lane::kAll);
  }
  if (scan.next == table_.slots()) scans_.pop_front();
  if (!scans_.empty()) deps_.shard.loop.CallAt(Now() + kSlicePause, [this] { ScanSlice(); });
  Pump();
}

void FollowUp::LoadSlice() {
  if (loads_.empty()) return;
  deps_.ledger.ListSucceeded(loads_.front().next, deps_.shard.loop,
                             [this](const ledger::SucceededAnswer& answer) { OnLoaded(answer); });
}

void FollowUp::OnLoaded(const ledger::SucceededAnswer& answer) {
  if (loads_.empty()) return;
  Load& load = loads_.front();
  for (const ledger::Record& record : answer.records) {
    if (load.caller && record.key.caller != *load.caller) continue;
    if (IsFinal(record.latest.astra_status)) continue;
    if (const Lane lane = LaneOf(record.key); lane != Lane::kOther) {
      Watch(record.key, lane);
    } else if (!load.caller) {
      const absl::Duration distance = OtherDistance(record, record.latest);
      const absl::Time read_at = std::max(record.latest.read_at, record.created);
      Hurry(record.key, Lane::kOther, SteadyOf(read_at + Jittered(distance)));
    }
  }
  if (answer.available) load.next.cursor = answer.cursor;
  if (answer.available && !answer.more) loads_.pop_front();
  if (!loads_.empty()) {
    deps_.shard.loop.CallAt(Now() + (answer.available ? SteadyClock::duration(kSlicePause) : kLedgerPause),
                            [this] { LoadSlice(); });
  }
  Pump();
}

// --- the order of reading

void FollowUp::Pump() {
  if (stopped_ || !started_) return;
  while (running_ < kMaxRunning && Now() >= held_until_) {
    const std::optional<Slot> slot = NextDue(Now());
    if (!slot) break;
    table_.TakeOut(*slot);
    ++running_;
    Look(*slot);
  }
  Arm();
}

std::optional<FollowUp::Slot> FollowUp::NextDue(SteadyTime now) const {
  for (const Lane lane : FollowTable::kLanes) {
    const std::optional<Slot> first = table_.First(lane);
    if (first && table_.Due(*first) <= now) return first;
  }
  return std::nullopt;
}

void FollowUp::Arm() {
  const std::optional<Slot> other = table_.First(Lane::kOther);
  followed_.store(table_.size(), std::memory_order_relaxed);
  watched_.store(table_.in_lane(Lane::kNamed) + table_.in_lane(Lane::kAll), std::memory_order_relaxed);
  left_out_.store(table_.left_out(), std::memory_order_relaxed);
  const auto late = other ? std::chrono::duration_cast<milliseconds>(Now() - table_.Due(*other)) : milliseconds(0);
  late_ms_.store(std::max<int64_t>(0, late.count()), std::memory_order_relaxed);

  if (running_ == kMaxRunning) return;  // the end of one goes on
  std::optional<SteadyTime> at;
  for (const Lane lane : FollowTable::kLanes) {
    const std::optional<Slot> first = table_.First(lane);
    if (first && (!at || table_.Due(*first) < *at)) at = table_.Due(*first);
  }
  if (!at) return;
  const SteadyTime when = std::max(*at, held_until_);
  if (timer_ != 0 && timer_at_ <= when) return;
  deps_.shard.loop.CancelTimer(timer_);
  timer_at_ = when;
  timer_ = deps_.shard.loop.CallAt(when, [this] {
    timer_ = 0;
    Pump();
  });
}

// --- one reading

void FollowUp::Look(Slot slot) {
  deps_.ledger.Get(table_.KeyOf(slot), deps_.shard.loop,
                   [this, slot](ledger::GetAnswer answer) { OnFound(slot, std::move(answer)); });
}

void FollowUp::OnFound(Slot slot, ledger::GetAnswer answer) {
  if (stopped_) return;
  if (!answer.available) return OnFailure(slot, LaneOf(table_.KeyOf(slot)), absl::FromChrono(kLedgerPause));
  if (!answer.record || answer.record->state != ledger::State::kSucceeded) return Drop(slot);
  const ledger::Record& record = *answer.record;
  if (IsFinal(record.latest.astra_status)) return Drop(slot);
  const Lane lane = LaneOf(record.key);
  const absl::Time now = deps_.wall_clock();
  if (lane == Lane::kOther && now - record.created > options_.follow_up) return Drop(slot);
  const absl::Duration distance =
      lane != Lane::kOther ? WatchedDistance(table_.step(slot)) : OtherDistance(record, record.latest);
  if (now - record.latest.read_at < kFresh * distance) {
    const absl::Duration wait = lane != Lane::kOther ? distance : Jittered(distance);
    return Later(slot, lane, SteadyOf(record.latest.read_at + wait));
  }
  if (!IsOurs(record.key, lane)) {
    const absl::Duration waits = now - std::max(record.latest.read_at, record.created);
    return Later(
        slot, lane,
        Now() + absl::ToChronoNanoseconds(Jittered(std::clamp(waits / 2, kShortestOther, kLongestOthersWait))));
  }
  Read(slot, std::make_shared<const ledger::Record>(*std::move(answer.record)), lane);
}

void FollowUp::Read(Slot slot, std::shared_ptr<const ledger::Record> record, Lane lane) {
  const Asker asker = lane != Lane::kOther ? Asker::kWatched : Asker::kFollowUp;
  deps_.reads.Read(deps_.shard, {asker, record->answer.user_intent_id, record},
                   [this, slot, record](const Result<ledger::Reading>& result) {
                     if (!stopped_) OnRead(slot, *record, result);
                   });
}

void FollowUp::OnRead(Slot slot, const ledger::Record& record, const Result<ledger::Reading>& result) {
  const Lane lane = LaneOf(record.key);  // a watch may have begun, or ended, meanwhile
  if (result.ok()) return OnReading(slot, record, lane, result.value());
  const CallError& error = result.error();
  if (error.reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED && error.http_status == 0) {
    // No token. It keeps its place in its lane.
    held_until_ = Now() + absl::ToChronoNanoseconds(error.retry_after);
    return Later(slot, lane, table_.Due(slot));
  }
  if (error.reason == v1::ERROR_REASON_USER_INTENT_NOT_FOUND) {
    // One 404 proves no deletion, but there is no hurry any more.
    failures_ = 0;
    return Later(slot, lane,
                 Now() + absl::ToChronoNanoseconds(lane != Lane::kOther ? kLongestWatched : Jittered(kLongestOther)));
  }
  OnFailure(slot, lane, error.retry_after);
}

void FollowUp::OnReading(Slot slot, const ledger::Record& record, Lane lane, const ledger::Reading& reading) {
  failures_ = 0;
  if (IsFinal(reading.astra_status)) return Drop(slot);
  const bool same = reading.astra_status == record.latest.astra_status;
  table_.set_step(slot, same ? std::min(table_.step(slot) + 1, 6) : 0);
  const absl::Duration wait =
      lane != Lane::kOther ? WatchedDistance(table_.step(slot)) : Jittered(OtherDistance(record, reading));
  Later(slot, lane, Now() + absl::ToChronoNanoseconds(wait));
}

// What fails for one fails for all, mostly: Astra is away, or asks to be left alone.
void FollowUp::OnFailure(Slot slot, Lane lane, absl::Duration retry_after) {
  const absl::Duration backoff = std::min(kShortestHold * (1 << std::min(failures_, 6)), kLongestHold);
  ++failures_;
  held_until_ = Now() + absl::ToChronoNanoseconds(std::max(backoff, std::min(retry_after, kLongestRetryAfter)));
  const absl::Duration wait = lane != Lane::kOther ? WatchedDistance(table_.step(slot)) : Jittered(kShortestOther);
  if (lane != Lane::kOther) table_.set_step(slot, std::min(table_.step(slot) + 1, 6));
  Later(slot, lane, Now() + absl::ToChronoNanoseconds(wait));
}

void FollowUp::Later(Slot slot, Lane lane, SteadyTime due) {
  table_.Schedule(slot, lane, due);
  Ended();
}

void FollowUp::Drop(Slot slot) {
  table_.Remove(slot);
  Ended();
}

void FollowUp::Ended() {
  --running_;
  Pump();
}

SteadyTime FollowUp::SteadyOf(absl::Time time) const {
  return Now() + absl::ToChronoNanoseconds(std::max(time - deps_.wall_clock(), absl::ZeroDuration()));
}

// Within a fifth, so that what began together does not stay together.
absl::Duration FollowUp::Jittered(absl::Duration distance) { return distance * absl::Uniform(random_, 0.8, 1.2); }

FollowUp::Stats FollowUp::stats() const {
  return {followed_.load(std::memory_order_relaxed), watched_.load(std::memory_order_relaxed),
          left_out_.load(std::memory_order_relaxed), absl::Milliseconds(late_ms_.load(std::memory_order_relaxed))};
}

}  // namespace userintent::usecase
