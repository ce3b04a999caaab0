// userintent::Error: everything that a failed call says. Calls answer with absl::Status or absl::StatusOr; what the
// status itself has no room for travels in its payloads, and ErrorOf reads it back:
//
//   absl::StatusOr<userintent::CreateResult> created = client->CreateUserIntent(request);
//   if (auto error = userintent::ErrorOf(created.status()); error && error->maybe_sent()) { ... }
//
// Values of the caller's; any thread may call the functions here. Nothing here ever holds a value of a request but its
// request_id.
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "userintent/v1/errors.pb.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent {

// Error::recovery: what may be done about an error. A newer gateway may send other words.
namespace recovery {
inline constexpr std::string_view kFixRequest = "FIX_REQUEST";        // correct it and call again; the id may be kept
inline constexpr std::string_view kFixWithNewId = "FIX_WITH_NEW_ID";  // correct it and call again with a new id
inline constexpr std::string_view kRetrySameId = "RETRY_SAME_ID";     // nothing was created; the same call later
inline constexpr std::string_view kAskSameId = "ASK_SAME_ID";         // nobody knows yet; the same id will answer
inline constexpr std::string_view kUseExisting = "USE_EXISTING";      // the intent exists: user_intent_id
inline constexpr std::string_view kWaitForOperator = "WAIT_FOR_OPERATOR";  // the gateway needs repair; then the same id
inline constexpr std::string_view kStop = "STOP";                          // no repeat helps
}  // namespace recovery

// Error::reason: a word of this library's own, which no gateway sends.
namespace reason {
// From WaitForStatus: the intent has a final status that was not waited for, Error::final_status.
inline constexpr std::string_view kStatusFinal = "STATUS_FINAL";
}  // namespace reason

// Error::sent: whether a request for this id was handed to Astra, the strongest answer over all tries of the id.
namespace sent {
inline constexpr std::string_view kNo = "no";
inline constexpr std::string_view kMaybe = "maybe";
inline constexpr std::string_view kYes = "yes";
}  // namespace sent

// Error::not_repeated: why the library made no further try; the first that holds, in this order.
namespace not_repeated {
inline constexpr std::string_view kNotRetryable = "not_retryable";  // the error does not allow it
inline constexpr std::string_view kMaxTries = "max_tries";          // the call had made as many tries as it may
inline constexpr std::string_view kDeadline = "deadline";           // the delay would have ended after it
inline constexpr std::string_view kBudget = "budget";               // the client's calls had used up their repeats
}  // namespace not_repeated

// A field that breaks a rule, by its name in the proto file, and the rule. It holds no value.
struct Violation {
  std::string field;
  std::string description;
};

// Attempts of the e-mail address that are surely, and possibly, used. Both are 0 or more.
struct Attempts {
  int used_min = 0;
  int used_max = 0;
};

struct Error {
  // Code and message of the gRPC status; the same as the absl::Status has.
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string message = {};

  // The gateway's words. All three are empty when the error was not made by the gateway (a deadline or a cancellation
  // here, a broken connection, a proxy). reason: the name of a value of v1::ErrorReason without ERROR_REASON_; see Is.
  // Where this library knows that a call sent nothing (a deadline that was over before it, a cancellation before its
  // RPC, a request that cannot be sent), it says so itself: sent is kNo, and recovery what may be done.
  std::string reason = {};
  std::string sent = {};
  std::string recovery = {};

  // Every broken field (FIELD_INVALID), else empty.
  std::vector<Violation> violations = {};
  // Absent where the gateway did not say.
  std::optional<Attempts> attempts = {};
  // The intent that exists already (USE_EXISTING), or that was to be read by this id; empty when there is none, or when
  // another caller created it.
  std::string user_intent_id = {};
  // The caller's own request that stands in the way (EMAIL_UNRESOLVED). A call whose supersedes_request_id names it
  // replaces it, and spends another attempt.
  std::string unresolved_request_id = {};
  // For Astra's support. http_status is what Astra answered, 100 to 599; absent: it did not, or nobody told.
  std::string astra_request_id = {};
  std::optional<int> http_status = {};
  // The answer is from the record, not from this call's own exchange.
  bool replayed = false;

  // With reason::kStatusFinal the status that stays, else UNSPECIFIED.
  v1::UserIntentStatus final_status = v1::USER_INTENT_STATUS_UNSPECIFIED;

  // A loop may repeat the same call after this time, 0 or more; absent: it may not. The library's own repeats are over.
  std::optional<absl::Duration> retry_after = {};
  std::string not_repeated = {};

  // Of a read, a watch or a wait, which create nothing: sent is empty, and maybe_sent() false.
  bool read = false;
  // The id that was used, also when the library made it; empty for a read by the intent's id, and for a watch of more
  // than one request.
  std::string request_id = {};
  // RPCs that this one call made, of a watch its streams; 0: nothing left this process.
  int tries = 0;

  // True when a creation may have happened, or may still happen: the gateway says so, or the error is not the gateway's
  // and nobody knows. Only the same request_id is safe then: ClientInterface::Repeat. It speaks of this call, and of
  // the one that it repeated; what an earlier call with the same id said stands.
  bool maybe_sent() const { return !read && (sent == sent::kMaybe || (reason.empty() && sent != sent::kNo)); }

  // Whether the gateway gave this reason. False for every reason that this library does not know.
  bool Is(v1::ErrorReason value) const;
};

// What a status that came from a client says. Absent for OK, and for statuses that are somebody else's.
std::optional<Error> ErrorOf(const absl::Status& status);

// The status that a client would answer with: ErrorOf(StatusOf(error)) has every field of `error`. Made for tests that
// use a mock. A code of OK becomes UNKNOWN.
absl::Status StatusOf(const Error& error);

// One line for a log.
std::ostream& operator<<(std::ostream& out, const Error& error);

}  // namespace userintent
