// How far apart the readings of an intent are that the gateway makes by itself (contract section 7). Pure; any thread.
#pragma once

#include <algorithm>

#include "absl/time/time.h"
#include "server/ledger/ledger.h"

namespace userintent::usecase {

inline constexpr absl::Duration kLongestWatched = absl::Seconds(60);
inline constexpr absl::Duration kShortestOther = absl::Minutes(1);
inline constexpr absl::Duration kLongestOther = absl::Hours(6);

// While it is watched: 1, 2, 4 ... 60 s. `step`: readings since the watch began or the status changed.
inline absl::Duration WatchedDistance(int step) {
  return std::min(absl::Seconds(1) * (1 << std::min(step, 6)), kLongestWatched);
}

// While nobody watches: from a reading to the next as long as from the status's first sight to that reading, which
// doubles the distances from a minute to six hours. It follows from the record alone, so it is the same after a
// restart.
inline absl::Duration OtherDistance(const ledger::Record& record, const ledger::Reading& latest) {
  const absl::Time began = std::max(latest.status_since, record.answer.at);
  if (latest.read_at == absl::InfinitePast()) return kShortestOther;
  return std::clamp(latest.read_at - began, kShortestOther, kLongestOther);
}

}  // namespace userintent::usecase
