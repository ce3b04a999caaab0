// The page that a person goes to next: the helper, and the call.
#include "userintent/authorization_url.h"

#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "tests/fake_gateway.h"
#include "userintent/client.h"

namespace userintent {
namespace {

constexpr char kState[] = "0123456789abcdef";

// The cases that the gateway and all libraries agree on.
google::protobuf::Struct Agreed() {
  const std::ifstream file(AUTHORIZATION_URLS);
  std::ostringstream text;
  text << file.rdbuf();
  google::protobuf::Struct agreed;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(text.str(), &agreed).ok());
  return agreed;
}

TEST(AuthorizationUrlTest, AsTheGatewayWouldAnswer) {
  const google::protobuf::Struct agreed = Agreed();
  const auto& cases = agreed.fields().at("cases").list_value().values();
  ASSERT_GE(cases.size(), 80);
  for (const auto& value : cases) {
    const auto& fields = value.struct_value().fields();
    const auto text = [&fields](const char* name) {
      const auto found = fields.find(name);
      return found == fields.end() ? std::string() : found->second.string_value();
    };
    SCOPED_TRACE(text("name"));
    v1::UserIntent intent;
    intent.set_id(text("user_intent_id"));
    intent.set_user_id(text("user_id"));
    v1::UserIntentStatus status = v1::USER_INTENT_STATUS_UNSPECIFIED;
    ASSERT_TRUE(v1::UserIntentStatus_Parse("USER_INTENT_STATUS_" + text("status"), &status));
    intent.set_status(status);
    const auto answer =
        AuthorizationUrlOf(intent, {text("app_url"), text("client_id"), text("redirect_uri"), text("state")});
    EXPECT_EQ(answer.ok() ? answer->url : "", text("url"));
    EXPECT_EQ(answer.ok() ? v1::AuthorizationPage_Name(answer->page) : "",
              answer.ok() ? "AUTHORIZATION_PAGE_" + text("page") : "");
    const std::optional<Error> error = ErrorOf(answer.status());
    EXPECT_EQ(error.has_value() ? error->reason : "", text("reason"));
    if (!error.has_value()) continue;
    std::vector<std::string> broken;
    for (const Violation& violation : error->violations) broken.push_back(violation.field);
    std::vector<std::string> expected;
    if (const auto found = fields.find("violations"); found != fields.end()) {
      for (const auto& name : found->second.list_value().values()) expected.push_back(name.string_value());
    }
    EXPECT_EQ(broken, expected);
    EXPECT_EQ(error->code, broken.empty() ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(error->recovery, broken.empty() ? recovery::kStop : recovery::kFixRequest);
    EXPECT_FALSE(error->maybe_sent());
    EXPECT_EQ(error->user_intent_id, intent.id());
  }
}

TEST(AuthorizationUrlTest, ASlashAfterTheOriginDoesNotCount) {
  const auto url = [](std::string app_url) {
    return AuthorizationUrlOf({}, {std::move(app_url), "client", "https://app.example.com/done", kState})->url;
  };
  EXPECT_EQ(url("https://app.astra.finance/"), url("https://app.astra.finance"));
}

TEST(GetAuthorizationUrlTest, AsksAndIsRepeatedAsARead) {
  FakeAnswer lost;
  lost.code = grpc::StatusCode::UNAVAILABLE;
  FakeGateway gateway({lost, FakeAnswer()});
  const auto client = gateway.Connect();
  const auto answer = client->GetAuthorizationUrl(RequestId{"R"}, {"https://app.example.com/done", kState});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->url(), "https://app.example.com/");
  ASSERT_TRUE(client->GetAuthorizationUrl(UserIntentId{"I"}, {"https://app.example.com/done", kState}).ok());
  const auto asked = gateway.authorizations();
  ASSERT_EQ(asked.size(), 3U);
  EXPECT_EQ(Redacted(asked[1]),
            "GetAuthorizationUrlRequest(request_id=\"R\", redirect_uri=\"https://app.example.com/done\", "
            "state=\"0123456789abcdef\")");
  EXPECT_EQ(asked[2].user_intent_id(), "I");
}

TEST(GetAuthorizationUrlTest, ItsErrorsAreOfARead) {
  FakeAnswer refused;
  refused.code = grpc::StatusCode::FAILED_PRECONDITION;
  refused.reason = "USER_INTENT_NOT_ELIGIBLE";
  refused.words = {{"recovery", "STOP"}};
  refused.pushback = "-1";
  FakeGateway gateway({refused});
  const auto error = ErrorOf(gateway.Connect()->GetAuthorizationUrl(UserIntentId{"I"}, {}).status());
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->Is(v1::ERROR_REASON_USER_INTENT_NOT_ELIGIBLE));
  EXPECT_FALSE(error->maybe_sent());
  EXPECT_EQ(error->user_intent_id, "I");
}

}  // namespace
}  // namespace userintent
