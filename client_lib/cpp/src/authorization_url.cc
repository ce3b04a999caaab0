#include "userintent/authorization_url.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "src/redirect_uri.h"
#include "userintent/error.h"

namespace userintent {
namespace {

// RFC 3986 section 2.3.
bool IsUnreserved(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~", c); }

void AppendParameter(absl::string_view separator, absl::string_view name, absl::string_view value, std::string* url) {
  constexpr char kHex[] = "0123456789ABCDEF";
  absl::StrAppend(url, separator, name, "=");
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (IsUnreserved(c)) {
      url->push_back(c);
    } else {
      url->append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
}

bool IsState(absl::string_view state) {
  return state.size() >= 16 && state.size() <= 256 && std::all_of(state.begin(), state.end(), &IsUnreserved);
}

absl::Status Refused(absl::StatusCode code, std::string reason, std::string_view recovery, std::string message,
                     const v1::UserIntent& intent, std::vector<Violation> violations) {
  Error error;
  error.code = code;
  error.reason = std::move(reason);
  error.recovery = std::string(recovery);
  error.message = std::move(message);
  error.violations = std::move(violations);
  error.user_intent_id = intent.id();
  error.read = true;
  error.not_repeated = std::string(not_repeated::kNotRetryable);
  return StatusOf(error);
}

v1::AuthorizationPage PageOf(v1::UserIntentStatus status) {
  if (status == v1::USER_INTENT_STATUS_DOCUMENT) return v1::AUTHORIZATION_PAGE_VERIFY_DOCUMENT;
  if (status == v1::USER_INTENT_STATUS_RETRY) return v1::AUTHORIZATION_PAGE_VERIFY_PERSONAL;
  return v1::AUTHORIZATION_PAGE_AUTHORIZE;
}

absl::string_view PathOf(v1::AuthorizationPage page) {
  if (page == v1::AUTHORIZATION_PAGE_VERIFY_DOCUMENT) return "/verify/document";
  if (page == v1::AUTHORIZATION_PAGE_VERIFY_PERSONAL) return "/verify/personal";
  return "/login/oauth/authorize";
}

}  // namespace

absl::StatusOr<AuthorizationUrl> AuthorizationUrlOf(const v1::UserIntent& intent, const AuthorizationUrlParts& parts) {
  std::vector<Violation> violations;
  if (!IsRedirectUri(parts.redirect_uri)) {
    violations.push_back(
        {"redirect_uri", "must be an https URI (http for loopback only), without a user and a fragment"});
  }
  if (!IsState(parts.state)) violations.push_back({"state", "must be 16-256 of [A-Za-z0-9._~-]"});
  if (!violations.empty()) {
    return Refused(absl::StatusCode::kInvalidArgument, "FIELD_INVALID", recovery::kFixRequest,
                   "a part of the URL breaks its rule", intent, std::move(violations));
  }
  if (intent.status() == v1::USER_INTENT_STATUS_REJECTED || intent.status() == v1::USER_INTENT_STATUS_SUSPENDED) {
    return Refused(absl::StatusCode::kFailedPrecondition, "USER_INTENT_NOT_ELIGIBLE", recovery::kStop,
                   "there is no page for a person who was rejected or suspended", intent, {});
  }
  AuthorizationUrl result;
  result.page = PageOf(intent.status());
  const bool by_user = intent.status() == v1::USER_INTENT_STATUS_CONVERTED_TO_USER && !intent.user_id().empty();
  result.url = absl::StrCat(absl::StripSuffix(parts.app_url, "/"), PathOf(result.page));
  AppendParameter("?", "client_id", parts.client_id, &result.url);
  AppendParameter("&", "redirect_uri", parts.redirect_uri, &result.url);
  if (result.page == v1::AUTHORIZATION_PAGE_AUTHORIZE) AppendParameter("&", "response_type", "code", &result.url);
  AppendParameter("&", by_user ? "user_id" : "user_intent_id", by_user ? intent.user_id() : intent.id(), &result.url);
  AppendParameter("&", "state", parts.state, &result.url);
  return result;
}

}  // namespace userintent
