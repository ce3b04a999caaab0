// The URLs of Astra's pages that a person is sent to, by the status of their intent (contract section 7). Pure; any
// thread. tests/conformance/authorization_urls.json has a case of each, which the client libraries build the same way.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

// 16-256 of [A-Za-z0-9._~-]: long enough to be beyond guessing, and the same text before and after a URL.
bool IsAuthorizationState(std::string_view state);

struct AuthorizationLink {
  std::string url;
  v1::AuthorizationPage page = v1::AUTHORIZATION_PAGE_UNSPECIFIED;
};

// Nothing for a person who was rejected or suspended: there is no page for them. `app_url` is an origin; `redirect_uri`
// and `state` have been checked.
std::optional<AuthorizationLink> AuthorizationLinkOf(std::string_view app_url, std::string_view client_id,
                                                     const v1::UserIntent& intent, std::string_view redirect_uri,
                                                     std::string_view state);

}  // namespace userintent::usecase
