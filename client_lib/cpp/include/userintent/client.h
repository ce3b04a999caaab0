// userintent::Client: the C++ client of the User Intent gateway.
//
// Repeat the same request_id as often as you like: at most one User Intent is created for it, and every repeat gets the
// same answer. A new request_id means a new creation, and one of the three attempts that an e-mail address has, for
// ever.
//
// A call without a request_id gets a new one, which is in the result and in every error (error.h). After an error use
// Repeat; calling again without an id is a new creation.
//
// Threads: a client may be used by any number of threads; one for a whole program is best. Nobody may use it while, or
// after, it is destroyed. Messages, options and results are plain values of the caller's. With the first client gRPC's
// own few threads start, which stay until the process ends; a process that forks does so before, or execs at once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "userintent/error.h"
#include "userintent/redact.h"
#include "userintent/v1/user_intent_service.pb.h"
#include "userintent/watch.h"

namespace grpc {
class ChannelInterface;
}  // namespace grpc

namespace userintent {

// Version of this library, which it tells the gateway in the user agent.
inline constexpr char kVersion[] = "0.1.0";
// The deadline of a call that gives none, all its tries included.
inline constexpr absl::Duration kDefaultTimeout = absl::Seconds(35);
// How many RPCs one call may make.
inline constexpr int kDefaultMaxTries = 5;

// The files (PEM) that protect the connection. They are looked at during calls, at most every 5 seconds; when one was
// replaced, calls that begin from then on use a new connection, and those that run stay on the old one. Files that
// cannot be used, say because only the key was replaced so far, leave the old connection in use.
struct TlsFiles {
  // The authorities that the gateway's certificate is checked against; empty: the system's.
  std::string ca_file = {};
  // This program's certificate (with its chain) and key. The gateway asks for one. Both or none.
  std::string cert_file = {};
  std::string key_file = {};
  // The name in the gateway's certificate, where it is not the host of the target.
  std::string server_name = {};
};

// Exactly one of tls, plaintext and channel says how the connection is made.
struct ClientOptions {
  // gRPC's name of the gateway: "gateway.internal:50051", "dns:///...", "unix:/...". Not used with `channel`.
  std::string target = {};
  std::optional<TlsFiles> tls = {};
  // Leaves the connection unprotected: on this machine, or where a service mesh protects it.
  bool plaintext = false;
  // A connection of the caller's own making; see ChannelArguments() in channel.h for what suits the gateway.
  std::shared_ptr<grpc::ChannelInterface> channel = {};
  // Deadline of calls that give none; above zero.
  absl::Duration timeout = kDefaultTimeout;
  // RPCs that one call may make, 1 or more; 1 switches automatic repeats off.
  int max_tries = kDefaultMaxTries;
};

struct CallOptions {
  // The request_id, whatever the request says. Empty: that of the request, else a new one.
  std::string request_id = {};
  // For the whole call, its repeats included. Zero or less: DEADLINE_EXCEEDED at once, and nothing is sent. More than a
  // year is a year. Absent: the client's.
  std::optional<absl::Duration> timeout = {};
  // Less than 1 counts as 1. Absent: the client's.
  std::optional<int> max_tries = {};
};

// The intent that GetUserIntent and GetAuthorizationUrl read: the one that a request of the caller's created, or the
// one with this id of Astra's (CreateResult::user_intent_id).
struct RequestId {
  std::string value;
};
struct UserIntentId {
  std::string value;
};
using IntentKey = std::variant<RequestId, UserIntentId>;

struct ReadOptions {
  // An answer from the gateway's record may be so old; 0: Astra is asked. Not negative, which the gateway checks.
  absl::Duration max_age = absl::ZeroDuration();
  // When Astra cannot be asked, the recorded state, with `stale` true, instead of the error.
  bool allow_stale = false;
  // As in CallOptions.
  std::optional<absl::Duration> timeout = {};
  std::optional<int> max_tries = {};
};

// The answer to a creation.
struct CreateResult {
  // The id that was used: the caller's as it was given, or a new one. Keep it with the person's record.
  std::string request_id = {};
  // RPCs that this call made, 1 or more.
  int tries = 0;
  v1::CreateUserIntentResponse response = {};

