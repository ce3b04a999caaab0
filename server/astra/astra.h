// astra: Astra's REST dialect. JSON out, answer in, and the two tables that classify every outcome: of a POST and of a
// GET.
//
// No gRPC, no libcurl. Client belongs to one shard's thread, like the http::Client below it.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/lease.h"
#include "server/base/uuid.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::astra {

// What one POST came to; the rows of the contract's error table that start at Astra.
enum class Verdict {
  kCreated,              // 2xx and a usable id
  kLimitReached,         // the configured --astra_limit_error matched
  kRejected,             // 400, 422
  kCredentialsRejected,  // 401, 403
  kMisconfigured,        // 3xx except 303, 404, 405, 406, 410, 418
  kRateLimited,          // 429: refused unprocessed
  kUnavailable,          // 503 with a Retry-After that parses: refused unprocessed
  kRefused,              // refused unprocessed by the HTTP/2 peer, before any status line
  kNotSent,              // proved not reached
  kUnknown,              // everything else
};

// For metrics; indexed by Verdict.
inline constexpr std::string_view kVerdictNames[] = {
    "created", "limit_reached", "rejected", "credentials_rejected", "misconfigured", "rate_limited", "unavailable",
    "refused", "not_sent",      "unknown",
};
static_assert(std::size(kVerdictNames) == static_cast<size_t>(Verdict::kUnknown) + 1);

struct Outcome {
  Verdict verdict = Verdict::kUnknown;
  int http_status = 0;                        // 0: no status line came
  bool confirmed = false;                     // a 2xx status line came, with or without a usable id
  std::string user_intent_id;                 // 1-256 bytes without control characters; with kCreated
  std::string astra_status;                   // Astra's own word, at most 64 printable bytes, else empty
  std::string astra_request_id;               // at most 128 printable bytes, else empty
  std::optional<absl::Duration> retry_after;  // from Retry-After, where it parsed; never negative
  bool not_astras = false;  // with kCredentialsRejected: the body is no error of Astra's, so an edge may have spoken
  bool repeat_pointless = false;  // with kNotSent: untrusted certificate or host name, forbidden address, lease
  bool cancelled = false;         // with kNotSent: CancelUnsent()
  bool lease_over = false;        // with kNotSent: the lease that Create() was given
  uint64_t credentials = 0;       // the number of those that it showed: BasicAuth::number
  std::string_view detail;        // fixed text for logs
};

// What one GET of an intent came to. A GET changes nothing at Astra, so none of them needs proof for another try.
enum class ReadVerdict {
  kRead,                 // 2xx and a JSON object with the id that was asked for
  kNotFound,             // 404
  kNotSent,              // proved not reached
  kUnavailable,          // lost, cut, refused by the HTTP/2 peer, 408, 5xx
  kRateLimited,          // 429
  kCredentialsRejected,  // 401, 403
  kMisconfigured,        // everything else: another place or another dialect answers
};

// For metrics; indexed by ReadVerdict.
inline constexpr std::string_view kReadVerdictNames[] = {
    "read", "not_found", "not_sent", "unavailable", "rate_limited", "credentials_rejected", "misconfigured",
};
static_assert(std::size(kReadVerdictNames) == static_cast<size_t>(ReadVerdict::kMisconfigured) + 1);

struct ReadOutcome {
  ReadVerdict verdict = ReadVerdict::kUnavailable;
  int http_status = 0;       // 0: no status line came
  std::string astra_status;  // with kRead: Astra's own word, at most 64 printable bytes, else empty
  std::string user_id;       // with kRead: 1-256 bytes without control characters, else empty
  v1::VerificationType verification_type = v1::VERIFICATION_TYPE_UNSPECIFIED;  // with kRead, where Astra told it
  std::optional<Uuid> attempt_id;  // with kRead, where Astra told it: of the POST that made the intent
  std::string astra_request_id;    // as in Outcome, as the next four
  std::optional<absl::Duration> retry_after;
  bool not_astras = false;
  bool repeat_pointless = false;
  uint64_t credentials = 0;
  std::string_view detail;  // fixed text for logs
};

// Speaks to Astra about user intents. An interface, so that the domain can be tested without HTTP.
class Client {
 public:
  using CallId = uint64_t;
  using Done = absl::AnyInvocable<void(Outcome)>;

  virtual ~Client() = default;

  // One POST of `request`, which must have passed intent::Validate; copies what it needs before it returns. `done`
  // runs exactly once, later, on the same thread. Where it ran because the time was over, `late` (may be null) may run
  // after it, at most once, with the outcome of the answer that came after all: classified as if it had come in time.
  // `lease` (null: no limit) must hold when the first byte leaves, else none does.
  virtual CallId Create(const v1::CreateUserIntentRequest& request, const Uuid& attempt_id,
                        std::shared_ptr<const Lease> lease, Done done, Done late) = 0;

  // One GET of the intent, whose id is 1-256 bytes. `done` runs exactly once, later, on the same thread.
  virtual void Get(std::string user_intent_id, absl::AnyInvocable<void(ReadOutcome)> done) = 0;

  // Ends the creation if it is proved that nothing was sent (then `done` comes with kNotSent and cancelled) and returns
  // true; otherwise false, and the call goes on.
  virtual bool CancelUnsent(CallId id) = 0;

  // Reads the credential files again; true if they now hold other credentials than the last request showed. May read
  // files (small, local): called after a 401 only.
  virtual bool RefreshCredentials() = 0;
};

}  // namespace userintent::astra
