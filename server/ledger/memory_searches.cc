// What a MemoryStore is asked that no decision follows: which rows something speaks of, what succeeded, what changed.
#include <algorithm>
#include <tuple>
#include <utility>

#include "server/ledger/memory_store.h"

namespace userintent::ledger {
namespace {

// So many rows, or entries of the log, are looked at in one slice; as in sqlite_searches.cc and sqlite_log.cc.
constexpr size_t kRowsOfASearch = 1000;
constexpr size_t kEntriesAtOnce = 2000;

}  // namespace

const Row* MemoryStore::FindAttempt(const Uuid& attempt_id, const TraceRequest& request, TraceAnswer& answer) const {
  for (const auto& [key, row] : rows_) {
    if (row.record.state != State::kSucceeded && row.record.attempt_id == attempt_id) return &row;
  }
  auto at = request.cursor == 0 ? arrivals_.end() : arrivals_.lower_bound(request.cursor);
  for (size_t seen = 0; at != arrivals_.begin(); ++seen) {
    answer.more = seen == kRowsOfASearch;
    if (answer.more) return nullptr;
    --at;
    answer.cursor = at->first;
    const Row& row = rows_.at(at->second);
    if (row.record.created < request.since) return nullptr;
    if (row.record.state == State::kSucceeded && row.record.attempt_id == attempt_id) return &row;
  }
  return nullptr;
}

absl::StatusOr<TraceAnswer> MemoryStore::Trace(const TraceRequest& request) {
  TraceAnswer answer;
  answer.available = true;
  const auto with_intent = by_intent_.find(request.intent);
  if (!request.intent.empty() && with_intent != by_intent_.end()) {
    const auto rank = [this](const Key& key) { return std::make_tuple(rows_.at(key).record.created, key); };
    answer.by_intent = rows_
                           .at(*std::max_element(with_intent->second.begin(), with_intent->second.end(),
                                                 [&](const Key& a, const Key& b) { return rank(a) < rank(b); }))
                           .record;
  }
  if (!request.attempt_id) return answer;
  if (answer.by_intent && answer.by_intent->attempt_id == *request.attempt_id) {
    answer.by_attempt = answer.by_intent;
  } else if (const Row* row = FindAttempt(*request.attempt_id, request, answer)) {
    answer.by_attempt = row->record;
  }
  return answer;
}

absl::StatusOr<SucceededAnswer> MemoryStore::Succeeded(const SucceededRequest& request) {
  SucceededAnswer answer;
  answer.available = true;
  answer.cursor = request.cursor;
  size_t seen = 0;
  for (auto at = arrivals_.upper_bound(request.cursor); at != arrivals_.end(); ++at, ++seen) {
    if (seen == std::max<size_t>(request.limit, 1)) {
      answer.more = true;
      break;
    }
    answer.cursor = at->first;
    const Record& record = rows_.at(at->second).record;
    if (record.state == State::kSucceeded && record.created >= request.since) answer.records.push_back(record);
  }
  return answer;
}

absl::StatusOr<LogSlice> MemoryStore::ReadLog(const LogLookup& lookup) {
  LogSlice slice;
  slice.upto = lookup.after;
  const auto end = static_cast<int64_t>(log_.size());
  slice.too_old = lookup.after < 0 || lookup.after > end;
  if (slice.too_old) return slice;
  absl::flat_hash_map<Key, int64_t, KeyHash> last;
  for (size_t seen = 0; slice.upto < end && seen < kEntriesAtOnce; ++seen, ++slice.upto) {
    const Change& change = log_[static_cast<size_t>(slice.upto)];
    if (change.key.caller != *lookup.caller || Find(change.key) == nullptr) continue;
    if (lookup.only != nullptr && !lookup.only->contains(change.key.request_id)) continue;
    if (!last.contains(change.key) && last.size() == std::max<size_t>(lookup.limit, 1)) break;
    last[change.key] = change.revision;
  }
  for (const auto& [key, revision] : last) {
    const Row& row = rows_.at(key);
    slice.entries.push_back({revision, row, Of(row.email).counters});
  }
  std::sort(slice.entries.begin(), slice.entries.end(),
            [](const LogSlice::Entry& a, const LogSlice::Entry& b) { return a.revision < b.revision; });
  return slice;
}

std::vector<Change> MemoryStore::TakeLogged() {
  const auto end = static_cast<size_t>(logged());
  std::vector<Change> taken(log_.begin() + static_cast<std::ptrdiff_t>(taken_),
                            log_.begin() + static_cast<std::ptrdiff_t>(end));
  taken_ = end;
  return taken;
}

void MemoryStore::Mark(Conflict&& conflict) {
  const auto same = [&conflict](const Conflict& other) {
    return other.key == conflict.key && other.claimed == conflict.claimed &&
           other.claimed_intent == conflict.claimed_intent;
  };
  if (std::any_of(conflicts_.begin(), conflicts_.end(), same)) return;
  conflicts_.push_back(std::move(conflict));
  conflicts_.back().seq = static_cast<int64_t>(conflicts_.size());
}

absl::StatusOr<UnresolvedAnswer> MemoryStore::Unresolved() {
  UnresolvedAnswer answer;
  answer.available = true;
  answer.count = std::min(static_cast<int64_t>(unknown_.size()), kUnresolvedCounted);
  if (!unknown_.empty()) answer.oldest = unknown_.begin()->first;
  return answer;
}

}  // namespace userintent::ledger
