// GetCreation: what is recorded about one of the caller's own requests. Reads the ledger; asks Astra nothing.
//
// Any shard's thread; the answer comes on that of `executor`.
#pragma once

#include "server/base/loop.h"
#include "server/ledger/ledger.h"
#include "server/usecase/call.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

using GetCreationCall = Call<v1::GetCreationRequest, v1::GetCreationResponse>;

// `attempt_limit`: told with the attempts of the e-mail address; 0: none.
void GetCreation(ledger::Ledger& ledger, Executor& executor, int attempt_limit, GetCreationCall&& call);

}  // namespace userintent::usecase
