#include "server/rpc/calls.h"

#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "server/base/crash_point.h"
#include "server/rpc/identity.h"
#include "server/rpc/status_details.h"

namespace userintent::rpc {
namespace {

using usecase::Reply;

// How many calls of a method wait for requests. A burst beyond it waits in libgrpc for a turn, no longer.
constexpr int kPostedCreates = 256;
constexpr int kPostedGets = 16;

// gRPC's deadline is a time of the system clock; everything here runs on the steady one.
SteadyTime SteadyDeadline(const grpc::ServerContext& context, SteadyTime now, SteadyClock::duration if_none) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return now + if_none;
  auto left = deadline - std::chrono::system_clock::now();
  // gRPC's C core sends a long timeout rounded up, by 0.1 s from 10 s on and by 1 s from 100 s on: its caller gives up
  // that much earlier, and must have its answer by then.
  if (left > std::chrono::seconds(100)) {
    left -= std::chrono::seconds(1);
  } else if (left > std::chrono::seconds(10)) {
    left -= std::chrono::milliseconds(100);
  }
  // Far deadlines mean "no deadline" as well: nothing waits for more than a day, and sums must not overflow.
  return now + std::min<SteadyClock::duration>(left, std::chrono::hours(24));
}

class Call {
 public:
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 protected:
  Call(CallServices& services, Method method)
      : services_(services), method_(method), responder_(&context_), taken_(this), done_(this), finished_(this) {
    // Delivered once the call has begun and has ended in any way; tells of cancels.
    context_.AsyncNotifyWhenDone(static_cast<Tag*>(&done_));
  }
  virtual ~Call() = default;

  virtual void PostAnother() = 0;
  // The request is there, from a caller with an identity.
  virtual void Handle(std::string caller, SteadyTime deadline) = 0;
  virtual void OnCallerLeft() {}

  intent::WireProblem Parse(google::protobuf::Message* message) {
    grpc::Slice slice;
    if (!request_.TrySingleSlice(&slice).ok() && !request_.DumpToSingleSlice(&slice).ok()) {
      return intent::WireProblem::kMalformed;
    }
    return intent::ParseStrict(std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()), message);
  }

  // False, and the call is answered, when the bytes are not an acceptable message.
  bool ParseOrFail(google::protobuf::Message* message) {
    switch (Parse(message)) {
      case intent::WireProblem::kNone:
        request_.Clear();
        return true;
      case intent::WireProblem::kMalformed:
        Fail(Reply::Error(v1::ERROR_REASON_MALFORMED_REQUEST));
        return false;
      case intent::WireProblem::kUnknownFields:
        Fail(Reply::Error(v1::ERROR_REASON_UNKNOWN_FIELDS));
        return false;
    }
    return false;
  }

  void Succeed(const google::protobuf::Message& message, bool replayed) {
    grpc::Slice slice(message.ByteSizeLong());
    message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
    const grpc::ByteBuffer bytes(&slice, 1);
    Finish(&bytes, grpc::Status::OK, v1::ERROR_REASON_UNSPECIFIED, replayed);
  }

  void Fail(const Reply& reply) {
    RpcError error = ToRpcError(reply);
    if (error.pushback_never) context_.AddTrailingMetadata(kPushbackTrailer, kPushbackNever);
    Finish(nullptr, error.status, reply.reason, reply.replayed);
  }

  // What a Request... method of the service wants.
  grpc::ServerContext* context() { return &context_; }
  grpc::ByteBuffer* request() { return &request_; }
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* responder() { return &responder_; }
  Tag* taken() { return &taken_; }

  CallServices& services_;

 private:
  // The only caller of Finish. Nothing is answered twice, and nothing after the end.
  void Finish(const grpc::ByteBuffer* message, const grpc::Status& status, std::optional<v1::ErrorReason> reason,
              bool replayed) {
    if (std::exchange(finish_called_, true)) return;
    CrashPoint("before-reply");
    services_.monitor.OnCallEnded(method_, reason, replayed, services_.shard.Now() - begun_);
    if (message != nullptr) {
      responder_.Finish(*message, status, static_cast<Tag*>(&finished_));
    } else {
      responder_.FinishWithError(status, static_cast<Tag*>(&finished_));
    }
  }

  void OnTaken(bool ok) {
    if (!ok) {  // the server shuts down; the call never began, and done_ never comes
      delete this;
      return;
    }
    PostAnother();
    begun_ = services_.shard.Now();
    services_.monitor.OnCallBegun(method_);
    // The boundary: nothing below throws by design; what does all the same becomes INTERNAL for its caller.
    try {
      const std::shared_ptr<const grpc::AuthContext> peer = context_.auth_context();
      std::optional<std::string> caller = CallerOf(*peer, services_.require_identity);
      if (services_.require_identity && services_.certificates.Ended(*peer, std::chrono::system_clock::now())) {
        caller.reset();
      }
      if (!caller) return Fail(Reply::Error(v1::ERROR_REASON_CALLER_UNAUTHENTICATED));
      Handle(*std::move(caller), SteadyDeadline(context_, begun_, services_.default_deadline));
    } catch (const std::exception&) {
      services_.monitor.OnBug("call");
      Fail(Reply::Error(v1::ERROR_REASON_INTERNAL));
    }
  }

