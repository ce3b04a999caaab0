// The header Retry-After (RFC 9110, 10.2.3). Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "absl/time/time.h"

namespace userintent::astra {

// The longest wait that is believed; longer ones are cut to it.
inline constexpr absl::Duration kMaxRetryAfter = absl::Hours(24);

// A date in one of HTTP's three forms (RFC 9110, 5.6.7). Nothing for anything else.
std::optional<absl::Time> ParseHttpDate(std::string_view header);

// How long to wait from `now`: a number of seconds (digits only), or a date in one of HTTP's three forms (RFC 9110,
// 5.6.7). A past date is zero. Nothing for anything else.
std::optional<absl::Duration> ParseRetryAfter(std::string_view header, absl::Time now);

}  // namespace userintent::astra
