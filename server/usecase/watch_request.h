// What a WatchUserIntentsRequest must look like (contract section 7), and what it asks for. Pure; any thread.
#pragma once

#include <string_view>
#include <vector>

#include "server/base/uuid.h"
#include "server/intent/rules.h"
#include "server/usecase/watch_token.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

inline constexpr int kMaxWatchedRequests = 1000;

struct WatchRequest {
  std::vector<Uuid> ids;  // each once, in the order in which they were named; none: all of the caller's
  WatchPosition position;
  bool too_old = false;  // what happened after the token is not known any more
};

// Says in `violations` everything that is wrong; then the result means nothing.
WatchRequest ReadWatchRequest(const v1::WatchUserIntentsRequest& request, std::string_view caller,
                              const WatchTokens& tokens, std::vector<intent::Violation>* violations);

}  // namespace userintent::usecase
