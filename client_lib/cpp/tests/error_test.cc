#include "userintent/error.h"

#include <map>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "src/decode.h"
#include "tests/fake_gateway.h"

namespace userintent {
namespace {

using ::testing::HasSubstr;

Error Decoded(const FakeAnswer& answer) {
  std::multimap<grpc::string_ref, grpc::string_ref> trailers;
  if (!answer.pushback.empty()) trailers.emplace("grpc-retry-pushback-ms", answer.pushback);
  return Decode(answer.Status(), trailers);
}

FakeAnswer Answer(grpc::StatusCode code, std::string reason, std::map<std::string, std::string> words) {
  FakeAnswer answer;
  answer.code = code;
  answer.reason = std::move(reason);
  answer.words = std::move(words);
  return answer;
}

Error Full() {
  FakeAnswer answer = Answer(grpc::StatusCode::FAILED_PRECONDITION, "FIELD_INVALID",
                             {{"sent", "maybe"},
                              {"recovery", "FIX_REQUEST"},
                              {"attempts_used_min", "1"},
                              {"attempts_used_max", "2"},
                              {"user_intent_id", "intent"},
                              {"unresolved_request_id", "other"},
                              {"astra_request_id", "astra"},
                              {"http_status", "422"},
                              {"replayed", "true"}});
  answer.violations = {"email", "state"};
  answer.retry = absl::Milliseconds(1500);
  Error error = Decoded(answer);
  error.request_id = "an id, of the caller's";
  error.tries = 3;
  return error;
}

void ExpectFull(const Error& error) {
  EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(error.message, "message");
  EXPECT_EQ(error.reason, "FIELD_INVALID");
  EXPECT_TRUE(error.Is(v1::ERROR_REASON_FIELD_INVALID));
  EXPECT_FALSE(error.Is(v1::ERROR_REASON_INTERNAL));
  EXPECT_EQ(error.sent, sent::kMaybe);
  EXPECT_EQ(error.recovery, recovery::kFixRequest);
  EXPECT_TRUE(error.maybe_sent());
  ASSERT_EQ(error.violations.size(), 2U);
  EXPECT_EQ(error.violations[1].field, "state");
  EXPECT_EQ(error.violations[1].description, "breaks a rule");
  ASSERT_TRUE(error.attempts.has_value());
  EXPECT_EQ(error.attempts->used_min, 1);
  EXPECT_EQ(error.attempts->used_max, 2);
  EXPECT_EQ(error.user_intent_id, "intent");
  EXPECT_EQ(error.unresolved_request_id, "other");
  EXPECT_EQ(error.astra_request_id, "astra");
  EXPECT_EQ(error.http_status, 422);
  EXPECT_TRUE(error.replayed);
  EXPECT_EQ(error.retry_after, absl::Milliseconds(1500));
  EXPECT_EQ(error.request_id, "an id, of the caller's");
  EXPECT_EQ(error.tries, 3);
}

TEST(ErrorTest, EveryFieldIsDecoded) { ExpectFull(Full()); }

TEST(ErrorTest, EveryFieldTravelsInAStatus) {
  const std::optional<Error> error = ErrorOf(StatusOf(Full()));
  ASSERT_TRUE(error.has_value());
  ExpectFull(*error);
}

TEST(ErrorTest, AnErrorOfOthersTravelsInAStatus) {
  Error error;
  error.code = absl::StatusCode::kDeadlineExceeded;
  error.message = "late";
  error.request_id = "id";
  error.tries = 1;
  const std::optional<Error> read = ErrorOf(StatusOf(error));
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(read->reason, "");
  EXPECT_TRUE(read->maybe_sent());
  EXPECT_EQ(read->attempts, std::nullopt);
  EXPECT_EQ(read->http_status, std::nullopt);
  EXPECT_EQ(read->retry_after, std::nullopt);
  EXPECT_EQ(read->request_id, "id");
}

TEST(ErrorTest, AFinalStatusTravelsInAStatus) {
  Error error;
  error.code = absl::StatusCode::kFailedPrecondition;
  error.reason = std::string(reason::kStatusFinal);
  error.final_status = v1::USER_INTENT_STATUS_SUSPENDED;
  error.read = true;
  EXPECT_EQ(ErrorOf(StatusOf(error))->final_status, v1::USER_INTENT_STATUS_SUSPENDED);
  // Only this library says so.
  const FakeAnswer answer =
      Answer(grpc::StatusCode::UNKNOWN, "NEWER", {{"final_status", "USER_INTENT_STATUS_SUSPENDED"}});
  EXPECT_EQ(Decoded(answer).final_status, v1::USER_INTENT_STATUS_UNSPECIFIED);
}

TEST(ErrorTest, AWatchOfManyNamesNone) {
  Error error;
  error.code = absl::StatusCode::kCancelled;
  error.message = "the watch was cancelled";
  error.read = true;
  error.tries = 2;
  std::ostringstream text;
  text << *ErrorOf(StatusOf(error));
  EXPECT_EQ(text.str(), "CANCELLED: the watch was cancelled (RETRY_SAME_ID, tries 2)");
}

TEST(ErrorTest, StatusesOfOthersHoldNone) {
  EXPECT_EQ(ErrorOf(absl::OkStatus()), std::nullopt);
  EXPECT_EQ(ErrorOf(absl::UnavailableError("x")), std::nullopt);
  absl::Status odd = absl::UnavailableError("x");
  odd.SetPayload("userintent.v1/call", absl::Cord("something"));
  EXPECT_EQ(ErrorOf(odd), std::nullopt);
}

TEST(ErrorTest, OkIsNoError) {
  Error error;
  error.code = absl::StatusCode::kOk;
  EXPECT_EQ(StatusOf(error).code(), absl::StatusCode::kUnknown);
}

TEST(ErrorTest, MaybeSentIsWhatTheGatewaySays) {
  const auto maybe = [](const char* reason, const char* sent) {
    return Decoded(Answer(grpc::StatusCode::INTERNAL, reason, {{"sent", sent}})).maybe_sent();
  };
  EXPECT_TRUE(maybe("", ""));
  EXPECT_TRUE(maybe("INTERNAL", "maybe"));
  EXPECT_FALSE(maybe("INTERNAL", "no"));
  EXPECT_FALSE(maybe("UPSTREAM_REJECTED", "yes"));
}

TEST(ErrorTest, DetailsOfAnotherServiceCountAsNone) {
  FakeAnswer answer = Answer(grpc::StatusCode::PERMISSION_DENIED, "RBAC_DENIED", {{"sent", "no"}});
  answer.domain = "proxy.example.com";
  const Error error = Decoded(answer);
  EXPECT_EQ(error.reason, "");
  EXPECT_EQ(error.sent, "");
  EXPECT_TRUE(error.maybe_sent());
}

TEST(ErrorTest, DamagedDetailsCountAsNone) {
  FakeAnswer answer = Busy(absl::Seconds(1));
  answer.details = "\xff\xff\xff\xff";
  EXPECT_EQ(Decoded(answer).retry_after, std::nullopt);

  // Not even half of them is believed: a good ErrorInfo, and a RetryInfo that is none.
  google::rpc::Status status;
  ASSERT_TRUE(status.ParseFromString(Busy(absl::Seconds(1)).Status().error_details()));
  status.mutable_details(1)->set_value("\xff");
  answer.details = status.SerializeAsString();
  const Error error = Decoded(answer);
  EXPECT_EQ(error.reason, "");
  EXPECT_EQ(error.retry_after, std::nullopt);
  EXPECT_EQ(error.message, "message");
}

TEST(ErrorTest, OddNumbersAreAbsent) {
  for (const char* odd : {"", "x", "-1", "+1", " 1", "99999999999"}) {
    const Error error = Decoded(Answer(grpc::StatusCode::INTERNAL, "INTERNAL",
                                       {{"http_status", odd}, {"attempts_used_min", odd}, {"attempts_used_max", "2"}}));
    EXPECT_EQ(error.http_status, std::nullopt) << odd;
    EXPECT_FALSE(error.attempts.has_value()) << odd;
  }
}

TEST(ErrorTest, Pushback) {
  FakeAnswer answer = Busy(absl::Milliseconds(100));
  EXPECT_EQ(Decoded(answer).retry_after, absl::Milliseconds(100));
  answer.pushback = "600";
  EXPECT_EQ(Decoded(answer).retry_after, absl::Milliseconds(600));
  answer.pushback = "50";
  EXPECT_EQ(Decoded(answer).retry_after, absl::Milliseconds(100));
  for (const char* forbids : {"-1", "soon"}) {
    answer.pushback = forbids;
    EXPECT_EQ(Decoded(answer).retry_after, std::nullopt) << forbids;
  }
  answer.retry.reset();
  answer.pushback = "10";
  EXPECT_EQ(Decoded(answer).retry_after, std::nullopt) << "a delay without RetryInfo allows nothing";
}

TEST(ErrorTest, NegativeDelaysAreNone) {
  FakeAnswer answer = Busy(-absl::Seconds(3));
  EXPECT_EQ(Decoded(answer).retry_after, absl::ZeroDuration());
}

TEST(ErrorTest, ReasonsOfANewerGatewayComeThrough) {
  const Error error = Decoded(Answer(grpc::StatusCode::ABORTED, "SOMETHING_NEWER", {{"recovery", "DO_SOMETHING_NEW"}}));
  EXPECT_EQ(error.reason, "SOMETHING_NEWER");
  EXPECT_EQ(error.recovery, "DO_SOMETHING_NEW");
  for (int i = v1::ErrorReason_MIN; i <= v1::ErrorReason_MAX; ++i) {
    EXPECT_FALSE(error.Is(static_cast<v1::ErrorReason>(i))) << i;
  }
  EXPECT_FALSE(Error().Is(v1::ERROR_REASON_UNSPECIFIED));
}

TEST(ErrorTest, TextForALog) {
  std::ostringstream text;
  text << Full();
  EXPECT_EQ(text.str(),
            "FAILED_PRECONDITION FIELD_INVALID: message [email: breaks a rule] [state: breaks a rule] (FIX_REQUEST, "
            "maybe sent, request_id an id, of the caller's, tries 3)");
  EXPECT_THAT(StatusOf(Full()).ToString(), HasSubstr("tries 3, request_id an id"));
}

}  // namespace
}  // namespace userintent
