// time: wall-clock times as the ledger and the API write them. Pure but for the clock; any thread.
//
// The setters take google.protobuf.Timestamp and google.protobuf.Duration. They are templates so that base needs no
// protobuf.
#pragma once

#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace userintent {

// The time as a ledger keeps it: whole microseconds, rounded towards the past.
inline absl::Time ToMicros(absl::Time time) { return absl::FromUnixMicros(absl::ToUnixMicros(time)); }

// Now, as a ledger will read it back: a repeat of a call answers the same time.
inline absl::Time NowMicros() { return ToMicros(absl::Now()); }

// Whole microseconds since 1970. No time at all (absl::InfinitePast()) is written as 1970.
template <typename Timestamp>
void SetTimestamp(absl::Time time, Timestamp* out) {
  const int64_t micros = time == absl::InfinitePast() ? 0 : absl::ToUnixMicros(time);
  int64_t seconds = micros / 1'000'000;
  int64_t rest = micros % 1'000'000;
  if (rest < 0) {  // nanos counts forwards before 1970 too
    --seconds;
    rest += 1'000'000;
  }
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(rest * 1000));
}

// Whole nanoseconds; the caller rounds.
template <typename Duration>
void SetDuration(absl::Duration duration, Duration* out) {
  absl::Duration rest;
  out->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

}  // namespace userintent
