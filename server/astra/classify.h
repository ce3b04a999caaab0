// The tables that say what an exchange with Astra came to. Pure; any thread.
//
// Total: every http::Outcome has a verdict. Of a POST, what is not named is kUnknown. Classify decides whether a
// request may ever be sent again, so a row may be moved away from kUnknown only with evidence that Astra did not
// process the request.
#pragma once

#include <optional>
#include <string_view>

#include "absl/time/time.h"
#include "server/astra/answer.h"
#include "server/astra/astra.h"
#include "server/http/client.h"

namespace userintent::astra {

// `now` is the wall clock, for a Retry-After that is a date.
Outcome Classify(const http::Outcome& exchange, const std::optional<LimitRule>& limit_rule, absl::Time now);

// Of a GET of `user_intent_id`.
ReadOutcome ClassifyRead(const http::Outcome& exchange, std::string_view user_intent_id, absl::Time now);

}  // namespace userintent::astra
