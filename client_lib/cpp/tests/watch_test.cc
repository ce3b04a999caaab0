// A watch over the network: what it asks for, how it goes on after a lost stream, and what ends it.
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "src/watch_stream.h"
#include "tests/fake_gateway.h"
#include "tests/watch_messages.h"
#include "userintent/client.h"

namespace userintent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

FakeAnswer Hang() {
  FakeAnswer answer;
  answer.hang = true;
  return answer;
}

FakeAnswer Fails(grpc::StatusCode code, std::string reason = "", std::optional<absl::Duration> retry = {}) {
  FakeAnswer answer;
  answer.code = code;
  answer.reason = std::move(reason);
  answer.retry = retry;
  if (!answer.reason.empty() && !retry.has_value()) answer.pushback = "-1";
  return answer;
}

v1::Creation State(v1::CreationState state) { return CreationOf("R", state); }

// The kinds and tokens of the next events.
std::vector<std::string> Take(const Watch& watch, size_t count) {
  std::vector<std::string> taken;
  while (taken.size() < count) {
    const std::optional<WatchEvent> event = watch.Next();
    if (!event.has_value()) {
      taken.push_back(watch.status().ToString());
      break;
    }
    const char* const kind = event->kind == WatchEvent::Kind::kChanged  ? "changed "
                             : event->kind == WatchEvent::Kind::kSynced ? "synced "
                                                                        : "reset ";
    taken.push_back(kind + event->resume_token);
    EXPECT_EQ(watch.resume_token(), event->resume_token);
  }
  return taken;
}

std::vector<std::string> TokensAsked(const FakeGateway& gateway) {
  std::vector<std::string> tokens;
  for (const auto& request : gateway.watches()) tokens.push_back(request.resume_token());
  return tokens;
}

TEST(WatchTest, GivesTheEventsAndGoesOnWhereALostStreamStood) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({
      {{Changed(State(v1::CREATION_STATE_UNKNOWN), "1"), Synced("2")}, Fails(grpc::StatusCode::UNAVAILABLE)},
      {{Synced("3"), Heartbeat("4")}, {}},  // a clean end, after a heartbeat that moved the token
      {{}, Fails(grpc::StatusCode::INTERNAL)},
      {{Synced("5"), Changed(State(v1::CREATION_STATE_CREATED), "6")}, Hang()},
  });
  const auto client = gateway.Connect();
  WatchOptions options;
  options.request_ids = {"R"};
  const Watch watch = client->WatchUserIntents(options);
  EXPECT_EQ(watch.resume_token(), "");
  EXPECT_THAT(Take(watch, 3), ElementsAre("changed 1", "synced 2", "changed 6"));
  EXPECT_TRUE(watch.status().ok());
  EXPECT_THAT(TokensAsked(gateway), ElementsAre("", "2", "4", "4"));
  for (const auto& request : gateway.watches()) EXPECT_THAT(request.request_ids(), ElementsAre("R"));
}

TEST(WatchTest, BeginsWithTheTokenThatItIsGiven) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Reset("1"), Synced("2")}, Hang()}});
  const auto client = gateway.Connect();
  WatchOptions options;
  options.resume_token = "old";
  const Watch watch = client->WatchUserIntents(options);
  EXPECT_EQ(watch.resume_token(), "old");
  EXPECT_THAT(Take(watch, 2), ElementsAre("reset 1", "synced 2"));
  EXPECT_THAT(TokensAsked(gateway), ElementsAre("old"));
}

TEST(WatchTest, ComesBackNotBeforeTheDelay) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{}, Fails(grpc::StatusCode::RESOURCE_EXHAUSTED, "CALLER_RATE_LIMITED", absl::Milliseconds(400))},
                   {{Synced("1")}, Hang()}});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  EXPECT_THAT(Take(watch, 1), ElementsAre("synced 1"));
  const auto times = gateway.watch_times();
  ASSERT_EQ(times.size(), 2U);
  EXPECT_GE(times[1] - times[0], absl::Milliseconds(400));
}

TEST(WatchTest, AnErrorThatNoRepeatHelpsEndsIt) {
  FakeGateway gateway({FakeAnswer()});
  FakeAnswer refused = Fails(grpc::StatusCode::INVALID_ARGUMENT, "FIELD_INVALID");
  refused.words = {{"recovery", "FIX_REQUEST"}};
  refused.violations = {"resume_token"};
  gateway.Streams({{{Synced("1")}, refused}});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  EXPECT_THAT(Take(watch, 1), ElementsAre("synced 1"));
  EXPECT_FALSE(watch.Next().has_value());
  EXPECT_FALSE(watch.Next().has_value());
  const std::optional<Error> error = ErrorOf(watch.status());
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->Is(v1::ERROR_REASON_FIELD_INVALID));
  ASSERT_EQ(error->violations.size(), 1U);
  EXPECT_EQ(error->violations[0].field, "resume_token");
  EXPECT_FALSE(error->maybe_sent());
  EXPECT_EQ(error->tries, 1);
  EXPECT_EQ(gateway.watches().size(), 1U);
}

