#include "userintent/client.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/escaping.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "src/call.h"
#include "src/connection.h"
#include "src/decode.h"
#include "src/watch_stream.h"

namespace userintent {
namespace {

class AsyncCreate;

// A copy with an id: the one given, else the request's own, else a new one.
v1::CreateUserIntentRequest WithId(const v1::CreateUserIntentRequest& request, const CallOptions& options) {
  v1::CreateUserIntentRequest copy = request;
  if (!options.request_id.empty()) copy.set_request_id(options.request_id);
  if (copy.request_id().empty()) copy.set_request_id(NewRequestId());
  return copy;
}

}  // namespace

// What a client's calls share: it lives until the client and the last of its background calls are gone.
class Client::Shared {
 public:
  Shared(const ClientOptions& options, std::unique_ptr<Connection> connection)
      : timeout_(options.timeout), max_tries_(options.max_tries), connection_(std::move(connection)) {}

  std::shared_ptr<Stub> stub() { return connection_->stub(); }

  absl::Duration TimeoutOf(const CallOptions& options) const { return options.timeout.value_or(timeout_); }

  // Options: CallOptions or another with timeout and max_tries.
  template <typename Options>
  Call NewCall(std::string request_id, const Options& options) {
    return Call(std::move(request_id), options.timeout.value_or(timeout_), options.max_tries.value_or(max_tries_),
                &budget_);
  }

  // A watch of this client's, which ends with it.
  static std::shared_ptr<WatchStream> NewWatch(const std::shared_ptr<Shared>& shared, const WatchOptions& options);

  // False: the client is being destroyed, and the call must be cancelled.
  bool Begin(const std::shared_ptr<AsyncCreate>& call);
  // The call's callback has returned. May destroy the call.
  void End(AsyncCreate* call);
  // Cancels what runs, and waits until it has ended.
  void Close();

 private:
  const absl::Duration timeout_;
  const int max_tries_;
  const std::unique_ptr<Connection> connection_;
  Budget budget_;
  absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  // Background calls that have not ended. This is what keeps them alive.
  std::map<AsyncCreate*, std::shared_ptr<AsyncCreate>> running_ ABSL_GUARDED_BY(mu_);
  // Some of them may be gone.
  std::vector<std::weak_ptr<WatchStream>> watches_ ABSL_GUARDED_BY(mu_);
};

namespace {

// The client one of whose callbacks runs on this thread.
thread_local const void* in_callback_of = nullptr;

// One creation in the background: tries, and waits between them, on gRPC's threads. Its steps follow each other, so
// only Cancel needs the lock. Owned by Shared::running_.
class AsyncCreate {
 public:
  AsyncCreate(std::shared_ptr<Client::Shared> shared, Call call, v1::CreateUserIntentRequest request,
              CreateCallback done)
      : shared_(std::move(shared)),
        stub_(shared_->stub()),
        call_(std::move(call)),
        request_(std::move(request)),
        done_(std::move(done)) {}

  void Begin() {
    if (!call_.Accepts(request_)) return Finish(StatusOf(call_.error()));
    Try();
  }

  void Cancel() {
    std::shared_ptr<grpc::ClientContext> context;
    {
      absl::MutexLock lock(&mu_);
      cancelled_ = true;
      context = context_;
      if (alarm_ != nullptr) alarm_->Cancel();
    }
    if (context != nullptr) context->TryCancel();
  }

 private:
  bool IsCancelled() {
    absl::MutexLock lock(&mu_);
    return cancelled_;
  }

  void Try() {
    if (IsCancelled()) return Waited(false);  // before this try began
    const std::optional<absl::Duration> left = call_.BeginTry();
    if (!left.has_value()) return Finish(StatusOf(call_.error()));
    auto context = std::make_shared<grpc::ClientContext>();
    context->set_deadline(In(*left));
    {
      absl::MutexLock lock(&mu_);
      context_ = context;
      // A Cancel from here on finds the context, and reaches the RPC even before it begins.
      if (cancelled_) context->TryCancel();
    }
    response_.Clear();
    stub_->async()->CreateUserIntent(context.get(), &request_, &response_,
                                     [this, context](const grpc::Status& status) { Answered(status, *context); });
  }

