// What a Creation answers: from the ledger's refusal, from a row, from what was recorded.
#include <algorithm>
#include <utility>

#include "server/usecase/creation.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {

using ledger::BeginVerdict;
using ledger::Sent;

void Creation::Refuse(const ledger::BeginAnswer& answer) {
  // These three speak of the id's own row, or of nothing.
  const bool tells = answer.verdict != BeginVerdict::kReused && answer.verdict != BeginVerdict::kInProgress &&
                     answer.verdict != BeginVerdict::kUnavailable;
  if (tells && !MayTell(answer, true)) return;
  CallError error = CallError::FromLedger(answer);
  if (answer.verdict == BeginVerdict::kPersonExists && answer.existing_intent_id.empty()) {
    deps_.observer.OnPersonToldAcross(key_);
  }
  if (answer.verdict == BeginVerdict::kReused && answer.content &&
      deps_.fingerprinter.DiffersInFormOnly(*request_, *answer.content)) {
    error.message = kOtherFormMessage;
  }
  Respond(std::move(error));
}

// False: the caller has been told that it is over its probe_rate, and is told nothing else. `tells`: the answer that
// waits says something of the address, and takes a token.
bool Creation::MayTell(const ledger::BeginAnswer& answer, bool tells) {
  if (!account_) return true;
  const SteadyTime now = deps_.admission.Clock(deps_.loop.Now());
  const std::optional<absl::Duration> wait = tells ? account_->TakeProbe(now) : account_->LookAtProbe(now);
  if (!wait) return true;
  if (account_->TellOfProbes(now)) deps_.observer.OnProbesLimited(key_.caller);
  CallError error = CallError::Of(v1::ERROR_REASON_CALLER_RATE_LIMITED);
  error.sent = answer.own ? answer.own->sent : Sent::kNo;
  error.retry_after = *wait;
  Respond(std::move(error));
  return false;
}

void Creation::AnswerFromRow(const ledger::BeginAnswer& answer) {
  const ledger::Record& record = *answer.own;
  if (record.state == ledger::State::kSucceeded) return Succeed(&record, answer.budget, !validate_only_);
  CallError error = CallError::FromRecord(record);
  error.replayed = true;
  error.attempts = answer.budget;
  if (answer.retry_after) {
    error.retry_after = *answer.retry_after;  // as the call heard that this one waited for
  } else if (error.reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED) {
    error.retry_after = std::max(deps_.admission.Held(deps_.loop.Now()), kDefaultRetryAfter);
  }
  Respond(std::move(error));
}

// `record` is null, or one that is SUCCEEDED. validate_only is told no intent.
void Creation::Succeed(const ledger::Record* record, const ledger::Budget& budget, bool replayed) {
  v1::CreateUserIntentResponse response;
  if (record != nullptr) {
    if (!validate_only_) *response.mutable_user_intent() = ToCreatedIntent(*record);
    response.set_astra_request_id(record->answer.astra_request_id);
  }
  response.set_replayed(replayed);
  *response.mutable_attempts() = ToAttempts(budget, deps_.email_attempt_limit);
  Respond(std::move(response));
}

}  // namespace userintent::usecase