  // Astra's id of the User Intent; empty for validate_only.
  const std::string& user_intent_id() const { return response.user_intent().id(); }
  // False for the one call whose POST created the intent, true for its repeats.
  bool replayed() const { return response.replayed(); }
};

// One line for a log. An answer holds no personal data.
std::ostream& operator<<(std::ostream& out, const CreateResult& result);

// Makes a request_id (a random UUID). Store it before the call, and not even a crash of your own program can turn one
// creation into two.
std::string NewRequestId();

// A creation in the background. A copy stands for the same call; it may outlive the call and the client.
class PendingCreate {
 public:
  PendingCreate() = default;
  // For mocks; clients make their own.
  PendingCreate(std::string request_id, std::function<void()> cancel)
      : request_id_(std::move(request_id)), cancel_(std::move(cancel)) {}

  // Known from the start.
  const std::string& request_id() const { return request_id_; }

  // Any thread, any number of times. The callback then gets CANCELLED, unless the call had ended. What was sent runs on
  // at the gateway and is recorded under the request_id. Letting go of this object cancels nothing.
  void Cancel() const {
    if (cancel_) cancel_();
  }

 private:
  std::string request_id_;
  std::function<void()> cancel_;
};

// Gets the answer, or the error. Called once, on one of gRPC's threads, of which there are few: it must not block or
// throw. It may be called before CreateUserIntentAsync has returned. It may begin further calls, and destroy the
// client.
using CreateCallback = absl::AnyInvocable<void(absl::StatusOr<CreateResult>) &&>;

// Where a person goes next, and where they come back; see GetAuthorizationUrl and authorization_url.h.
struct AuthorizationOptions {
  // One of those that are registered for this caller; https (http for loopback only).
  std::string redirect_uri = {};
  // 16-256 of [A-Za-z0-9._~-], made anew for each person, and compared when the person comes back.
  std::string state = {};
  // As in CallOptions.
  std::optional<absl::Duration> timeout = {};
  std::optional<int> max_tries = {};
};

// What a service uses, so that its tests can bring MockClient (testing/mock_client.h).
class ClientInterface {
 public:
  virtual ~ClientInterface() = default;
  ClientInterface(const ClientInterface&) = delete;
  ClientInterface& operator=(const ClientInterface&) = delete;

  // Creates a User Intent, at most one for each request_id; waits for the answer. Every error has an Error. Errors that
  // carry RetryInfo are repeated with the same id, inside the deadline. The request is copied.
  virtual absl::StatusOr<CreateResult> CreateUserIntent(const v1::CreateUserIntentRequest& request,
                                                        const CallOptions& options) = 0;
  absl::StatusOr<CreateResult> CreateUserIntent(const v1::CreateUserIntentRequest& request) {
    return CreateUserIntent(request, CallOptions());
  }

  // The same without waiting. No thread is kept or made for a call, also not while it waits to be repeated.
  virtual PendingCreate CreateUserIntentAsync(const v1::CreateUserIntentRequest& request, const CallOptions& options,
                                              CreateCallback done) = 0;

  // What is recorded about one of the caller's own requests; waits for the answer. Sends nothing to Astra. An unknown
  // id is NOT_FOUND, v1::ERROR_REASON_REQUEST_NOT_FOUND. options.request_id has no effect.
  virtual absl::StatusOr<v1::Creation> GetCreation(std::string_view request_id, const CallOptions& options) = 0;
  absl::StatusOr<v1::Creation> GetCreation(std::string_view request_id) {
    return GetCreation(request_id, CallOptions());
  }

  // One of the caller's own intents as Astra has it now; waits for the answer. NOT_FOUND when the caller created no
  // such intent (ERROR_REASON_REQUEST_NOT_FOUND, _USER_INTENT_NOT_FOUND), FAILED_PRECONDITION when its request is
  // recorded without one (_NOT_CREATED). Reading changes nothing, so it is repeated also after UNAVAILABLE of a
  // connection that broke or could not be made: 200 ms later, and twice as long each time.
  virtual absl::StatusOr<v1::GetUserIntentResponse> GetUserIntent(const IntentKey& key, const ReadOptions& options) = 0;
  absl::StatusOr<v1::GetUserIntentResponse> GetUserIntent(const IntentKey& key) {
    return GetUserIntent(key, ReadOptions());
  }

  // Where to send the person of one of the caller's own intents: the page of Astra's that belongs to its status. Fails
  // and is repeated as GetUserIntent; FAILED_PRECONDITION (ERROR_REASON_USER_INTENT_NOT_ELIGIBLE) for a person who was
  // rejected or suspended.
  virtual absl::StatusOr<v1::GetAuthorizationUrlResponse> GetAuthorizationUrl(const IntentKey& key,
                                                                              const AuthorizationOptions& options) = 0;

