#include "src/decode.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace userintent {
namespace {

// Digits only: SimpleAtoi would take signs and spaces.
std::optional<int> Number(absl::string_view text) {
  int value = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return std::nullopt;
  }
  if (!absl::SimpleAtoi(text, &value)) return std::nullopt;
  return value;
}

// False: damaged. Not even half of it is believed then.
bool ReadDetails(const std::string& bytes, Error* error) {
  google::rpc::Status status;
  if (!status.ParseFromString(bytes)) return false;
  for (const google::protobuf::Any& detail : status.details()) {
    if (detail.Is<google::rpc::ErrorInfo>()) {
      google::rpc::ErrorInfo info;
      if (!detail.UnpackTo(&info)) return false;
      if (info.domain() == kErrorDomain && !info.reason().empty()) ReadErrorInfo(info, error);
    } else if (detail.Is<google::rpc::RetryInfo>()) {
      google::rpc::RetryInfo retry;
      if (!detail.UnpackTo(&retry)) return false;
      error->retry_after = ToDuration(retry.retry_delay());
    } else if (detail.Is<google::rpc::BadRequest>()) {
      google::rpc::BadRequest bad;
      if (!detail.UnpackTo(&bad)) return false;
      ReadBadRequest(bad, error);
    }
  }
  return true;
}

// The longest delay that the trailers ask for, 0 for none. Absent: they forbid repeats; as in gRPC's own retries, a
// pushback that is negative or unreadable does.
std::optional<absl::Duration> Pushback(const std::multimap<grpc::string_ref, grpc::string_ref>& trailers) {
  absl::Duration longest = absl::ZeroDuration();
  const auto [begin, end] = trailers.equal_range("grpc-retry-pushback-ms");
  for (auto it = begin; it != end; ++it) {
    const std::optional<int> ms = Number(absl::string_view(it->second.data(), it->second.size()));
    if (!ms.has_value()) return std::nullopt;
    longest = std::max(longest, absl::Milliseconds(*ms));
  }
  return longest;
}

}  // namespace

void ReadErrorInfo(const google::rpc::ErrorInfo& info, Error* error) {
  const auto word = [&info](const char* name) {
    const auto found = info.metadata().find(name);
    return found == info.metadata().end() ? std::string() : std::string(found->second);
  };
  error->reason = std::string(info.reason());
  error->sent = word("sent");
  error->recovery = word("recovery");
  error->user_intent_id = word("user_intent_id");
  error->unresolved_request_id = word("unresolved_request_id");
  error->astra_request_id = word("astra_request_id");
  error->http_status = Number(word("http_status"));
  error->replayed = word("replayed") == "true";
  error->final_status = v1::USER_INTENT_STATUS_UNSPECIFIED;
  if (info.reason() == reason::kStatusFinal) {
    v1::UserIntentStatus_Parse(word("final_status"), &error->final_status);
  }
  const std::optional<int> low = Number(word("attempts_used_min"));
  const std::optional<int> high = Number(word("attempts_used_max"));
  error->attempts.reset();
  if (low.has_value() && high.has_value()) error->attempts = Attempts{*low, *high};
}

void ReadBadRequest(const google::rpc::BadRequest& bad, Error* error) {
  for (const auto& violation : bad.field_violations()) {
    error->violations.push_back({std::string(violation.field()), std::string(violation.description())});
  }
}

absl::Duration ToDuration(const google::protobuf::Duration& proto) {
  return std::max(absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos()), absl::ZeroDuration());
}

Error Decode(const grpc::Status& status, const std::multimap<grpc::string_ref, grpc::string_ref>& trailers) {
  Error error;
  if (!ReadDetails(status.error_details(), &error)) error = Error();
  error.code = static_cast<absl::StatusCode>(status.error_code());
  error.message = status.error_message();
  const std::optional<absl::Duration> pushback = Pushback(trailers);
  if (!pushback.has_value()) {
    error.retry_after.reset();
  } else if (error.retry_after.has_value()) {
    error.retry_after = std::max(*error.retry_after, *pushback);
  }
  return error;
}

bool SameCallLater(absl::StatusCode code) {
  return code == absl::StatusCode::kUnavailable || code == absl::StatusCode::kDeadlineExceeded ||
         code == absl::StatusCode::kCancelled;
}

absl::Duration PauseAfter(int tries) {
  constexpr absl::Duration kFirst = absl::Milliseconds(200);
  constexpr absl::Duration kLongest = absl::Seconds(5);
  return std::min(kFirst * (1 << std::clamp(tries - 1, 0, 10)), kLongest);
}

void AllowRepeatOfRead(const std::multimap<grpc::string_ref, grpc::string_ref>& trailers, int tries, Error* error) {
  if (error->code != absl::StatusCode::kUnavailable || !error->reason.empty() || error->retry_after.has_value()) return;
  const std::optional<absl::Duration> pushback = Pushback(trailers);
  if (pushback.has_value()) error->retry_after = std::max(PauseAfter(tries), *pushback);
}

}  // namespace userintent
