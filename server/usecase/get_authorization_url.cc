#include "server/usecase/get_authorization_url.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/intent/rules.h"
#include "server/usecase/authorization_url.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {
namespace {

// By the policy in force when the call began; one that names the caller not at all, and lets it pass nowhere, has none.
// `enforce: false` makes no difference: a place to send people to is no try-out.
bool IsRegistered(const AuthorizationDependencies& dependencies, const GetAuthorizationUrlCall& call) {
  static const std::vector<std::string> none;
  const policy::Access* const access = call.access.get();
  const bool by_policy = access != nullptr && access->policy != nullptr;
  const std::vector<std::string>& registered = !by_policy                ? dependencies.redirect_uris
                                               : access->rule != nullptr ? access->rule->redirect_uris
                                                                         : none;
  return std::ranges::find(registered, call.request.redirect_uri()) != registered.end();
}

}  // namespace

CallerLeft GetAuthorizationUrl(const AuthorizationDependencies& dependencies, GetAuthorizationUrlCall&& call) {
  std::vector<intent::Violation> violations;
  OwnIntentQuery query;
  query.key = KeyOf(call.request, &violations);
  if (dependencies.app_url.empty() || !IsRegistered(dependencies, call)) {
    violations.push_back({"redirect_uri",
                          "required: one that is registered for you (redirect_uris in the policy file, or "
                          "--oauth_redirect_uri), byte by byte"});
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
  query.trace = call.trace;
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
