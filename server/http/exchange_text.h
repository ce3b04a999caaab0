// Small helpers that the clients share, and the fixed texts of Outcome::detail. Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "server/base/wipe.h"
#include "server/http/client.h"

namespace userintent::http {

// Whether both are the same but for the case of ASCII letters. `lower` has none in upper case.
bool EqualsIgnoringCase(std::string_view text, std::string_view lower);

bool HasControl(std::string_view text);  // CR, LF or NUL

std::string_view DetailOf(NotSentCause cause);
inline constexpr std::string_view kNoAnswer = "no answer in time";

}  // namespace userintent::http
