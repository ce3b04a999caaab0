// WaitForOutcome and WaitForStatus: which states end them, and how they fail.
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "tests/fake_gateway.h"
#include "tests/watch_messages.h"
#include "userintent/client.h"

namespace userintent {
namespace {

using ::testing::ElementsAre;

CallOptions Within(absl::Duration timeout) {
  CallOptions options;
  options.timeout = timeout;
  return options;
}

FakeStream Open(std::vector<v1::WatchUserIntentsResponse> messages) {
  FakeStream stream;
  stream.messages = std::move(messages);
  stream.end.hang = true;
  return stream;
}

FakeStream Broken(std::vector<v1::WatchUserIntentsResponse> messages) {
  FakeStream stream;
  stream.messages = std::move(messages);
  stream.end.code = grpc::StatusCode::UNAVAILABLE;
  return stream;
}

Error WaitError(const absl::Status& status) {
  const std::optional<Error> error = ErrorOf(status);
  EXPECT_TRUE(error.has_value()) << status;
  if (!error.has_value()) return Error();
  EXPECT_FALSE(error->maybe_sent());
  EXPECT_EQ(error->sent, "");
  EXPECT_EQ(error->request_id, "R");
  return *error;
}

TEST(WaitForOutcomeTest, AnswersAsSoonAsItIsKnown) {
  for (const auto state : {v1::CREATION_STATE_CREATED, v1::CREATION_STATE_REJECTED, v1::CREATION_STATE_NOT_SENT}) {
    FakeGateway gateway({FakeAnswer()});
    gateway.Streams(
        {Broken({Changed(CreationOf("R", v1::CREATION_STATE_IN_PROGRESS), "1"), Synced("2")}),
         Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "3"), Changed(CreationOf("R", state), "4")})});
    const auto creation = gateway.Connect()->WaitForOutcome("R");
    ASSERT_TRUE(creation.ok()) << creation.status();
    EXPECT_EQ(creation->state(), state);
    EXPECT_THAT(gateway.watches().back().request_ids(), ElementsAre("R"));
    EXPECT_EQ(gateway.watches().back().resume_token(), "2");
    gateway.AwaitNoWatch();
  }
}

TEST(WaitForOutcomeTest, ARequestThatIsNotRecordedIsNotWaitedFor) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Broken({}), Open({Synced("1")})});
  const Error error = WaitError(gateway.Connect()->WaitForOutcome("R").status());
  EXPECT_EQ(error.code, absl::StatusCode::kNotFound);
  EXPECT_TRUE(error.Is(v1::ERROR_REASON_REQUEST_NOT_FOUND));
  EXPECT_EQ(error.recovery, recovery::kStop);
}

TEST(WaitForOutcomeTest, BeginsAnewAfterReset) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams(
      {Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"), Synced("2"), Reset("3"), Synced("4")})});
  EXPECT_TRUE(WaitError(gateway.Connect()->WaitForOutcome("R").status()).Is(v1::ERROR_REASON_REQUEST_NOT_FOUND));
}

TEST(WaitForOutcomeTest, EndsWithTheDeadline) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"), Synced("2")})});
  const auto client = gateway.Connect();
  const Error error = WaitError(client->WaitForOutcome("R", Within(absl::Milliseconds(300))).status());
  EXPECT_EQ(error.code, absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(error.recovery, recovery::kRetrySameId);
  EXPECT_EQ(error.not_repeated, not_repeated::kDeadline);
  EXPECT_EQ(WaitError(client->WaitForOutcome("R", Within(absl::ZeroDuration())).status()).tries, 0);
  EXPECT_EQ(gateway.watches().size(), 1U);
}

TEST(WaitForOutcomeTest, HasTheDeadlineOfACall) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"), Synced("2")})});
  ClientOptions options = gateway.Options();
  options.timeout = absl::Milliseconds(300);
  EXPECT_EQ(WaitError(FakeGateway::Connect(options)->WaitForOutcome("R").status()).code,
            absl::StatusCode::kDeadlineExceeded);
}

TEST(WaitForOutcomeTest, OfAWatchItCanBeCancelled) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"), Synced("2")})});
  const auto client = gateway.Connect();
  WatchOptions options;
  options.request_ids = {"R"};
  const Watch watch = client->WatchUserIntents(options);
  std::thread other([&] {
    gateway.AwaitWatches(1);
    watch.Cancel();
  });
  EXPECT_EQ(WaitError(watch.WaitForOutcome().status()).code, absl::StatusCode::kCancelled);
  other.join();
}

TEST(WaitForOutcomeTest, FailsAsAWatchDoes) {
  FakeGateway gateway({FakeAnswer()});
  FakeStream refused;
  refused.end.code = grpc::StatusCode::PERMISSION_DENIED;
  gateway.Streams({refused});
  EXPECT_EQ(WaitError(gateway.Connect()->WaitForOutcome("R", Within(absl::InfiniteDuration())).status()).code,
            absl::StatusCode::kPermissionDenied);
}

TEST(WaitForStatusTest, AnswersWithTheFirstStatusOfThose) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Open({Changed(CreationOf("R", v1::CREATION_STATE_UNKNOWN), "1"),
                         Changed(CreationWith(v1::USER_INTENT_STATUS_PENDING), "2"), Synced("3"),
                         Changed(CreationWith(v1::USER_INTENT_STATUS_REJECTED), "4")})});
  const auto intent =
      gateway.Connect()->WaitForStatus("R", {v1::USER_INTENT_STATUS_APPROVED, v1::USER_INTENT_STATUS_REJECTED});
  ASSERT_TRUE(intent.ok()) << intent.status();
  EXPECT_EQ(intent->id(), "intent");
  EXPECT_EQ(intent->status(), v1::USER_INTENT_STATUS_REJECTED);
}

TEST(WaitForStatusTest, AFinalStatusThatWasNotAskedFor) {
  for (const auto status :
       {v1::USER_INTENT_STATUS_REJECTED, v1::USER_INTENT_STATUS_SUSPENDED, v1::USER_INTENT_STATUS_CONVERTED_TO_USER}) {
    FakeGateway gateway({FakeAnswer()});
    gateway.Streams({Open({Changed(CreationWith(status), "1")})});
    const Error error = WaitError(gateway.Connect()->WaitForStatus("R", {v1::USER_INTENT_STATUS_APPROVED}).status());
    EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(error.reason, reason::kStatusFinal);
    EXPECT_EQ(error.final_status, status);
    EXPECT_EQ(error.user_intent_id, "intent");
    EXPECT_EQ(error.recovery, recovery::kStop);
  }
}

TEST(WaitForStatusTest, NoIntentNoStatus) {
  for (const auto state : {v1::CREATION_STATE_REJECTED, v1::CREATION_STATE_NOT_SENT}) {
    FakeGateway gateway({FakeAnswer()});
    gateway.Streams({Open({Changed(CreationOf("R", state), "1")})});
    const Error error = WaitError(gateway.Connect()->WaitForStatus("R", {v1::USER_INTENT_STATUS_APPROVED}).status());
    EXPECT_EQ(error.code, absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(error.Is(v1::ERROR_REASON_NOT_CREATED));
    EXPECT_EQ(error.final_status, v1::USER_INTENT_STATUS_UNSPECIFIED);
  }
}

TEST(WaitForStatusTest, NotRecorded) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({Open({Synced("1")})});
  EXPECT_TRUE(WaitError(gateway.Connect()->WaitForStatus("R", {v1::USER_INTENT_STATUS_APPROVED}).status())
                  .Is(v1::ERROR_REASON_REQUEST_NOT_FOUND));
}

}  // namespace
}  // namespace userintent
