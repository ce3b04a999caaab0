#include "server/usecase/authorization_url.h"

#include <algorithm>

#include "server/base/text.h"

namespace userintent::usecase {
namespace {

v1::AuthorizationPage PageOf(v1::UserIntentStatus status) {
  switch (status) {
    case v1::USER_INTENT_STATUS_REJECTED:
    case v1::USER_INTENT_STATUS_SUSPENDED:
      return v1::AUTHORIZATION_PAGE_UNSPECIFIED;
    case v1::USER_INTENT_STATUS_RETRY:
      return v1::AUTHORIZATION_PAGE_VERIFY_PERSONAL;
    case v1::USER_INTENT_STATUS_DOCUMENT:
      return v1::AUTHORIZATION_PAGE_VERIFY_DOCUMENT;
    default:
      // Also where Astra gave no status or a new one: the page that begins every way asks for what is missing.
      return v1::AUTHORIZATION_PAGE_AUTHORIZE;
  }
}

std::string_view PathOf(v1::AuthorizationPage page) {
  switch (page) {
    case v1::AUTHORIZATION_PAGE_VERIFY_PERSONAL:
      return "/verify/personal";
    case v1::AUTHORIZATION_PAGE_VERIFY_DOCUMENT:
      return "/verify/document";
    default:
      return "/login/oauth/authorize";
  }
}

}  // namespace

bool IsAuthorizationState(std::string_view state) {
  constexpr std::string_view kMarks = "._~-";
  return state.size() >= 16 && state.size() <= 256 && std::all_of(state.begin(), state.end(), [&](char c) {
           return IsAlnum(c) || kMarks.find(c) != std::string_view::npos;
         });
}

std::optional<AuthorizationLink> AuthorizationLinkOf(std::string_view app_url, std::string_view client_id,
                                                     const v1::UserIntent& intent, std::string_view redirect_uri,
                                                     std::string_view state) {
  AuthorizationLink link;
  link.page = PageOf(intent.status());
  if (link.page == v1::AUTHORIZATION_PAGE_UNSPECIFIED) return std::nullopt;
  link.url = std::string(app_url).append(PathOf(link.page));
  char before = '?';
  const auto add = [&](std::string_view name, std::string_view value) {
    link.url.append(1, before).append(name).append("=").append(PercentEncoded(value, "~"));
    before = '&';
  };
  add("client_id", client_id);
  add("redirect_uri", redirect_uri);
  if (link.page == v1::AUTHORIZATION_PAGE_AUTHORIZE) add("response_type", "code");
  const bool user = intent.status() == v1::USER_INTENT_STATUS_CONVERTED_TO_USER && !intent.user_id().empty();
  add(user ? "user_id" : "user_intent_id", user ? intent.user_id() : intent.id());
  add("state", state);
  return link;
}

}  // namespace userintent::usecase
