// rules: what a CreateUserIntentRequest must look like (contract section 2). Pure functions; any thread.
//
// ParseStrict comes first, then Validate. Nothing here changes, trims or normalises a value.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/time/civil_time.h"
#include "server/intent/strict_parse.h"  // IWYU pragma: export
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::intent {

// The server's flags of the same names.
struct RulesOptions {
  bool kyc_delegation = false;       // ssn_last_four is never required
  bool allow_non_public_ip = false;  // special-purpose addresses pass
};

// One broken field. Both texts are constants that say what is expected; neither ever holds a value or a metadata key.
struct Violation {
  std::string_view field;  // its name in the proto
  std::string_view description;
};

// All broken fields in the order of the contract's table, each once. Empty: the request may be sent.
std::vector<Violation> Validate(const v1::CreateUserIntentRequest& request, const RulesOptions& options,
                                absl::CivilDay today_utc);

// The rule of request_id alone, for GetCreation.
std::optional<Violation> ValidateRequestId(std::string_view request_id);

}  // namespace userintent::intent
