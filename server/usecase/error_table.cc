#include "server/usecase/error_table.h"

#include <iterator>
#include <string>

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
    {v1::ERROR_REASON_USER_INTENT_NOT_FOUND, StatusCode::kNotFound, Sent::kNo, Recovery::kStop, false,
     "You created no User Intent with this id, or Astra does not know it any more."},
    // ASK_SAME_ID while its creation may still end as created.
    {v1::ERROR_REASON_NOT_CREATED, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kStop, false,
     "This request has no User Intent on record. GetCreation tells what became of it."},
    {v1::ERROR_REASON_USER_INTENT_NOT_ELIGIBLE, StatusCode::kFailedPrecondition, Sent::kNo, Recovery::kStop, false,
     "This person was rejected or suspended by Astra: there is no page to send them to."},
    // Last: also the row of everything that is not above.
    {v1::ERROR_REASON_INTERNAL, StatusCode::kInternal, Sent::kMaybe, Recovery::kStop, false,
     "The gateway has a bug; its operators can find this call by its request_id."},
};

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

std::string_view ReasonName(int reason) {
  static constexpr std::string_view kPrefix = "ERROR_REASON_";
  const std::string& name = v1::ErrorReason_Name(static_cast<v1::ErrorReason>(reason));
  return name.empty() ? std::string_view() : std::string_view(name).substr(kPrefix.size());
}

}  // namespace userintent::usecase
