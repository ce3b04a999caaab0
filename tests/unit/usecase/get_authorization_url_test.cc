// GetAuthorizationUrl: what is refused before anything else, that the intent is read anew, and what the URL is made of.
// Nothing sleeps. The URLs of every status are authorization_url_test's, the errors of reads get_user_intent_test's.
#include "server/usecase/get_authorization_url.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

#include "server/ledger/memory_ledger.h"
#include "tests/unit/usecase/fake_loop.h"
#include "tests/unit/usecase/fake_reads.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using Response = v1::GetAuthorizationUrlResponse;

constexpr char kRequestId[] = "00000000-0000-0000-0000-000000000001";
constexpr char kState[] = "0123456789abcdef";

class GetAuthorizationUrlTest : public testing::Test {
 protected:
  GetAuthorizationUrlTest() {
    ledger::BeginRequest begin;
    begin.key = {"local", *ParseUuid(kRequestId)};
    begin.now = absl::Now() - absl::Hours(1);
    ledger_.Begin(begin, loop_, [](const ledger::BeginAnswer&) {});
    ledger::FinishRequest finish;
    finish.key = begin.key;
    finish.state = ledger::State::kSucceeded;
    finish.answer.user_intent_id = "intent-1";
    finish.answer.astra_status = "pending";
    finish.answer.at = finish.now = begin.now;
    ledger_.Finish(finish, loop_, [](const ledger::FinishAnswer& answer) { ASSERT_TRUE(answer.committed); });
    loop_.Settle();
  }

  static v1::GetAuthorizationUrlRequest Right() {
    v1::GetAuthorizationUrlRequest request;
    request.set_request_id(kRequestId);
    request.set_redirect_uri("https://a.example/two?x=1");
    request.set_state(kState);
    return request;
  }

  void Call(v1::GetAuthorizationUrlRequest request, const char* caller = "local") {
    result_.reset();
    left_ = GetAuthorizationUrl(deps_, {caller, std::move(request), loop_.Now() + 30s,
                                        [this](Result<Response> result) { result_ = std::move(result); }});
    loop_.Settle();
  }
  v1::ErrorReason Reason() const {
    return result_ && !result_->ok() ? result_->error().reason : v1::ERROR_REASON_UNSPECIFIED;
  }
  std::string Violations() const {
    std::string all;
    if (Reason() != v1::ERROR_REASON_FIELD_INVALID) return "none";
    for (const intent::Violation& violation : result_->error().violations) all += std::string(violation.field) + " ";
    return all;
  }
  void Answer(const char* status, const char* user_id = "") {
    astra_.AnswerStatus(status, user_id);
    loop_.Settle();
  }

  FakeLoop loop_;
  FakeAstraReads astra_;
  ledger::MemoryLedger ledger_;
  AdmissionControl admission_{AdmissionControl::Options{2, 100ms}};
  ReadWatcher observer_;
  IntentReads reads_{ledger_, admission_, observer_, 0};
  std::string client_id_ = "client-1";
  const AuthorizationDependencies deps_{{ledger_, reads_, {loop_, astra_}, 100ms},
                                        "https://p.example",
                                        {"https://a.example/one", "https://a.example/two?x=1"},
                                        [this] { return client_id_; }};
  std::optional<Result<Response>> result_;
  CallerLeft left_;
};

TEST_F(GetAuthorizationUrlTest, ReadsTheIntentAnewAndLeadsToItsPage) {
  Call(Right());
  ASSERT_EQ(astra_.gets.size(), 1u) << "the recorded status is an hour old, and another page may belong to the new one";
  client_id_ = "client-2";  // the file was replaced meanwhile
  Answer("document");
  ASSERT_TRUE(result_ && result_->ok());
  const Response& response = result_->value();
  EXPECT_EQ(response.page(), v1::AUTHORIZATION_PAGE_VERIFY_DOCUMENT);
  EXPECT_EQ(response.user_intent().status(), v1::USER_INTENT_STATUS_DOCUMENT);
  EXPECT_EQ(response.user_intent().id(), "intent-1");
  EXPECT_EQ(response.url(),
            "https://p.example/verify/document?client_id=client-2&redirect_uri=https%3A%2F%2Fa.example%2Ftwo%3Fx%3D1"
            "&user_intent_id=intent-1&state=0123456789abcdef");
}

TEST_F(GetAuthorizationUrlTest, APersonWhoHasBecomeAUser) {
  v1::GetAuthorizationUrlRequest request = Right();
  request.set_user_intent_id("intent-1");
  Call(request);
  Answer("converted_to_user", "user-7");
  ASSERT_TRUE(result_ && result_->ok());
  EXPECT_NE(result_->value().url().find("&user_id=user-7&"), std::string::npos);
  EXPECT_EQ(result_->value().url().find("intent-1"), std::string::npos);
  EXPECT_EQ(result_->value().user_intent().user_id(), "user-7");
}

TEST_F(GetAuthorizationUrlTest, ThereIsNoPageForARejectedPerson) {
  for (const char* status : {"rejected", "suspended"}) {
    Call(Right());
    Answer(status);
    ASSERT_EQ(Reason(), v1::ERROR_REASON_USER_INTENT_NOT_ELIGIBLE);
    EXPECT_EQ(result_->error().recovery, Recovery::kStop);
  }
}

TEST_F(GetAuthorizationUrlTest, EveryBrokenFieldIsNamedBeforeAnythingElse) {
  Call({});
  EXPECT_EQ(Violations(), "key redirect_uri state ");
  v1::GetAuthorizationUrlRequest request = Right();
  request.set_request_id("no-uuid");
  request.set_state("short");
  Call(request, "dns:another");
  EXPECT_EQ(Violations(), "request_id state ");
  request = Right();
  request.set_user_intent_id("");
  Call(request);
  EXPECT_EQ(Violations(), "user_intent_id ");
  for (const char* uri : {"https://a.example/", "https://a.example/one/", "https://a.example/One",
                          "https://a.example/one?", "https://a.example/two?x=2", "https://a.example/two"}) {
    request = Right();
    request.set_redirect_uri(uri);
    Call(request);
    EXPECT_EQ(Violations(), "redirect_uri ") << uri;
  }
  EXPECT_TRUE(astra_.gets.empty());
}

TEST_F(GetAuthorizationUrlTest, FailsAsAReadDoes) {
  Call(Right(), "dns:another");
  EXPECT_EQ(Reason(), v1::ERROR_REASON_REQUEST_NOT_FOUND);
  v1::GetAuthorizationUrlRequest request = Right();
  request.set_user_intent_id("intent-2");
  Call(request);
  EXPECT_EQ(Reason(), v1::ERROR_REASON_USER_INTENT_NOT_FOUND);
  Call(Right());
  astra_.Answer(ReadVerdict::kMisconfigured, 301);
  loop_.Settle();
  EXPECT_EQ(Reason(), v1::ERROR_REASON_UPSTREAM_MISCONFIGURED);
  EXPECT_EQ(result_->error().http_status, 301);
}

TEST_F(GetAuthorizationUrlTest, ACallerThatLeavesHearsNothing) {
  Call(Right());
  left_();
  Answer("approved");
  EXPECT_FALSE(result_);
  EXPECT_EQ(loop_.timers(), 0u);
}

}  // namespace
}  // namespace userintent::usecase
