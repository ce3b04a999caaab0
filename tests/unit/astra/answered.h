// What the tests of how Astra's answers are read begin from.
#pragma once

#include <string>
#include <utility>

#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "server/http/client.h"

namespace userintent::astra {

// Before the date that RFC 9110 writes its examples with.
inline const absl::Time kNow = absl::FromCivil(absl::CivilSecond(1994, 11, 6, 8, 49, 0), absl::UTCTimeZone());

// An exchange that ended with a whole answer.
inline http::Outcome Answered(int status, std::string body = R"({"id":"intent-1","status":"pending"})") {
  http::Outcome exchange;
  exchange.fate = http::Fate::kAnswered;
  exchange.status = status;
  exchange.body_complete = true;
  exchange.body = std::move(body);
  exchange.request_id = "req-1";
  return exchange;
}

}  // namespace userintent::astra
