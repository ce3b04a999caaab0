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

  MOCK_METHOD(absl::StatusOr<CreateResult>, CreateUserIntent,
              (const v1::CreateUserIntentRequest& request, const CallOptions& options), (override));
  MOCK_METHOD(PendingCreate, CreateUserIntentAsync,
              (const v1::CreateUserIntentRequest& request, const CallOptions& options, CreateCallback done),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::Creation>, GetCreation, (std::string_view request_id, const CallOptions& options),
              (override));
  MOCK_METHOD(absl::StatusOr<v1::GetUserIntentResponse>, GetUserIntent,
              (const IntentKey& key, const ReadOptions& options), (override));
};

}  // namespace userintent
