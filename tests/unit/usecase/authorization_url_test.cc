// Every case of tests/conformance/authorization_urls.json, which the client libraries run as well: the URL of each
// status with odd values in it, and what is refused, by the rules that a call and the flags are held to.
#include "server/usecase/authorization_url.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "server/net/redirect_uri.h"

namespace userintent::usecase {
namespace {

nlohmann::json Cases() {
  std::ifstream file(USERINTENT_AUTHORIZATION_URLS);
  return nlohmann::json::parse(file).at("cases");
}

// What a case leads to, in the members of a case.
nlohmann::json Come(const nlohmann::json& one) {
  const auto text = [&one](const char* name) { return one.at(name).get<std::string>(); };
  std::vector<std::string> violations;
  if (!net::IsRedirectUri(text("redirect_uri"))) violations.emplace_back("redirect_uri");
  if (!IsAuthorizationState(text("state"))) violations.emplace_back("state");
  if (!violations.empty()) return {{"reason", "FIELD_INVALID"}, {"violations", violations}};
  v1::UserIntent intent;
  v1::UserIntentStatus status = v1::USER_INTENT_STATUS_UNSPECIFIED;
  EXPECT_TRUE(v1::UserIntentStatus_Parse("USER_INTENT_STATUS_" + text("status"), &status));
  intent.set_status(status);
  intent.set_id(text("user_intent_id"));
  intent.set_user_id(text("user_id"));
  const std::optional<AuthorizationLink> link =
      AuthorizationLinkOf(text("app_url"), text("client_id"), intent, text("redirect_uri"), text("state"));
  if (!link) return {{"reason", "USER_INTENT_NOT_ELIGIBLE"}};
  const std::string prefix = "AUTHORIZATION_PAGE_";
  return {{"url", link->url}, {"page", v1::AuthorizationPage_Name(link->page).substr(prefix.size())}};
}

TEST(AuthorizationUrl, EveryCaseOfTheSharedFile) {
  std::set<std::string> statuses, pages;
  for (const nlohmann::json& one : Cases()) {
    nlohmann::json wanted;
    for (const char* name : {"url", "page", "reason", "violations"}) {
      if (one.contains(name)) wanted[name] = one[name];
    }
    EXPECT_EQ(Come(one), wanted) << one["name"];
    statuses.insert(one["status"]);
    if (one.contains("page")) pages.insert(one["page"]);
  }
  EXPECT_EQ(statuses.size(), static_cast<size_t>(v1::UserIntentStatus_ARRAYSIZE)) << "a status without a case";
  EXPECT_EQ(pages.size(), static_cast<size_t>(v1::AuthorizationPage_ARRAYSIZE) - 1);
}

TEST(AuthorizationUrl, AStatusOfALaterVersionIsNotKnown) {
  v1::UserIntent intent;
  intent.set_status(static_cast<v1::UserIntentStatus>(99));
  intent.set_id("i");
  const auto link = AuthorizationLinkOf("https://p.example", "c", intent, "https://a.example", "0123456789abcdef");
  ASSERT_TRUE(link);
  EXPECT_EQ(link->page, v1::AUTHORIZATION_PAGE_AUTHORIZE);
}

}  // namespace
}  // namespace userintent::usecase
