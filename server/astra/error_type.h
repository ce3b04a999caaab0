// What kept an exchange from having a whole answer, in one word: for metrics and traces, where OpenTelemetry's
// conventions call it error.type. Pure; any thread.
#pragma once

#include <string_view>

#include "server/http/client.h"

namespace userintent::astra {

// Every word that ErrorTypeOf may say.
inline constexpr std::string_view kErrorTypes[] = {
    "timeout",          // sent, and nothing came in time
    "connection_lost",  // sent, and the connection or the stream ended before a status line came
    "answer_cut",       // a status line came, and not the whole answer
    "refused_stream",   // refused unprocessed by the HTTP/2 peer
    // Nothing was sent:
    "name_not_resolved",
    "connect",  // refused, unreachable
    "connect_timeout",
    "tls",
    "certificate",
    "address_not_allowed",
    "cancelled",
    "lease_over",
    "internal",
};

// Empty: a whole answer came.
std::string_view ErrorTypeOf(const http::Outcome& exchange);

}  // namespace userintent::astra
