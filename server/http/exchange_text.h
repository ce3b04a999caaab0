// Small helpers that the clients share, and the fixed texts of Outcome::detail. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "server/base/wipe.h"
#include "server/http/client.h"

namespace userintent::http {

// Without the blanks and line ends around it.
std::string_view TrimBlanks(std::string_view text);

bool HasControl(std::string_view text);  // CR, LF or NUL

// A POST has a body, and a GET has none.
inline bool BodyFits(const Request& request) { return request.body.empty() == (request.method == Method::kGet); }

std::string_view DetailOf(NotSentCause cause);

}  // namespace userintent::http