  // Follows the caller's requests; see watch.h. Returns at once: the first Next() connects, and says what went wrong.
  virtual Watch WatchUserIntents(const WatchOptions& options) = 0;
  Watch WatchUserIntents() { return WatchUserIntents(WatchOptions()); }

  // Waits until it is known what became of a request: its creation is CREATED, REJECTED or NOT_SENT. It is followed as
  // a watch follows it, across lost connections. Errors: NOT_FOUND (ERROR_REASON_REQUEST_NOT_FOUND) when the caller has
  // no such request, DEADLINE_EXCEEDED while nobody knows (absl::InfiniteDuration(): never), and those of a watch. Of
  // the options only the timeout counts. A wait that can be cancelled: Watch::WaitForOutcome.
  virtual absl::StatusOr<v1::Creation> WaitForOutcome(std::string_view request_id, const CallOptions& options) = 0;
  absl::StatusOr<v1::Creation> WaitForOutcome(std::string_view request_id) {
    return WaitForOutcome(request_id, CallOptions());
  }

  // Waits until the intent of a request has one of these statuses. Errors as of WaitForOutcome, and
  // FAILED_PRECONDITION: when the request ended without an intent (ERROR_REASON_NOT_CREATED), and when its status stays
  // another one, because it is REJECTED, SUSPENDED or CONVERTED_TO_USER (reason::kStatusFinal, Error::final_status).
  virtual absl::StatusOr<v1::UserIntent> WaitForStatus(std::string_view request_id,
                                                       const std::vector<v1::UserIntentStatus>& statuses,
                                                       const CallOptions& options) = 0;
  absl::StatusOr<v1::UserIntent> WaitForStatus(std::string_view request_id,
                                               const std::vector<v1::UserIntentStatus>& statuses) {
    return WaitForStatus(request_id, statuses, CallOptions());
  }

  // Makes the call that ended with `error` once more: the request_id is the error's, with a new deadline. Safe after
  // every error. `request` is the one of that call; a changed one is refused by the gateway (REQUEST_ID_REUSED), unless
  // the error lets the id be kept for a corrected request. A status that is not of a creation, or that is OK, is not
  // repeated: the first comes back as it is, the second as INVALID_ARGUMENT without an Error.
  absl::StatusOr<CreateResult> Repeat(const absl::Status& error, const v1::CreateUserIntentRequest& request,
                                      CallOptions options = {});

 protected:
  ClientInterface() = default;
};

class Client final : public ClientInterface {
 public:
  // Fails with INVALID_ARGUMENT when the options make no sense, and when TLS files cannot be used. Does not connect:
  // that happens at the first call.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const ClientOptions& options);

  // Ends the background calls that run, with CANCELLED, and waits until their callbacks have returned (but for the one
  // that destroys the client, if it is one). Cancels its watches, which may outlive it.
  ~Client() override;

  using ClientInterface::CreateUserIntent;
  using ClientInterface::GetCreation;
  using ClientInterface::GetUserIntent;
  using ClientInterface::WaitForOutcome;
  using ClientInterface::WaitForStatus;
  using ClientInterface::WatchUserIntents;
  absl::StatusOr<CreateResult> CreateUserIntent(const v1::CreateUserIntentRequest& request,
                                                const CallOptions& options) override;
  PendingCreate CreateUserIntentAsync(const v1::CreateUserIntentRequest& request, const CallOptions& options,
                                      CreateCallback done) override;
  absl::StatusOr<v1::Creation> GetCreation(std::string_view request_id, const CallOptions& options) override;
  absl::StatusOr<v1::GetUserIntentResponse> GetUserIntent(const IntentKey& key, const ReadOptions& options) override;
  absl::StatusOr<v1::GetAuthorizationUrlResponse> GetAuthorizationUrl(const IntentKey& key,
                                                                      const AuthorizationOptions& options) override;
  Watch WatchUserIntents(const WatchOptions& options) override;
  absl::StatusOr<v1::Creation> WaitForOutcome(std::string_view request_id, const CallOptions& options) override;
  absl::StatusOr<v1::UserIntent> WaitForStatus(std::string_view request_id,
                                               const std::vector<v1::UserIntentStatus>& statuses,
                                               const CallOptions& options) override;

  class Shared;

 private:
  explicit Client(std::shared_ptr<Shared> shared);

  const std::shared_ptr<Shared> shared_;
};

}  // namespace userintent
