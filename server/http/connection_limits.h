// How long connections live and when they count as dead, whichever library holds them.
#pragma once

#include <chrono>

namespace userintent::http {

// Below the idle timeout that servers and balancers commonly have (60 s and more), so that it is us who let go first.
inline constexpr std::chrono::seconds kIdleLimit{50};
// Bounds what a long-lived connection may accumulate, among it the flow-control leak of libcurl 7.88 for cancelled
// streams, and lets the upstream's DNS changes and new certificates take effect.
inline constexpr std::chrono::seconds kAgeLimit{300};
// A connection whose peer acknowledges nothing for this long is broken by the kernel. Without it a path that swallows
// packets would keep drawing new exchanges, each to end as "maybe sent" by its own timeout.
inline constexpr unsigned int kUnacknowledgedMs = 10000;
inline constexpr int kKeepaliveIdleSeconds = 15;
inline constexpr int kKeepaliveIntervalSeconds = 5;

}  // namespace userintent::http
