#include "server/postgres/takers_watch.h"

#include <utility>

namespace userintent::postgres {

TakersWatch::Verdict TakersWatch::Look(absl::Span<const Replica> all, int64_t mine, BootNanos before, BootNanos after) {
  // Who was not looked at may have beaten and gone back, or this process was frozen, or the database was away for all.
  const bool gap = looked_ == 0 || after - looked_ > limits_.gap;
  looked_ = after;
  Verdict verdict;
  absl::flat_hash_map<int64_t, Seen> now;
  for (const Replica& one : all) {
    const auto known = seen_.find(one.epoch);
    const bool same = known != seen_.end() && known->second.beat == one.beat && known->second.ended == one.ended;
    // That somebody has ended stays so, whoever looked or did not.
    const Seen seen = same && (!gap || one.ended) ? known->second : Seen{one.beat, one.ended, after};
    now.emplace(one.epoch, seen);
    if (one.ended) {
      ++verdict.ended;
      if (before - seen.since > limits_.quiet) verdict.sweep.push_back(one.epoch);
      continue;
    }
    ++verdict.alive;
    if (one.epoch < mine) ++verdict.rank;
    if (one.epoch != mine && before - seen.since > limits_.fence) verdict.fence.push_back(one);
  }
  seen_ = std::move(now);
  return verdict;
}

}  // namespace userintent::postgres
