#include <utility>

#include "gmock/gmock.h"
#include "userintent/testing/mock_client.h"

namespace {

using ::testing::_;
using ::testing::Field;
using ::testing::Return;
using userintent::CallOptions;
using userintent::CreateResult;
using userintent::v1::CreateUserIntentRequest;

// What a service does with the interface.
std::string SignUp(userintent::ClientInterface* client, const CreateUserIntentRequest& person) {
  auto created = client->CreateUserIntent(person);
  if (const auto error = userintent::ErrorOf(created.status()); error && error->maybe_sent()) {
    created = client->Repeat(created.status(), person);
  }
  return created.ok() ? created->user_intent_id() : "";
}

TEST(MockTest, RepeatUsesTheIdOfTheError) {
  userintent::Error unknown;
  unknown.code = absl::StatusCode::kDeadlineExceeded;
  unknown.request_id = "the-id";
  CreateResult result;
  result.response.mutable_user_intent()->set_id("intent");
  userintent::MockClient client;
  EXPECT_CALL(client, CreateUserIntent(_, Field(&CallOptions::request_id, ""))).WillOnce(Return(StatusOf(unknown)));
  EXPECT_CALL(client, CreateUserIntent(_, Field(&CallOptions::request_id, "the-id"))).WillOnce(Return(result));
  EXPECT_EQ(SignUp(&client, CreateUserIntentRequest()), "intent");
}

TEST(MockTest, OnlyCreationsAreRepeated) {
  userintent::MockClient client;
  EXPECT_CALL(client, CreateUserIntent(_, _)).Times(0);
  EXPECT_EQ(client.Repeat(absl::NotFoundError("x"), CreateUserIntentRequest()).status(), absl::NotFoundError("x"));
  EXPECT_EQ(client.Repeat(absl::OkStatus(), CreateUserIntentRequest()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MockTest, Reads) {
  userintent::v1::GetUserIntentResponse response;
  response.mutable_user_intent()->set_user_id("user");
  userintent::MockClient client;
  EXPECT_CALL(client, GetUserIntent(
                          ::testing::VariantWith<userintent::RequestId>(Field(&userintent::RequestId::value, "the-id")),
                          Field(&userintent::ReadOptions::allow_stale, false)))
      .WillOnce(Return(response));
  EXPECT_EQ(client.GetUserIntent(userintent::RequestId{"the-id"})->user_intent().user_id(), "user");
}

TEST(MockTest, Callbacks) {
  userintent::MockClient client;
  int cancelled = 0;
  userintent::CreateCallback kept;
  EXPECT_CALL(client, CreateUserIntentAsync)
      .WillOnce([&](const CreateUserIntentRequest&, const CallOptions&, userintent::CreateCallback done) {
        kept = std::move(done);
        return userintent::PendingCreate("id", [&cancelled] { ++cancelled; });
      });
  std::string heard;
  const auto pending = client.CreateUserIntentAsync(
      {}, {}, [&heard](absl::StatusOr<CreateResult> created) { heard = created.status().ToString(); });
  EXPECT_EQ(pending.request_id(), "id");
  pending.Cancel();
  EXPECT_EQ(cancelled, 1);
  std::move(kept)(absl::CancelledError("test"));
  EXPECT_EQ(heard, "CANCELLED: test");
  userintent::PendingCreate().Cancel();  // of a mock without actions: nothing
}

}  // namespace