  void Answered(const grpc::Status& status, const grpc::ClientContext& context) {
    if (status.ok()) {
      call_.Succeeded();
      return Finish(CreateResult{call_.request_id(), call_.tries(), std::move(response_)});
    }
    const std::optional<absl::Duration> wait = call_.Failed(Decode(status, context.GetServerTrailingMetadata()));
    if (!wait.has_value()) return Finish(StatusOf(call_.error()));
    {
      absl::MutexLock lock(&mu_);
      context_ = nullptr;
      if (!cancelled_) {
        // A new alarm for each wait: an alarm keeps its function, also after it has called it on one of gRPC's threads.
        alarm_ = std::make_unique<grpc::Alarm>();
        alarm_->Set(In(*wait), [this](bool in_time) { Waited(in_time); });
        return;
      }
    }
    Waited(false);
  }

  void Waited(bool in_time) {
    {
      absl::MutexLock lock(&mu_);
      alarm_ = nullptr;
    }
    if (in_time) return Try();
    call_.Cancelled();
    Finish(StatusOf(call_.error()));
  }

  // Once. Nothing touches this object afterwards.
  void Finish(absl::StatusOr<CreateResult> result) {
    const void* const outer = std::exchange(in_callback_of, shared_.get());
    {
      CreateCallback done = std::move(done_);  // what it captured goes before the call counts as ended
      if (done) std::move(done)(std::move(result));
    }
    in_callback_of = outer;
    const std::shared_ptr<Client::Shared> shared = shared_;
    shared->End(this);
  }

  const std::shared_ptr<Client::Shared> shared_;
  const std::shared_ptr<Stub> stub_;
  Call call_;
  const v1::CreateUserIntentRequest request_;
  v1::CreateUserIntentResponse response_;
  CreateCallback done_;
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mu_);  // of the RPC that runs
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mu_);            // of the wait that runs
};

}  // namespace

bool Client::Shared::Begin(const std::shared_ptr<AsyncCreate>& call) {
  absl::MutexLock lock(&mu_);
  running_.emplace(call.get(), call);
  return !closed_;
}

void Client::Shared::End(AsyncCreate* call) {
  std::shared_ptr<AsyncCreate> last;  // destroyed after the lock is free
  absl::MutexLock lock(&mu_);
  const auto found = running_.find(call);
  last = std::move(found->second);
  running_.erase(found);
}

std::shared_ptr<WatchStream> Client::Shared::NewWatch(const std::shared_ptr<Shared>& shared,
                                                      const WatchOptions& options) {
  auto watch = std::make_shared<WatchStream>(options, [shared] { return shared->stub(); });
  absl::MutexLock lock(&shared->mu_);
  auto& watches = shared->watches_;
  watches.erase(std::remove_if(watches.begin(), watches.end(), [](const auto& other) { return other.expired(); }),
                watches.end());
  watches.push_back(watch);
  return watch;
}

void Client::Shared::Close() {
  std::vector<std::shared_ptr<AsyncCreate>> calls;
  std::vector<std::weak_ptr<WatchStream>> watches;
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
    for (const auto& [address, call] : running_) calls.push_back(call);
    watches = std::move(watches_);
  }
  for (const auto& call : calls) call->Cancel();
  for (const auto& watch : watches) {
    if (const std::shared_ptr<WatchStream> still = watch.lock()) still->Cancel();
  }
  calls.clear();
  const size_t own = in_callback_of == this ? 1 : 0;  // the one that destroys the client cannot end before it
  const auto ended = [this, own] {
    mu_.AssertReaderHeld();
    return running_.size() <= own;
  };
  absl::MutexLock lock(&mu_, absl::Condition(&ended));
}

