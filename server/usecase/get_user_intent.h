// GetUserIntent: one of the caller's own intents, from the record where that is fresh enough, else from Astra.
//
// On a shard's thread.
#pragma once

#include "server/usecase/call.h"
#include "server/usecase/own_intent.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

using GetUserIntentCall = Call<v1::GetUserIntentRequest, v1::GetUserIntentResponse>;

// The handler.
CallerLeft GetUserIntent(const ReadDependencies& dependencies, GetUserIntentCall&& call);

}  // namespace userintent::usecase
