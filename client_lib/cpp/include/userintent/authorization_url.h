// The page of Astra's that a person goes to next, for programs that have the intent already: the same URL, and the same
// refusals, as Client::GetAuthorizationUrl, without a call. What the gateway alone knows, the redirect URIs that are
// registered for the caller, is not checked here.
//
// Any thread may call this.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent {

struct AuthorizationUrl {
  // It holds no personal data and no secret; with the intent's id in it, it belongs in no log all the same.
  std::string url = {};
  v1::AuthorizationPage page = v1::AUTHORIZATION_PAGE_UNSPECIFIED;
};

struct AuthorizationUrlParts {
  // Where Astra's pages are: "https://app.astra.finance", of its sandbox "https://app-sandbox.astra.finance"; a slash
  // after it does not count.
  std::string app_url = {};
  // Astra's id of the program that the gateway creates intents for.
  std::string client_id = {};
  // As in AuthorizationOptions (client.h).
  std::string redirect_uri = {};
  std::string state = {};
};

// INVALID_ARGUMENT (ERROR_REASON_FIELD_INVALID, Error::violations) for a redirect URI or a state that breaks its rule,
// FAILED_PRECONDITION (ERROR_REASON_USER_INTENT_NOT_ELIGIBLE) for a person who was rejected or suspended.
absl::StatusOr<AuthorizationUrl> AuthorizationUrlOf(const v1::UserIntent& intent, const AuthorizationUrlParts& parts);

}  // namespace userintent
