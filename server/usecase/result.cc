#include "server/usecase/result.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace userintent::usecase {
namespace {

using ledger::BeginVerdict;

// Of the verdicts that refuse a call.
v1::ErrorReason ReasonOf(BeginVerdict verdict) {
  switch (verdict) {
    case BeginVerdict::kInProgress:
      return v1::ERROR_REASON_REQUEST_IN_PROGRESS;
    case BeginVerdict::kReused:
      return v1::ERROR_REASON_REQUEST_ID_REUSED;
    case BeginVerdict::kPersonExists:
      return v1::ERROR_REASON_PERSON_EXISTS;
    case BeginVerdict::kExhausted:
      return v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED;
    case BeginVerdict::kEmailBusy:
      return v1::ERROR_REASON_EMAIL_BUSY;
    case BeginVerdict::kEmailUnresolved:
      return v1::ERROR_REASON_EMAIL_UNRESOLVED;
    case BeginVerdict::kSupersedesInvalid:
      return v1::ERROR_REASON_SUPERSEDES_INVALID;
    case BeginVerdict::kUnavailable:
      return v1::ERROR_REASON_LEDGER_UNAVAILABLE;
    case BeginVerdict::kGo:
    case BeginVerdict::kWouldGo:
    case BeginVerdict::kRecorded:
      break;
  }
  return v1::ERROR_REASON_INTERNAL;
}

}  // namespace

CallError CallError::Of(v1::ErrorReason reason) {
  const ErrorRow& row = RowOf(reason);
  CallError error;
  error.reason = row.reason;
  error.sent = row.sent;
  error.recovery = row.recovery;
  return error;
}

CallError CallError::Of(std::vector<intent::Violation> violations) {
  CallError error = Of(v1::ERROR_REASON_FIELD_INVALID);
  error.violations = std::move(violations);
  return error;
}

CallError CallError::FromLedger(const ledger::BeginAnswer& answer) {
  CallError error = Of(ReasonOf(answer.verdict));
  switch (answer.verdict) {
    case BeginVerdict::kReused:
      return error;  // nothing of *this* content was ever sent under the id: `sent` stays "no" as in the table
    case BeginVerdict::kUnavailable:
      error.retry_after = absl::Seconds(2);
      return error;
    case BeginVerdict::kPersonExists:
      error.existing_intent_id = answer.existing_intent_id;
      if (!error.existing_intent_id.empty()) error.recovery = Recovery::kUseExisting;
      break;
    case BeginVerdict::kEmailUnresolved:
    case BeginVerdict::kSupersedesInvalid:
      error.unresolved_request_id = answer.unresolved;
      break;
    default:
      break;
  }
  error.attempts = answer.budget;
  if (answer.own) error.sent = std::max(*error.sent, answer.own->sent);
  return error;
}

CallError CallError::FromRecord(const ledger::Record& record) {
  v1::ErrorReason reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  if (v1::ErrorReason_IsValid(record.reason) && record.reason != v1::ERROR_REASON_UNSPECIFIED) {
    reason = static_cast<v1::ErrorReason>(record.reason);
  } else if (record.state == ledger::State::kReleased) {
    reason = v1::ERROR_REASON_DEADLINE_TOO_SHORT;  // given up by its caller before anything was sent
  }
  CallError error = Of(reason);
  error.sent = record.sent;
  error.http_status = record.answer.http_status;
  error.astra_request_id = record.answer.astra_request_id;
  return error;
}

void FillErrorInfo(const CallError& error, google::rpc::ErrorInfo* info) {
  info->set_reason(std::string(ReasonName(error.reason)));
  info->set_domain("userintent.v1");
  auto& metadata = *info->mutable_metadata();
  if (error.sent) metadata["sent"] = SentWord(*error.sent);
  metadata["recovery"] = RecoveryWord(error.recovery);
  if (error.attempts) {
    metadata["attempts_used_min"] = absl::StrCat(error.attempts->used_min);
    metadata["attempts_used_max"] = absl::StrCat(error.attempts->used_max);
  }
  if (!error.astra_request_id.empty()) metadata["astra_request_id"] = error.astra_request_id;
  if (error.http_status != 0) metadata["http_status"] = absl::StrCat(error.http_status);
  if (!error.existing_intent_id.empty()) metadata["user_intent_id"] = error.existing_intent_id;
  if (error.unresolved_request_id) metadata["unresolved_request_id"] = UuidText(*error.unresolved_request_id);
  if (error.replayed) metadata["replayed"] = "true";
}

}  // namespace userintent::usecase