TEST(WatchTest, CancelEndsItAtOnce) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1")}, Hang()}});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  EXPECT_THAT(Take(watch, 1), ElementsAre("synced 1"));
  absl::Time cancelled;
  std::thread other([&] {
    absl::SleepFor(absl::Milliseconds(200));  // so that Next waits, mostly
    cancelled = absl::Now();
    watch.Cancel();
  });
  EXPECT_FALSE(watch.Next().has_value());
  other.join();
  EXPECT_LT(absl::Now() - cancelled, absl::Seconds(10));
  EXPECT_EQ(watch.status().code(), absl::StatusCode::kCancelled);
  watch.Cancel();
  gateway.AwaitNoWatch();
}

TEST(WatchTest, CancelEndsAPause) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{}, Fails(grpc::StatusCode::UNAVAILABLE, "DRAINING", absl::Hours(1))}});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  std::thread other([&] {
    gateway.AwaitWatches(1);
    absl::SleepFor(absl::Milliseconds(200));
    watch.Cancel();
  });
  EXPECT_FALSE(watch.Next().has_value());
  other.join();
  EXPECT_EQ(watch.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(gateway.watches().size(), 1U);
}

TEST(WatchTest, CancelledBeforeItBegan) {
  FakeGateway gateway({FakeAnswer()});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  watch.Cancel();
  EXPECT_FALSE(watch.Next().has_value());
  EXPECT_EQ(ErrorOf(watch.status())->code, absl::StatusCode::kCancelled);
  EXPECT_THAT(gateway.watches(), testing::IsEmpty());
}

TEST(WatchTest, EventsThatWaitAreNotGivenAfterCancel) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1"), Changed(State(v1::CREATION_STATE_CREATED), "2")}, Hang()}});
  const auto client = gateway.Connect();
  const Watch watch = client->WatchUserIntents();
  EXPECT_TRUE(watch.Next().has_value());
  watch.Cancel();
  EXPECT_FALSE(watch.Next().has_value());
}

TEST(WatchTest, TheLastCopyEndsIt) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1"), Synced("2"), Synced("3")}, Hang()}});
  const auto client = gateway.Connect();
  std::optional<Watch> copy;
  {
    const Watch watch = client->WatchUserIntents();
    copy = watch;
  }
  EXPECT_TRUE(copy->Next().has_value());
  copy.reset();
  gateway.AwaitNoWatch();
}

TEST(WatchTest, EndsWithItsClient) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1")}, Hang()}});
  auto client = gateway.Connect();
  const Watch gone = client->WatchUserIntents();
  const Watch watch = client->WatchUserIntents();
  EXPECT_TRUE(watch.Next().has_value());
  client = nullptr;
  EXPECT_FALSE(watch.Next().has_value());
  EXPECT_EQ(watch.status().code(), absl::StatusCode::kCancelled);
}

TEST(WatchTest, EndsAfterItsTimeout) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1")}, Hang()}});
  const auto client = gateway.Connect();
  WatchOptions options;
  options.timeout = absl::Milliseconds(300);
  const Watch watch = client->WatchUserIntents(options);
  EXPECT_THAT(Take(watch, 2), ElementsAre("synced 1", HasSubstr("DEADLINE_EXCEEDED: the deadline was over")));
  EXPECT_EQ(ErrorOf(watch.status())->message, "the deadline was over");
}

TEST(WatchTest, WaitsForAGatewayThatIsAway) {
  auto gateway = std::make_unique<FakeGateway>(std::vector<FakeAnswer>{FakeAnswer()});
  const std::string address = gateway->address();
  const auto client = gateway->Connect();
  gateway = nullptr;
  const Watch watch = client->WatchUserIntents();
  std::unique_ptr<FakeGateway> back;
  std::thread other([&] {
    absl::SleepFor(absl::Milliseconds(500));
    back = std::make_unique<FakeGateway>(std::vector<FakeAnswer>{FakeAnswer()}, address);
    back->Streams({{{Synced("1")}, Hang()}});
  });
  // The new one may be met before it has its streams: then the first one is empty.
  EXPECT_THAT(Take(watch, 1), ElementsAre("synced 1"));
  other.join();
}

TEST(WatchTest, ASilentStreamIsDead) {
  FakeGateway gateway({FakeAnswer()});
  gateway.Streams({{{Synced("1")}, Hang()}, {{Changed(State(v1::CREATION_STATE_CREATED), "2")}, Hang()}});
  const std::shared_ptr<Stub> stub =
      v1::UserIntentService::NewStub(grpc::CreateChannel(gateway.address(), grpc::InsecureChannelCredentials()));
  const Watch watch(std::make_shared<WatchStream>(
      WatchOptions(), [stub] { return stub; }, absl::Milliseconds(300)));
  EXPECT_THAT(Take(watch, 2), ElementsAre("synced 1", "changed 2"));
  EXPECT_THAT(TokensAsked(gateway), ElementsAre("", "1"));
}

}  // namespace
}  // namespace userintent
