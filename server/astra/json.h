// The JSON body of POST /v1/user_intent. Pure; any thread.
//
// The one place that knows Astra's field names and when a field is left out.
#pragma once

#include <string>
#include <string_view>

#include "server/base/uuid.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::astra {

// Astra's word, its field kyc_type. Empty for UNSPECIFIED: left out, which Astra takes for "verified".
std::string_view KycType(v1::VerificationType type);

// `request` must have passed intent::Validate. With an `attempt_id`, metadata gets gateway_attempt_id when the caller
// left room for it (at most 24 keys of Astra's 25). The result holds personal data; its last owner wipes it.
std::string RequestBody(const v1::CreateUserIntentRequest& request, const Uuid* attempt_id_or_null);

}  // namespace userintent::astra
