// ReadDuration: durations as people write them. Pure; any thread.
#pragma once

#include <string_view>

#include "absl/time/time.h"

namespace userintent {

// Abseil's form (numbers with the units ns, us, ms, s, m and h; 0; inf), and days before the rest: "7d", "1.5d",
// "1d12h". A day has 24 hours. False, with `out` untouched, for everything else.
bool ReadDuration(std::string_view text, absl::Duration* out);

}  // namespace userintent
