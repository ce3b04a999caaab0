// The methods of our service: one row each, in methods.cc.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "server/rpc/unary_method.h"
#include "server/usecase/creations.h"
#include "server/usecase/get_authorization_url.h"
#include "server/usecase/watch_stream.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent::rpc {

// The longest request, on the wire and decoded (contract section 2).
inline constexpr int kMaxRequestBytes = 64 * 1024;

// The service that is registered at the server: every method on raw bytes (see unary_call.h).
using AsyncService =
    v1::UserIntentService::WithRawMethod_CreateUserIntent<v1::UserIntentService::WithRawMethod_GetCreation<
        v1::UserIntentService::WithRawMethod_GetUserIntent<v1::UserIntentService::WithRawMethod_GetAuthorizationUrl<
            v1::UserIntentService::WithRawMethod_WatchUserIntents<v1::UserIntentService::Service>>>>>;

// Its full name, as it stands in the path of each method. Lives for ever.
std::string_view ServiceName();

// What the handlers of one shard work with. All outlive the methods.
struct UseCases {
  usecase::Creations& creations;
  usecase::AuthorizationDependencies authorization;  // and what reads use
  ledger::Ledger& ledger;
  Executor& executor;
  int email_attempt_limit = 3;
  usecase::WatchDependencies watch;
};

// All methods of one shard; the owner posts each once the shard starts. `service`, `context` and what `use_cases`
// refers to outlive them.
std::vector<std::unique_ptr<PostedMethod>> NewMethods(AsyncService& service, MethodContext& context,
                                                      const UseCases& use_cases);

}  // namespace userintent::rpc
