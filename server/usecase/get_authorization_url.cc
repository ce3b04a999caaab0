#include "server/usecase/get_authorization_url.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/intent/rules.h"
#include "server/usecase/authorization_url.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {

CallerLeft GetAuthorizationUrl(const AuthorizationDependencies& dependencies, GetAuthorizationUrlCall&& call) {
  std::vector<intent::Violation> violations;
  OwnIntentQuery query;
  query.key = KeyOf(call.request, &violations);
  if (std::ranges::find(dependencies.redirect_uris, call.request.redirect_uri()) == dependencies.redirect_uris.end()) {
    violations.push_back({"redirect_uri", "required: one that is registered (--oauth_redirect_uri), byte by byte"});
  }
  if (!IsAuthorizationState(call.request.state())) {
    violations.push_back({"state", "required: 16-256 of [A-Za-z0-9._~-]"});
  }
  if (!violations.empty()) {
    call.done(CallError::Of(std::move(violations)));
    return nullptr;
  }
  query.caller = std::move(call.caller);
  query.deadline = call.deadline;
  return ReadOwnIntent(
      dependencies.reads, std::move(query),
      [&dependencies, request = std::move(call.request), done = std::move(call.done)](Result<OwnIntent> read) mutable {
        if (!read.ok()) return done(std::move(read.error()));
        v1::GetAuthorizationUrlResponse response;
        *response.mutable_user_intent() = ToUserIntent(*read.value().record, read.value().reading);
        std::optional<AuthorizationLink> link =
            AuthorizationLinkOf(dependencies.app_url, dependencies.client_id(), response.user_intent(),
                                request.redirect_uri(), request.state());
        if (!link) return done(CallError::Of(v1::ERROR_REASON_USER_INTENT_NOT_ELIGIBLE));
        response.set_url(std::move(link->url));
        response.set_page(link->page);
        done(std::move(response));
      });
}

}  // namespace userintent::usecase
