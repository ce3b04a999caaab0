#include "server/usecase/messages.h"

#include <string>

#include "server/base/time.h"
#include "server/base/uuid.h"
#include "server/usecase/attempt_id.h"
#include "server/usecase/result.h"

namespace userintent::usecase {
namespace {

v1::CreationState StateOf(ledger::State state) {
  switch (state) {
    case ledger::State::kSending:
      return v1::CREATION_STATE_IN_PROGRESS;
    case ledger::State::kSucceeded:
      return v1::CREATION_STATE_CREATED;
    case ledger::State::kFailed:
      return v1::CREATION_STATE_REJECTED;
    case ledger::State::kUnknown:
      return v1::CREATION_STATE_UNKNOWN;
    case ledger::State::kReleased:
      return v1::CREATION_STATE_NOT_SENT;
  }
  return v1::CREATION_STATE_UNSPECIFIED;
}

}  // namespace

v1::UserIntentStatus StatusOf(std::string_view word) {
  // Astra's user-statuses page; the list is not promised to be closed.
  if (word == "pending") return v1::USER_INTENT_STATUS_PENDING;
  if (word == "approved") return v1::USER_INTENT_STATUS_APPROVED;
  if (word == "retry") return v1::USER_INTENT_STATUS_RETRY;
  if (word == "document") return v1::USER_INTENT_STATUS_DOCUMENT;
  if (word == "rejected") return v1::USER_INTENT_STATUS_REJECTED;
  if (word == "suspended") return v1::USER_INTENT_STATUS_SUSPENDED;
  if (word == "converted_to_user") return v1::USER_INTENT_STATUS_CONVERTED_TO_USER;
  return v1::USER_INTENT_STATUS_UNSPECIFIED;
}

bool IsFinal(std::string_view astra_status) {
  switch (StatusOf(astra_status)) {
    case v1::USER_INTENT_STATUS_CONVERTED_TO_USER:
    case v1::USER_INTENT_STATUS_REJECTED:
    case v1::USER_INTENT_STATUS_SUSPENDED:
      return true;
    default:
      return false;
  }
}

v1::VerificationType AskedType(v1::VerificationType type) {
  return type == v1::VERIFICATION_TYPE_UNSPECIFIED ? v1::VERIFICATION_TYPE_VERIFIED : type;
}

ledger::Answer ToAnswer(const astra::Outcome& outcome, absl::Time at) {
  ledger::Answer answer;
  answer.http_status = outcome.http_status;
  answer.confirmed = outcome.confirmed;
  answer.user_intent_id = outcome.user_intent_id;
  answer.astra_status = outcome.astra_status;
  answer.astra_request_id = outcome.astra_request_id;
  answer.at = at;
  return answer;
}

v1::UserIntent ToCreatedIntent(const ledger::Record& record) { return ToUserIntent(record, ledger::LatestOf(record)); }

v1::UserIntent ToUserIntent(const ledger::Record& record, const ledger::Reading& reading) {
  v1::UserIntent intent;
  intent.set_id(record.answer.user_intent_id);
  intent.set_status(StatusOf(reading.astra_status));
  intent.set_astra_status(reading.astra_status);
  SetTimestamp(record.answer.at, intent.mutable_create_time());
  intent.set_user_id(reading.user_id);
  intent.set_verification_type(static_cast<v1::VerificationType>(reading.verification_type));
  SetTimestamp(reading.status_since, intent.mutable_status_time());
  return intent;
}

v1::AttemptBudget ToAttempts(const ledger::Budget& budget, int attempt_limit) {
  v1::AttemptBudget attempts;
  attempts.set_used_min(budget.used_min);
  attempts.set_used_max(budget.used_max);
  attempts.set_limit(attempt_limit);
  return attempts;
}

v1::Creation ToCreation(const ledger::Record& record, const ledger::Budget& budget, int attempt_limit) {
  v1::Creation creation;
  creation.set_request_id(UuidText(record.key.request_id));
  creation.set_state(StateOf(record.state));
  if (record.state == ledger::State::kSucceeded) {
    *creation.mutable_user_intent() = ToUserIntent(record, record.latest);
  } else if (record.state != ledger::State::kSending) {
    CallError error = CallError::FromRecord(record);
    error.attempts = budget;
    error.replayed = true;
    FillErrorInfo(error, creation.mutable_error());
  }
  *creation.mutable_attempts() = ToAttempts(budget, attempt_limit);
  creation.set_astra_request_id(record.answer.astra_request_id);
  if (AstraWasTold(record.attempt_id)) creation.set_gateway_attempt_id(UuidText(record.attempt_id));
  SetTimestamp(record.created, creation.mutable_create_time());
  SetTimestamp(record.updated, creation.mutable_update_time());
  if (record.superseded_by) creation.set_superseded_by_request_id(UuidText(*record.superseded_by));
  return creation;
}

}  // namespace userintent::usecase
