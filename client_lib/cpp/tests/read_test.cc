// GetUserIntent: what it sends, when it is repeated, and what its errors say.
#include <sstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "src/decode.h"
#include "tests/fake_gateway.h"
#include "userintent/client.h"

namespace userintent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

FakeAnswer Fails(grpc::StatusCode code, std::string pushback = "") {
  FakeAnswer answer;
  answer.code = code;
  answer.pushback = std::move(pushback);
  return answer;
}

FakeAnswer Says(grpc::StatusCode code, std::string reason, std::map<std::string, std::string> words) {
  FakeAnswer answer = Fails(code, "-1");
  answer.reason = std::move(reason);
  answer.words = std::move(words);
  return answer;
}

ReadOptions Tries(int max_tries) {
  ReadOptions options;
  options.max_tries = max_tries;
  return options;
}

std::string Text(const Error& error) {
  std::ostringstream out;
  out << error;
  return out.str();
}

// The error of a read: whatever it is, it says nothing about sending, also after it travelled in a status.
Error ReadError(Client* client, const IntentKey& key = RequestId{"R"}, const ReadOptions& options = {}) {
  const absl::Status status = client->GetUserIntent(key, options).status();
  const std::optional<Error> error = ErrorOf(status);
  EXPECT_TRUE(error.has_value()) << status;
  if (!error.has_value()) return Error();
  EXPECT_TRUE(error->read);
  EXPECT_EQ(error->sent, "");
  EXPECT_FALSE(error->maybe_sent());
  EXPECT_THAT(Text(*error), Not(HasSubstr("sent")));
  const std::optional<Error> again = ErrorOf(StatusOf(*error));
  EXPECT_EQ(Text(*again), Text(*error));
  EXPECT_EQ(again->not_repeated, error->not_repeated);
  EXPECT_EQ(again->recovery, error->recovery);
  EXPECT_EQ(again->user_intent_id, error->user_intent_id);
  return *error;
}

TEST(ReadTest, WhatWasAskedIsSentAndNothingElse) {
  FakeGateway gateway({FakeAnswer()});
  const auto client = gateway.Connect();
  const auto by_request = client->GetUserIntent(RequestId{"R"});
  ASSERT_TRUE(by_request.ok()) << by_request.status();
  EXPECT_EQ(by_request->user_intent().user_id(), "user");
  EXPECT_FALSE(by_request->stale());
  ReadOptions options;
  options.max_age = absl::Milliseconds(1500);
  options.allow_stale = true;
  EXPECT_TRUE(client->GetUserIntent(UserIntentId{"I"}, options)->stale());
  ReadOptions negative;
  negative.max_age = -absl::Milliseconds(2500);
  EXPECT_TRUE(client->GetUserIntent(UserIntentId{""}, negative).ok());

  const auto reads = gateway.reads();
  ASSERT_EQ(reads.size(), 3U);
  EXPECT_EQ(Redacted(reads[0]), "GetUserIntentRequest(request_id=\"R\")");
  EXPECT_EQ(Redacted(reads[1]),
            "GetUserIntentRequest(user_intent_id=\"I\", max_age=Duration(seconds=1, "
            "nanos=500000000), allow_stale=true)");
  EXPECT_EQ(Redacted(reads[2]),
            "GetUserIntentRequest(user_intent_id=\"\", max_age=Duration(seconds=-2, "
            "nanos=-500000000))");
  EXPECT_GT(gateway.left()[0], absl::Seconds(30));
  EXPECT_LE(gateway.left()[0], absl::Seconds(36));  // gRPC rounds a timeout up
}

TEST(ReadTest, RepeatedAfterRetryInfoAndAfterUnavailableOfOthers) {
  FakeGateway gateway({Busy(absl::Milliseconds(20)), Fails(grpc::StatusCode::UNAVAILABLE),
                       Fails(grpc::StatusCode::UNAVAILABLE, "900"), FakeAnswer()});
  const auto read = gateway.Connect()->GetUserIntent(RequestId{"R"});
  ASSERT_TRUE(read.ok()) << read.status();
  const auto times = gateway.times();
  ASSERT_EQ(times.size(), 4U);
  EXPECT_GE(times[2] - times[1], absl::Milliseconds(400));
  EXPECT_GE(times[3] - times[2], absl::Milliseconds(900));
  for (const auto& request : gateway.reads()) EXPECT_EQ(request.request_id(), "R");
}

TEST(ReadTest, NotRepeatedWhereTheErrorDoesNotAllowIt) {
  for (const FakeAnswer& answer :
       {Fails(grpc::StatusCode::UNAVAILABLE, "-1"), Fails(grpc::StatusCode::PERMISSION_DENIED),
        Says(grpc::StatusCode::UNAVAILABLE, "DRAINING", {{"sent", "no"}, {"recovery", "RETRY_SAME_ID"}}),
        Says(grpc::StatusCode::INTERNAL, "INTERNAL", {{"sent", "maybe"}, {"recovery", "STOP"}})}) {
    FakeGateway gateway({answer, FakeAnswer()});
    const Error error = ReadError(gateway.Connect().get());
    EXPECT_EQ(error.not_repeated, not_repeated::kNotRetryable);
    EXPECT_EQ(error.tries, 1);
    EXPECT_EQ(error.request_id, "R");
    EXPECT_EQ(gateway.heard().size(), 1U);
  }
}

