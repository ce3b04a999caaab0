// GetUserIntent: one of the caller's own intents, from the record where that is fresh enough, else from Astra.
//
// On a shard's thread. The call holds no place of the admission control, and writes nothing but the reading.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/ledger/ledger.h"
#include "server/usecase/call.h"
#include "server/usecase/intent_reads.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

using GetUserIntentCall = Call<v1::GetUserIntentRequest, v1::GetUserIntentResponse>;

// What a shard's calls of GetUserIntent use; outlives them.
struct ReadDependencies {
  ledger::Ledger& ledger;
  IntentReads& reads;
  IntentReads::Shard shard;
  SteadyClock::duration min_deadline;      // Astra is not asked with less time left
  absl::Time (*wall_clock)() = absl::Now;  // which the age of a reading is measured by
};

// The handler.
CallerLeft GetUserIntent(const ReadDependencies& dependencies, GetUserIntentCall&& call);

}  // namespace userintent::usecase