  void OnDone(bool) {
    done_came_ = true;
    if (context_.IsCancelled() && !finish_called_) {
      OnCallerLeft();
      // Nobody reads this status; finishing lets the call go while its creation may run on.
      Finish(nullptr, grpc::Status::CANCELLED, std::nullopt, false);
    }
    DeleteIfEnded();  // nothing of this call may be touched after it
  }

  void OnFinished(bool) {
    finished_came_ = true;
    CrashPoint("after-reply");
    DeleteIfEnded();  // nothing of this call may be touched after it
  }

  void DeleteIfEnded() {
    if (done_came_ && finished_came_) delete this;
  }

  const Method method_;
  grpc::ServerContext context_;
  grpc::ByteBuffer request_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> responder_;
  MemberTag<Call, &Call::OnTaken> taken_;
  MemberTag<Call, &Call::OnDone> done_;
  MemberTag<Call, &Call::OnFinished> finished_;
  SteadyTime begun_{};
  bool finish_called_ = false;
  bool done_came_ = false;
  bool finished_came_ = false;
};

class CreateCall final : public Call {
 public:
  static void Post(CallServices& services) {
    auto* call = new CreateCall(services);  // owned by its tags from here on
    services.service.RequestCreateUserIntent(call->context(), call->request(), call->responder(),
                                             &services.shard.queue(), &services.shard.queue(), call->taken());
  }

 private:
  explicit CreateCall(CallServices& services) : Call(services, Method::kCreateUserIntent) {}

  void PostAnother() override { Post(services_); }

  void Handle(std::string caller, SteadyTime deadline) override {
    v1::CreateUserIntentRequest request;
    if (!ParseOrFail(&request)) return;
    creation_ = usecase::Creation::Start(services_.intent, std::move(caller), std::move(request), deadline,
                                         [self = std::weak_ptr(self_)](Reply reply) {
                                           if (const auto call = self.lock()) (*call)->Respond(std::move(reply));
                                         });
  }

  void Respond(Reply reply) {
    creation_.reset();
    if (!reply.ok()) return Fail(reply);
    v1::CreateUserIntentResponse response;
    if (reply.user_intent) *response.mutable_user_intent() = *std::move(reply.user_intent);
    response.set_replayed(reply.replayed);
    response.set_astra_request_id(reply.astra_request_id);
    if (reply.attempts) {
      response.mutable_attempts()->set_used_min(reply.attempts->used_min);
      response.mutable_attempts()->set_used_max(reply.attempts->used_max);
      response.mutable_attempts()->set_limit(reply.attempt_limit);
    }
    Succeed(response, reply.replayed);
  }

  void OnCallerLeft() override {
    if (creation_) std::exchange(creation_, nullptr)->CallerLeft();
  }

  std::shared_ptr<usecase::Creation> creation_;
  // A creation may outlive its call; its reply finds the call through this, or finds nobody.
  const std::shared_ptr<CreateCall*> self_ = std::make_shared<CreateCall*>(this);
};

class GetCall final : public Call {
 public:
  static void Post(CallServices& services) {
    auto* call = new GetCall(services);
    services.service.RequestGetCreation(call->context(), call->request(), call->responder(), &services.shard.queue(),
                                        &services.shard.queue(), call->taken());
  }

 private:
  explicit GetCall(CallServices& services) : Call(services, Method::kGetCreation) {}

  void PostAnother() override { Post(services_); }

  void Handle(std::string caller, SteadyTime) override {
    v1::GetCreationRequest request;
    if (!ParseOrFail(&request)) return;
    if (auto violation = intent::ValidateRequestId(request.request_id())) {
      Reply reply = Reply::Error(v1::ERROR_REASON_FIELD_INVALID);
      reply.violations.push_back(*violation);
      return Fail(reply);
    }
    services_.intent.ledger.Get({std::move(caller), *ParseUuid(request.request_id())}, services_.shard,
                                [self = std::weak_ptr(self_)](ledger::GetAnswer answer) {
                                  if (const auto call = self.lock()) (*call)->Respond(std::move(answer));
                                });
  }

  void Respond(ledger::GetAnswer answer) {
    if (!answer.available) return Fail(Reply::Error(v1::ERROR_REASON_LEDGER_UNAVAILABLE));
    if (!answer.record) return Fail(Reply::Error(v1::ERROR_REASON_REQUEST_NOT_FOUND));
    v1::GetCreationResponse response;
    *response.mutable_creation() =
        usecase::ToCreation(*answer.record, answer.budget, services_.intent.email_attempt_limit);
    Succeed(response, false);
  }

  const std::shared_ptr<GetCall*> self_ = std::make_shared<GetCall*>(this);  // as in CreateCall
};

}  // namespace

void PostCalls(CallServices& services) {
  for (int i = 0; i < kPostedCreates; ++i) CreateCall::Post(services);
  for (int i = 0; i < kPostedGets; ++i) GetCall::Post(services);
}

}  // namespace userintent::rpc
