#include "userintent/error.h"

#include <cstdint>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/rpc/error_details.pb.h"
#include "src/decode.h"

namespace userintent {
namespace {

// The payloads of a status. The gateway's details under the names that other libraries use for them, and what only this
// library knows, as text: "tries 2, not repeated: max_tries, request_id 6f9619ff-...".
constexpr char kErrorInfo[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequest[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfo[] = "type.googleapis.com/google.rpc.RetryInfo";
constexpr char kCall[] = "userintent.v1/call";
constexpr absl::string_view kTries = "tries ";
constexpr absl::string_view kNotSent = "not sent, ";  // before the others, where there is no ErrorInfo to say so
constexpr absl::string_view kRead = "read, ";
constexpr absl::string_view kNotRepeated = ", not repeated: ";
constexpr absl::string_view kRequestId = ", request_id ";
constexpr absl::string_view kUserIntentId = ", user_intent_id ";  // of a read by this id, in place of request_id

template <typename Message>
std::optional<Message> Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  Message message;
  if (!payload.has_value() || !message.ParseFromString(std::string(*payload))) return std::nullopt;
  return message;
}

// Takes what is before the next comma from the text.
absl::string_view UpToComma(absl::string_view* text) {
  const absl::string_view word = text->substr(0, text->find(','));
  text->remove_prefix(word.size());
  return word;
}

bool ReadCall(absl::string_view text, Error* error) {
  if (absl::ConsumePrefix(&text, kNotSent)) {
    error->sent = std::string(sent::kNo);
    error->recovery = std::string(recovery::kRetrySameId);
  }
  error->read = absl::ConsumePrefix(&text, kRead);
  if (!absl::ConsumePrefix(&text, kTries)) return false;
  if (!absl::SimpleAtoi(UpToComma(&text), &error->tries)) return false;
  if (absl::ConsumePrefix(&text, kNotRepeated)) error->not_repeated = std::string(UpToComma(&text));
  if (absl::ConsumePrefix(&text, kRequestId)) {
    error->request_id = std::string(text);
    return true;
  }
  if (!absl::ConsumePrefix(&text, kUserIntentId)) return false;
  error->user_intent_id = std::string(text);
  return true;
}

}  // namespace

bool Error::Is(v1::ErrorReason value) const {
  const absl::string_view name = v1::ErrorReason_Name(value);
  return !reason.empty() && name == absl::StrCat("ERROR_REASON_", reason);
}

absl::Status StatusOf(const Error& error) {
  const absl::StatusCode code = error.code == absl::StatusCode::kOk ? absl::StatusCode::kUnknown : error.code;
  absl::Status status(code, error.message);
  const bool not_sent = error.reason.empty() && error.sent == sent::kNo;
  const bool by_intent = error.read && error.request_id.empty();
  std::string call = absl::StrCat(not_sent ? kNotSent : "", error.read ? kRead : "", kTries, error.tries);
  if (!error.not_repeated.empty()) absl::StrAppend(&call, kNotRepeated, error.not_repeated);
  absl::StrAppend(&call, by_intent ? kUserIntentId : kRequestId, by_intent ? error.user_intent_id : error.request_id);
  status.SetPayload(kCall, absl::Cord(call));
  if (!error.reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(error.reason);
    info.set_domain(kErrorDomain);
    const auto set = [&info](const char* name, std::string value) {
      if (!value.empty()) (*info.mutable_metadata())[name] = std::move(value);
    };
    set("sent", error.sent);
    set("recovery", error.recovery);
    if (!by_intent) set("user_intent_id", error.user_intent_id);
    set("unresolved_request_id", error.unresolved_request_id);
    set("astra_request_id", error.astra_request_id);
    if (error.http_status.has_value()) set("http_status", absl::StrCat(*error.http_status));
    if (error.replayed) set("replayed", "true");
    if (error.final_status != v1::USER_INTENT_STATUS_UNSPECIFIED) {
      set("final_status", std::string(v1::UserIntentStatus_Name(error.final_status)));
    }
    if (error.attempts.has_value()) {
      set("attempts_used_min", absl::StrCat(error.attempts->used_min));
      set("attempts_used_max", absl::StrCat(error.attempts->used_max));
    }
    status.SetPayload(kErrorInfo, absl::Cord(info.SerializeAsString()));
  }
  if (!error.violations.empty()) {
    google::rpc::BadRequest bad;
    for (const Violation& violation : error.violations) {
      auto* out = bad.add_field_violations();
      out->set_field(violation.field);
      out->set_description(violation.description);
    }
    status.SetPayload(kBadRequest, absl::Cord(bad.SerializeAsString()));
  }
  if (error.retry_after.has_value()) {
    google::rpc::RetryInfo retry;
    absl::Duration rest;
    retry.mutable_retry_delay()->set_seconds(absl::IDivDuration(*error.retry_after, absl::Seconds(1), &rest));
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
    status.SetPayload(kRetryInfo, absl::Cord(retry.SerializeAsString()));
  }
  return status;
}

std::optional<Error> ErrorOf(const absl::Status& status) {
  const auto call = status.GetPayload(kCall);
  Error error;
  if (!call.has_value() || !ReadCall(std::string(*call), &error)) return std::nullopt;
  error.code = status.code();
  error.message = std::string(status.message());
  if (const auto info = Payload<google::rpc::ErrorInfo>(status, kErrorInfo)) {
    const std::string asked_for = error.user_intent_id;
    ReadErrorInfo(*info, &error);
    if (error.user_intent_id.empty()) error.user_intent_id = asked_for;
  } else if (error.read && SameCallLater(error.code)) {
    error.recovery = std::string(recovery::kRetrySameId);
  }
  if (const auto bad = Payload<google::rpc::BadRequest>(status, kBadRequest)) {
    ReadBadRequest(*bad, &error);
  }
  if (const auto retry = Payload<google::rpc::RetryInfo>(status, kRetryInfo)) {
    error.retry_after = ToDuration(retry->retry_delay());
  }
  return error;
}

std::ostream& operator<<(std::ostream& out, const Error& error) {
  out << absl::StatusCodeToString(error.code);
  if (!error.reason.empty()) out << ' ' << error.reason;
  out << ": " << error.message;
  for (const Violation& violation : error.violations) {
    out << " [" << violation.field << ": " << violation.description << ']';
  }
  out << " (";
  if (!error.recovery.empty()) out << error.recovery << ", ";
  if (error.maybe_sent()) out << "maybe sent, ";
  if (!error.read || !error.request_id.empty()) {
    out << "request_id " << error.request_id << ", ";
  } else if (!error.user_intent_id.empty()) {
    out << "user_intent_id " << error.user_intent_id << ", ";
  }
  return out << "tries " << error.tries << ')';
}

}  // namespace userintent