namespace {

// Makes the tries of one call whose answer the caller waits for.
template <typename Request, typename Response>
absl::Status Wait(Call* call, Stub* stub, grpc::Status (Stub::*rpc)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
  if (!call->Accepts(request)) return StatusOf(call->error());
  for (;;) {
    const std::optional<absl::Duration> left = call->BeginTry();
    if (!left.has_value()) return StatusOf(call->error());
    grpc::ClientContext context;
    context.set_deadline(In(*left));
    const grpc::Status status = (stub->*rpc)(&context, request, response);
    if (status.ok()) {
      call->Succeeded();
      return absl::OkStatus();
    }
    Error error = Decode(status, context.GetServerTrailingMetadata());
    if (call->is_read()) AllowRepeatOfRead(context.GetServerTrailingMetadata(), call->tries(), &error);
    const std::optional<absl::Duration> wait = call->Failed(std::move(error));
    if (!wait.has_value()) return StatusOf(call->error());
    absl::SleepFor(*wait);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  absl::StatusOr<std::unique_ptr<Connection>> connection = Connection::Open(options);
  if (!connection.ok()) return connection.status();
  return std::unique_ptr<Client>(new Client(std::make_shared<Shared>(options, *std::move(connection))));
}

Client::Client(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

Client::~Client() { shared_->Close(); }

absl::StatusOr<CreateResult> Client::CreateUserIntent(const v1::CreateUserIntentRequest& request,
                                                      const CallOptions& options) {
  const v1::CreateUserIntentRequest sent = WithId(request, options);
  const std::shared_ptr<Stub> stub = shared_->stub();
  Call call = shared_->NewCall(sent.request_id(), options);
  CreateResult result;
  if (absl::Status status = Wait(&call, stub.get(), &Stub::CreateUserIntent, sent, &result.response); !status.ok()) {
    return status;
  }
  result.request_id = call.request_id();
  result.tries = call.tries();
  return result;
}

PendingCreate Client::CreateUserIntentAsync(const v1::CreateUserIntentRequest& request, const CallOptions& options,
                                            CreateCallback done) {
  v1::CreateUserIntentRequest sent = WithId(request, options);
  std::string request_id = sent.request_id();
  auto call =
      std::make_shared<AsyncCreate>(shared_, shared_->NewCall(request_id, options), std::move(sent), std::move(done));
  if (!shared_->Begin(call)) call->Cancel();
  call->Begin();
  return PendingCreate(std::move(request_id), [weak = std::weak_ptr<AsyncCreate>(call)] {
    if (const std::shared_ptr<AsyncCreate> still = weak.lock()) still->Cancel();
  });
}

absl::StatusOr<v1::Creation> Client::GetCreation(std::string_view request_id, const CallOptions& options) {
  v1::GetCreationRequest request;
  request.set_request_id(std::string(request_id));
  const std::shared_ptr<Stub> stub = shared_->stub();
  Call call = shared_->NewCall(request.request_id(), options);
  v1::GetCreationResponse response;
  if (absl::Status status = Wait(&call, stub.get(), &Stub::GetCreation, request, &response); !status.ok())
    return status;
  return std::move(*response.mutable_creation());
}

namespace {

// Request: one with the oneof `key`.
template <typename Request>
void SetKey(const IntentKey& key, Request* request) {
  if (const auto* of_request = std::get_if<RequestId>(&key)) {
    request->set_request_id(of_request->value);
  } else {
    request->set_user_intent_id(std::get<UserIntentId>(key).value);
  }
}

WatchOptions One(std::string_view request_id, absl::Duration timeout) {
  WatchOptions options;
  options.request_ids.emplace_back(request_id);
  options.timeout = timeout;
  return options;
}

}  // namespace

absl::StatusOr<v1::GetUserIntentResponse> Client::GetUserIntent(const IntentKey& key, const ReadOptions& options) {
  v1::GetUserIntentRequest request;
  SetKey(key, &request);
  if (options.max_age != absl::ZeroDuration()) {
    absl::Duration rest;
    request.mutable_max_age()->set_seconds(absl::IDivDuration(options.max_age, absl::Seconds(1), &rest));
    request.mutable_max_age()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  }
  request.set_allow_stale(options.allow_stale);
  const std::shared_ptr<Stub> stub = shared_->stub();
  Call call = shared_->NewCall(request.request_id(), options);
  call.IsRead(request.user_intent_id());
  v1::GetUserIntentResponse response;
  if (absl::Status status = Wait(&call, stub.get(), &Stub::GetUserIntent, request, &response); !status.ok()) {
    return status;
  }
  return response;
}

absl::StatusOr<v1::GetAuthorizationUrlResponse> Client::GetAuthorizationUrl(const IntentKey& key,
                                                                            const AuthorizationOptions& options) {
  v1::GetAuthorizationUrlRequest request;
  SetKey(key, &request);
  request.set_redirect_uri(options.redirect_uri);
  request.set_state(options.state);
  const std::shared_ptr<Stub> stub = shared_->stub();
  Call call = shared_->NewCall(request.request_id(), options);
  call.IsRead(request.user_intent_id());
  v1::GetAuthorizationUrlResponse response;
  if (absl::Status status = Wait(&call, stub.get(), &Stub::GetAuthorizationUrl, request, &response); !status.ok()) {
    return status;
  }
  return response;
}

Watch Client::WatchUserIntents(const WatchOptions& options) {
  return Watch(Shared::NewWatch(shared_, options), options.request_ids.size() == 1 ? options.request_ids[0] : "");
}

absl::StatusOr<v1::Creation> Client::WaitForOutcome(std::string_view request_id, const CallOptions& options) {
  return WatchUserIntents(One(request_id, shared_->TimeoutOf(options))).WaitForOutcome();
}

absl::StatusOr<v1::UserIntent> Client::WaitForStatus(std::string_view request_id,
                                                     const std::vector<v1::UserIntentStatus>& statuses,
                                                     const CallOptions& options) {
  return WatchUserIntents(One(request_id, shared_->TimeoutOf(options))).WaitForStatus(statuses);
}

absl::StatusOr<CreateResult> ClientInterface::Repeat(const absl::Status& error,
                                                     const v1::CreateUserIntentRequest& request, CallOptions options) {
  const std::optional<Error> failed = ErrorOf(error);
  if (error.ok()) return absl::InvalidArgumentError("there is no error to repeat a call for");
  if (!failed.has_value() || failed->request_id.empty() || failed->read) return error;
  options.request_id = failed->request_id;
  absl::StatusOr<CreateResult> result = CreateUserIntent(request, options);
  std::optional<Error> again = ErrorOf(result.status());
  if (failed->maybe_sent() && again.has_value() && again->reason.empty() && again->sent == sent::kNo) {
    // This call sent nothing, but the one before it may have.
    again->sent.clear();
    again->recovery.clear();
    return StatusOf(*again);
  }
  return result;
}

std::ostream& operator<<(std::ostream& out, const CreateResult& result) {
  return out << "request_id " << result.request_id << ", tries " << result.tries << ": " << Redacted(result.response);
}

std::string NewRequestId() {
  unsigned char id[16];
  if (getentropy(id, sizeof id) != 0) std::abort();  // no kernel of today refuses 16 bytes
  id[6] = static_cast<unsigned char>((id[6] & 0x0f) | 0x40);
  id[8] = static_cast<unsigned char>((id[8] & 0x3f) | 0x80);
  std::string text = absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(id), sizeof id));
  for (const size_t position : {20U, 16U, 12U, 8U}) text.insert(position, 1, '-');
  return text;
}

}  // namespace userintent