TEST(ReadTest, SaysWhyItWasNotRepeated) {
  {
    FakeGateway gateway({Fails(grpc::StatusCode::UNAVAILABLE), FakeAnswer()});
    const Error error = ReadError(gateway.Connect().get(), RequestId{"R"}, Tries(1));
    EXPECT_EQ(error.not_repeated, not_repeated::kMaxTries);
    EXPECT_EQ(error.retry_after, absl::Milliseconds(200));
    EXPECT_EQ(error.recovery, recovery::kRetrySameId);
  }
  {
    FakeGateway gateway({Busy(absl::Hours(1))});
    EXPECT_EQ(ReadError(gateway.Connect().get()).not_repeated, not_repeated::kDeadline);
  }
  FakeGateway gateway({Busy(absl::ZeroDuration())});
  const auto client = gateway.Connect();
  EXPECT_EQ(ReadError(client.get(), RequestId{"R"}, Tries(50)).tries, 11);
  EXPECT_EQ(ReadError(client.get()).not_repeated, not_repeated::kBudget);
}

TEST(ReadTest, ACreationSaysWhyItWasNotRepeated) {
  const auto why = [](const FakeAnswer& answer, std::optional<int> max_tries) {
    FakeGateway gateway({answer});
    CallOptions options;
    options.max_tries = max_tries;
    const auto error = ErrorOf(gateway.Connect()->CreateUserIntent(Person(), options).status());
    return error.has_value() ? error->not_repeated : "";
  };
  EXPECT_EQ(why(Fails(grpc::StatusCode::UNAVAILABLE), {}), not_repeated::kNotRetryable);
  EXPECT_EQ(why(Busy(absl::ZeroDuration()), 2), not_repeated::kMaxTries);
  EXPECT_EQ(why(Busy(absl::Hours(1)), {}), not_repeated::kDeadline);
  EXPECT_EQ(why(Busy(absl::ZeroDuration()), 50), not_repeated::kBudget);
}

TEST(ReadTest, FieldsOfAnError) {
  FakeGateway gateway({Says(grpc::StatusCode::NOT_FOUND, "USER_INTENT_NOT_FOUND",
                            {{"sent", "yes"}, {"recovery", "STOP"}, {"http_status", "404"}})});
  const auto client = gateway.Connect();
  const Error error = ReadError(client.get(), UserIntentId{"I, request_id x"});
  EXPECT_TRUE(error.Is(v1::ERROR_REASON_USER_INTENT_NOT_FOUND));
  EXPECT_EQ(error.http_status, 404);
  EXPECT_EQ(error.user_intent_id, "I, request_id x");
  EXPECT_EQ(error.request_id, "");
  EXPECT_EQ(Text(error), "NOT_FOUND USER_INTENT_NOT_FOUND: message (STOP, user_intent_id I, request_id x, tries 1)");
}

TEST(ReadTest, IsNoCreationToRepeat) {
  FakeGateway gateway({Fails(grpc::StatusCode::NOT_FOUND)});
  const auto client = gateway.Connect();
  const absl::Status status = client->GetUserIntent(RequestId{"R"}).status();
  EXPECT_EQ(client->Repeat(status, Person()).status(), status);
  EXPECT_EQ(gateway.heard().size(), 1U);
}

TEST(ReadTest, WhatEndsHere) {
  FakeAnswer hang;
  hang.hang = true;
  FakeGateway gateway({hang});
  const auto client = gateway.Connect();
  ReadOptions options;
  options.timeout = absl::Milliseconds(300);
  const Error under_way = ReadError(client.get(), UserIntentId{"I"}, options);
  EXPECT_EQ(under_way.code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(under_way.recovery, recovery::kRetrySameId);
  EXPECT_EQ(under_way.user_intent_id, "I");
  EXPECT_EQ(under_way.tries, 1);
  options.timeout = absl::ZeroDuration();
  const Error over = ReadError(client.get(), RequestId{"R"}, options);
  EXPECT_EQ(over.recovery, recovery::kRetrySameId);
  EXPECT_EQ(over.tries, 0);
  for (const std::string& bad : {std::string(70000, 'x'), std::string("\xff")}) {
    const std::optional<Error> error = ErrorOf(client->GetUserIntent(UserIntentId{bad}).status());
    ASSERT_TRUE(error.has_value());
    EXPECT_TRUE(error->Is(v1::ERROR_REASON_MALFORMED_REQUEST));
    EXPECT_EQ(error->recovery, recovery::kFixRequest);
    EXPECT_EQ(error->sent, "");
    EXPECT_EQ(error->tries, 0);
  }
  EXPECT_EQ(gateway.heard().size(), 1U);
}

TEST(ReadTest, Pauses) {
  const std::map<int, int> pauses = {{0, 200}, {1, 200}, {2, 400}, {4, 1600}, {6, 5000}, {1000, 5000}};
  for (const auto& [tries, ms] : pauses) EXPECT_EQ(PauseAfter(tries), absl::Milliseconds(ms)) << tries;
}

}  // namespace
}  // namespace userintent
