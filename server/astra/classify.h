// The one table that says what an exchange with Astra came to. Pure; any thread.
//
// Total: every http::Outcome has a verdict, and what is not named is kUnknown. It decides whether a request may ever be
// sent again, so a row may be moved away from kUnknown only with evidence that Astra did not process the request.
#pragma once

#include <optional>

#include "absl/time/time.h"
#include "server/astra/answer.h"
#include "server/astra/astra.h"
#include "server/http/client.h"

namespace userintent::astra {

// `now` is the wall clock, for a Retry-After that is a date.
Outcome Classify(const http::Outcome& exchange, const std::optional<LimitRule>& limit_rule, absl::Time now);

}  // namespace userintent::astra
