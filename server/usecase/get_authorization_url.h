// GetAuthorizationUrl: where to send the person of one of the caller's own intents next.
//
// On a shard's thread. Nothing of the URL is logged or kept.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "server/usecase/call.h"
#include "server/usecase/own_intent.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

using GetAuthorizationUrlCall = Call<v1::GetAuthorizationUrlRequest, v1::GetAuthorizationUrlResponse>;

// What a shard's calls of GetAuthorizationUrl use; outlives them.
struct AuthorizationDependencies {
  ReadDependencies reads;
  std::string app_url;                     // where Astra's pages are; an origin. Empty: unknown, so all is refused
  std::vector<std::string> redirect_uris;  // where a person may be sent back to, while there is no policy
  std::function<std::string()> client_id;  // Astra's name for the gateway, as it is now
};

// The handler. What is wrong with the request comes first, then the errors of a read, then USER_INTENT_NOT_ELIGIBLE.
CallerLeft GetAuthorizationUrl(const AuthorizationDependencies& dependencies, GetAuthorizationUrlCall&& call);

}  // namespace userintent::usecase
