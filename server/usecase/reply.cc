#include "server/usecase/reply.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "server/base/time.h"

namespace userintent::usecase {
namespace {

using absl::StatusCode;
using ledger::Sent;

// contract section 3, in its order. The texts say what to do; none holds a value of the request.
constexpr ErrorRow kRows[] = {
    {v1::ERROR_REASON_MALFORMED_REQUEST, StatusCode::kInvalidArgument, Sent::kNo, Recovery::kFixRequest, false,
     "The bytes are not a message of this method, or a string in it is not UTF-8."},
    {v1::ERROR_REASON_UNKNOWN_FIELDS, StatusCode::kInvalidArgument, Sent::kNo, Recovery::kFixRequest, false,
     "The request has fields that this server does not know; nothing was done. Leave them out or call a newer server."},
    {v1::ERROR_REASON_FIELD_INVALID, StatusCode::kInvalidArgument, Sent::kNo, Recovery::kFixRequest, false,
     "One or more fields break a rule; every one is named in BadRequest. Nothing was sent."},
    {v1::ERROR_REASON_REQUEST_ID_REUSED, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kFixWithNewId, false,
     "This request_id was used before with other content. Repeat it unchanged, or use a new request_id for new "
     "content."},
    {v1::ERROR_REASON_REQUEST_IN_PROGRESS, StatusCode::kAborted, Sent::kMaybe, Recovery::kAskSameId, true,
     "The request still runs and will not be sent again. Ask later with the same request_id."},
    {v1::ERROR_REASON_PERSON_EXISTS, StatusCode::kAlreadyExists, Sent::kNo, Recovery::kStop, false,
     "This person was created with the same details under another request_id. Use that intent, or set allow_repeat."},
    {v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kStop, false,
     "The attempts of this e-mail address are used up, for ever. No repeat helps."},
    {v1::ERROR_REASON_EMAIL_BUSY, StatusCode::kAborted, Sent::kNo, Recovery::kRetrySameId, true,
     "Another request for this e-mail address runs. Nothing was sent; repeat the same call."},
    {v1::ERROR_REASON_EMAIL_UNRESOLVED, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kStop, false,
     "Another request for this e-mail address has an unknown outcome. Wait until it is resolved, or name it in "
     "supersedes_request_id, which spends another attempt."},
    {v1::ERROR_REASON_SUPERSEDES_INVALID, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kFixRequest, false,
     "supersedes_request_id names no unresolved request of yours for this e-mail address. Nothing was sent."},
    {v1::ERROR_REASON_CALLER_RATE_LIMITED, StatusCode::kResourceExhausted, Sent::kNo, Recovery::kRetrySameId, true,
     "This caller is over its own limit. Nothing was sent; repeat later."},
    {v1::ERROR_REASON_DRAINING, StatusCode::kUnavailable, Sent::kNo, Recovery::kRetrySameId, true,
     "The server is shutting down. Nothing was sent; repeat the same call."},
    {v1::ERROR_REASON_UPSTREAM_SUSPENDED, StatusCode::kUnavailable, Sent::kNo, Recovery::kRetrySameId, true,
     "Calls to Astra are suspended after failures. Nothing was sent; repeat later."},
    {v1::ERROR_REASON_OVERLOADED, StatusCode::kUnavailable, Sent::kNo, Recovery::kRetrySameId, true,
     "Too many calls are in flight. Nothing was sent; repeat later."},
    {v1::ERROR_REASON_LEDGER_UNAVAILABLE, StatusCode::kUnavailable, Sent::kNo, Recovery::kRetrySameId, true,
     "The ledger cannot be used at the moment. Nothing was sent; repeat later."},
    {v1::ERROR_REASON_DEADLINE_TOO_SHORT, StatusCode::kDeadlineExceeded, Sent::kNo, Recovery::kRetrySameId, false,
     "Too little time is left before the deadline to begin. Nothing was sent; repeat with a longer deadline."},
    {v1::ERROR_REASON_UPSTREAM_UNREACHABLE, StatusCode::kUnavailable, Sent::kNo, Recovery::kRetrySameId, true,
     "Astra could not be reached. This try sent nothing; repeat the same call."},
    {v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, StatusCode::kResourceExhausted, Sent::kYes, Recovery::kRetrySameId, true,
     "Astra limits the rate of calls. Nothing was created; repeat after the delay."},
    {v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, StatusCode::kUnavailable, Sent::kYes, Recovery::kRetrySameId, true,
     "Astra is unavailable and did not process the request. Nothing was created; repeat after the delay."},
    {v1::ERROR_REASON_UPSTREAM_REJECTED, StatusCode::kInvalidArgument, Sent::kYes, Recovery::kFixWithNewId, false,
     "Astra rejected the request. Correct the person's details and call again with a new request_id."},
    {v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED, StatusCode::kInternal, Sent::kYes, Recovery::kWaitForOperator,
     false, "Astra refused the gateway's credentials; nothing was created. An operator must repair them."},
    {v1::ERROR_REASON_UPSTREAM_MISCONFIGURED, StatusCode::kInternal, Sent::kYes, Recovery::kWaitForOperator, false,
     "Astra does not serve this call where the gateway sends it; nothing was created. An operator must repair the "
     "setup."},
    {v1::ERROR_REASON_OUTCOME_UNKNOWN, StatusCode::kUnknown, Sent::kMaybe, Recovery::kAskSameId, false,
     "The request may have been processed, and nobody can know yet. It is never sent again; ask with the same "
     "request_id."},
    {v1::ERROR_REASON_CALLER_UNAUTHENTICATED, StatusCode::kUnauthenticated, Sent::kNo, Recovery::kStop, false,
     "The client certificate has ended, or holds no usable identity: one URI SAN, or a DNS SAN."},
    {v1::ERROR_REASON_CALLER_NOT_ALLOWED, StatusCode::kPermissionDenied, Sent::kNo, Recovery::kStop, false,
     "This caller may not call this method."},
    {v1::ERROR_REASON_REQUEST_NOT_FOUND, StatusCode::kNotFound, Sent::kNo, Recovery::kStop, false,
     "You have no request with this request_id on record."},
    // Last: also the row of everything that is not above.
    {v1::ERROR_REASON_INTERNAL, StatusCode::kInternal, Sent::kMaybe, Recovery::kStop, false,
     "The gateway has a bug; its operators can find this call by its request_id."},
};

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

const ErrorRow& RowOf(v1::ErrorReason reason) {
  for (const ErrorRow& row : kRows) {
    if (row.reason == reason) return row;
  }
  return *(std::end(kRows) - 1);
}

std::string_view RecoveryWord(Recovery recovery) {
  switch (recovery) {
    case Recovery::kFixRequest:
      return "FIX_REQUEST";
    case Recovery::kFixWithNewId:
      return "FIX_WITH_NEW_ID";
    case Recovery::kRetrySameId:
      return "RETRY_SAME_ID";
    case Recovery::kAskSameId:
      return "ASK_SAME_ID";
    case Recovery::kUseExisting:
      return "USE_EXISTING";
    case Recovery::kWaitForOperator:
      return "WAIT_FOR_OPERATOR";
    case Recovery::kStop:
      return "STOP";
  }
  return "STOP";
}

std::string_view SentWord(ledger::Sent sent) {
  switch (sent) {
    case Sent::kNo:
      return "no";
    case Sent::kMaybe:
      return "maybe";
    case Sent::kYes:
      return "yes";
  }
  return "maybe";
}

Reply Reply::Error(v1::ErrorReason reason) {
  const ErrorRow& row = RowOf(reason);
  Reply reply;
  reply.reason = row.reason;
  reply.sent = row.sent;
  reply.recovery = row.recovery;
  return reply;
}

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

v1::UserIntent ToUserIntent(const ledger::Answer& answer) {
  v1::UserIntent intent;
  intent.set_id(answer.user_intent_id);
  intent.set_status(StatusOf(answer.astra_status));
  intent.set_astra_status(answer.astra_status);
  SetTimestamp(answer.at, intent.mutable_create_time());
  return intent;
}

Reply ErrorFromRecord(const ledger::Record& record) {
  v1::ErrorReason reason = v1::ERROR_REASON_OUTCOME_UNKNOWN;
  if (v1::ErrorReason_IsValid(record.reason) && record.reason != v1::ERROR_REASON_UNSPECIFIED) {
    reason = static_cast<v1::ErrorReason>(record.reason);
  } else if (record.state == ledger::State::kReleased) {
    reason = v1::ERROR_REASON_DEADLINE_TOO_SHORT;  // given up by its caller before anything was sent
  }
  Reply reply = Reply::Error(reason);
  reply.sent = record.sent;
  reply.http_status = record.answer.http_status;
  reply.astra_request_id = record.answer.astra_request_id;
  return reply;
}

std::string_view ReasonName(int reason) {
  static constexpr std::string_view kPrefix = "ERROR_REASON_";
  const std::string& name = v1::ErrorReason_Name(static_cast<v1::ErrorReason>(reason));
  return name.empty() ? std::string_view() : std::string_view(name).substr(kPrefix.size());
}

void FillErrorInfo(const Reply& reply, google::rpc::ErrorInfo* info) {
  info->set_reason(std::string(ReasonName(reply.reason)));
  info->set_domain("userintent.v1");
  auto& metadata = *info->mutable_metadata();
  metadata["sent"] = SentWord(reply.sent);
  metadata["recovery"] = RecoveryWord(reply.recovery);
  if (reply.attempts) {
    metadata["attempts_used_min"] = absl::StrCat(reply.attempts->used_min);
    metadata["attempts_used_max"] = absl::StrCat(reply.attempts->used_max);
  }
  if (!reply.astra_request_id.empty()) metadata["astra_request_id"] = reply.astra_request_id;
  if (reply.http_status != 0) metadata["http_status"] = absl::StrCat(reply.http_status);
  if (!reply.existing_intent_id.empty()) metadata["user_intent_id"] = reply.existing_intent_id;
  if (reply.unresolved_request_id) metadata["unresolved_request_id"] = UuidText(*reply.unresolved_request_id);
  if (reply.replayed) metadata["replayed"] = "true";
}

v1::Creation ToCreation(const ledger::Record& record, const ledger::Budget& budget, int attempt_limit) {
  v1::Creation creation;
  creation.set_request_id(UuidText(record.key.request_id));
  creation.set_state(StateOf(record.state));
  if (record.state == ledger::State::kSucceeded) {
    *creation.mutable_user_intent() = ToUserIntent(record.answer);
  } else if (record.state != ledger::State::kSending) {
    Reply reply = ErrorFromRecord(record);
    reply.attempts = budget;
    reply.replayed = true;
    FillErrorInfo(reply, creation.mutable_error());
  }
  creation.mutable_attempts()->set_used_min(budget.used_min);
  creation.mutable_attempts()->set_used_max(budget.used_max);
  creation.mutable_attempts()->set_limit(attempt_limit);
  creation.set_astra_request_id(record.answer.astra_request_id);
  creation.set_gateway_attempt_id(UuidText(record.attempt_id));
  SetTimestamp(record.created, creation.mutable_create_time());
  SetTimestamp(record.updated, creation.mutable_update_time());
  if (record.superseded_by) creation.set_superseded_by_request_id(UuidText(*record.superseded_by));
  return creation;
}

}  // namespace userintent::usecase
