// userintent::MockClient: a ClientInterface for tests of programs that use one. Link userintent::testing.
//
//   userintent::MockClient client;
//   EXPECT_CALL(client, CreateUserIntent).WillOnce(testing::Return(userintent::StatusOf(error)));
//
// Threads: as gmock's mocks.
#pragma once

#include "gmock/gmock.h"
#include "userintent/client.h"

namespace userintent {

class MockClient : public ClientInterface {
 public:
  using ClientInterface::CreateUserIntent;
  using ClientInterface::GetCreation;
  using ClientInterface::GetUserIntent;
  using ClientInterface::WaitForOutcome;
  using ClientInterface::WaitForStatus;
  using ClientInterface::WatchUserIntents;

  MOCK_METHOD(absl::StatusOr<CreateResult>, CreateUserIntent,
              (const v1::CreateUserIntentRequest& request, const CallOptions& options), (override));
  MOCK_METHOD(PendingCreate, CreateUserIntentAsync,
              (const v1::CreateUserIntentRequest& request, const CallOptions& options, CreateCallback done),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::Creation>, GetCreation, (std::string_view request_id, const CallOptions& options),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::GetUserIntentResponse>, GetUserIntent,
              (const IntentKey& key, const ReadOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<v1::GetAuthorizationUrlResponse>, GetAuthorizationUrl,
              (const IntentKey& key, const AuthorizationOptions& options), (override));
  // Returns a Watch on a FakeWatch (fake_watch.h), say.
  MOCK_METHOD(Watch, WatchUserIntents, (const WatchOptions& options), (override));
  MOCK_METHOD(absl::StatusOr<v1::Creation>, WaitForOutcome, (std::string_view request_id, const CallOptions& options),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::UserIntent>, WaitForStatus,
              (std::string_view request_id, const std::vector<v1::UserIntentStatus>& statuses,
               const CallOptions& options),
              (override));
};

}  // namespace userintent
