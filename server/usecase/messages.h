// What the ledger keeps of an outcome, and what callers read of a row: messages of the API out of Records. Pure; any
// thread.
#pragma once

#include <string_view>

#include "absl/time/time.h"
#include "server/astra/astra.h"
#include "server/ledger/ledger.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

// Astra's word for a status, lower case as documented; UNSPECIFIED for any other.
v1::UserIntentStatus StatusOf(std::string_view astra_status);

// Whether an intent of this status is never read again by the gateway itself: the person has become a User, or was
// turned down.
bool IsFinal(std::string_view astra_status);

// What is recorded as asked for: Astra's default, VERIFIED, where the request leaves it to Astra.
v1::VerificationType AskedType(v1::VerificationType type);

// What the ledger keeps of a POST's outcome, which came at `at`.
ledger::Answer ToAnswer(const astra::Outcome& outcome, absl::Time at);

// The intent of a SUCCEEDED row, as it was created: the same on every repeat.
v1::UserIntent ToCreatedIntent(const ledger::Record& record);
// The same as it was read later.
v1::UserIntent ToUserIntent(const ledger::Record& record, const ledger::Reading& reading);

v1::AttemptBudget ToAttempts(const ledger::Budget& budget, int attempt_limit);

// What GetCreation answers for a row.
v1::Creation ToCreation(const ledger::Record& record, const ledger::Budget& budget, int attempt_limit);

}  // namespace userintent::usecase
