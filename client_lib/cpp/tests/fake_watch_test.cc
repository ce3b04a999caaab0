#include "userintent/testing/fake_watch.h"

#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "tests/watch_messages.h"
#include "userintent/testing/mock_client.h"

namespace userintent {
namespace {

// What a service does with the interface: the last status that it heard of.
std::string Follow(ClientInterface* client) {
  std::string last;
  const Watch watch = client->WatchUserIntents();
  while (const auto event = watch.Next()) {
    last += event->resume_token;
    if (event->kind == WatchEvent::Kind::kChanged) {
      last += v1::UserIntentStatus_Name(event->creation.user_intent().status());
    }
    last += ' ';
  }
  return last + std::string(watch.status().message());
}

TEST(FakeWatchTest, GivesWhatTheTestSays) {
  const auto fake = std::make_shared<FakeWatch>();
  fake->Changed(CreationWith(v1::USER_INTENT_STATUS_PENDING));
  fake->Synced();
  fake->Reset();
  fake->End(absl::PermissionDeniedError("no"));
  MockClient client;
  EXPECT_CALL(client, WatchUserIntents(testing::_)).WillOnce(testing::Return(Watch(fake)));
  EXPECT_EQ(Follow(&client), "token-1USER_INTENT_STATUS_PENDING token-2 token-3 no");
  EXPECT_EQ(fake->resume_token(), "token-3");
  EXPECT_FALSE(fake->cancelled());
}

TEST(FakeWatchTest, WaitsUntilCancelled) {
  const auto fake = std::make_shared<FakeWatch>();
  const Watch watch(fake);
  std::thread other([&watch] { watch.Cancel(); });
  EXPECT_FALSE(watch.Next().has_value());
  other.join();
  EXPECT_TRUE(fake->cancelled());
  EXPECT_EQ(watch.status().code(), absl::StatusCode::kCancelled);
}

TEST(FakeWatchTest, Waits) {
  MockClient client;
  EXPECT_CALL(client, WaitForOutcome(std::string_view("R"), testing::_))
      .WillOnce(testing::Return(CreationOf("R", v1::CREATION_STATE_REJECTED)));
  EXPECT_EQ(client.WaitForOutcome("R")->state(), v1::CREATION_STATE_REJECTED);

  const auto fake = std::make_shared<FakeWatch>();
  fake->Synced();
  const std::optional<Error> error = ErrorOf(Watch(fake, "R").WaitForStatus({}).status());
  ASSERT_TRUE(error.has_value());
  EXPECT_TRUE(error->Is(v1::ERROR_REASON_REQUEST_NOT_FOUND));
  EXPECT_EQ(error->request_id, "R");
}

}  // namespace
}  // namespace userintent
