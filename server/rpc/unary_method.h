// UnaryMethod: one method of our service on one shard, from the bytes of a request to those of its answer. Each call is
// identified, let in by the policy, parsed strictly, given to the method's handler with its deadline, and answered with
// the handler's Result.
//
// A method belongs to its shard's thread and outlives its calls: its owner destroys it after the shard has stopped.
#pragma once

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "server/base/crash_point.h"
#include "server/base/uuid.h"
#include "server/policy/access.h"
#include "server/policy/method.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/identity.h"
#include "server/rpc/shard.h"
#include "server/rpc/status_details.h"
#include "server/rpc/unary_call.h"
#include "server/usecase/call.h"

namespace userintent::rpc {

// What the methods of one shard share; outlives them.
struct MethodContext {
  Shard& shard;
  CallObserver& observer;
  bool require_identity = false;  // the listener has TLS
  SteadyClock::duration default_deadline = std::chrono::seconds(35);
  CertificateClock certificates = CertificateClock();
  policy::Gate* gate = nullptr;  // null in tests: everything is allowed
  Tracing tracing = {};
};

// The identity behind a call; nothing when it has none, or none any more.
std::optional<std::string> Identify(const grpc::ServerContext& call, MethodContext& context);

// Who calls and what it may do; or why the call ends before anything of it is parsed (contract section 3).
struct Entry {
  std::string caller;
  std::shared_ptr<const policy::Access> access;  // null where the context has no gate
  v1::ErrorReason refused = v1::ERROR_REASON_UNSPECIFIED;
};
Entry Enter(const grpc::ServerContext& call, MethodContext& context, Method method);

// Whether the policy still lets `caller` call the method. Tells the observer where it does not.
bool StillAllowed(const std::string& caller, MethodContext& context, Method method);

// After a request was parsed: takes a token of the caller's read_rate where the method is a read. The error, where
// there is none left.
std::optional<usecase::CallError> TakeRead(const policy::Access* access, Method method);

// gRPC's deadline is a time of the system clock; everything here runs on the steady one. Not as a time_point of the
// standard library, which holds 292 years: a caller may say "99999999H".
SteadyTime SteadyDeadline(gpr_timespec deadline, SteadyTime now, SteadyClock::duration if_none);

// What a row of the table of methods (methods.cc) says beside its types.
struct MethodOptions {
  Method method;
  int posted = 1;               // calls that wait for requests; a burst beyond it waits in libgrpc for a turn
  bool errors_say_sent = true;  // ErrorInfo has `sent`, which speaks of creations
};

class PostedMethod {
 public:
  virtual ~PostedMethod() = default;
  // Posts the calls that wait for requests. On the shard's thread, or before there is one.
  virtual void Post() = 0;
  // Another policy is in force. On the shard's thread. What has begun and would end by itself soon goes on.
  virtual void OnPolicyChanged() {}
};

// kRequestCall: &Service::Request<Name>, where Service has the method on raw bytes.
template <typename Request, typename Response, auto kRequestCall, typename Service>
class UnaryMethod final : public PostedMethod {
 public:
  using Handler = absl::AnyInvocable<usecase::CallerLeft(usecase::Call<Request, Response>&&)>;

  UnaryMethod(Service& service, MethodContext& context, const MethodOptions& options, Handler handler)
      : service_(service), context_(context), options_(options), handler_(std::move(handler)) {}

  void Post() override {
    for (int i = 0; i < options_.posted; ++i) new ActiveCall(*this);  // owned by its tags
  }

 private:
  class ActiveCall final : public UnaryCall {
   public:
    explicit ActiveCall(UnaryMethod& method) : UnaryCall(method.context_.shard), method_(method) {
      grpc::ServerCompletionQueue& queue = method.context_.shard.queue();
      (method.service_.*kRequestCall)(&context(), request(), responder(), &queue, &queue, taken());
    }
    ~ActiveCall() override {
      if (answered()) CrashPoint("after-reply");
    }

   private:
    void PostAnother() override { new ActiveCall(method_); }

    // The boundary: nothing below throws by design; what does all the same becomes INTERNAL for its caller.
    void OnRequest() override {
      begun_ = method_.context_.shard.Now();
      span_ = BeginSpan(context(), method_.context_.tracing);
      method_.context_.observer.OnCallBegun(method_.options_.method);
      try {
        Handle();
      } catch (const std::exception&) {
        method_.context_.observer.OnBug("call");
        Answer(usecase::CallError::Of(v1::ERROR_REASON_INTERNAL));
      }
    }

    void Handle() {
      Entry entry = Enter(context(), method_.context_, method_.options_.method);
      caller_ = entry.caller;
      if (entry.refused != v1::ERROR_REASON_UNSPECIFIED) return Answer(usecase::CallError::Of(entry.refused));
      usecase::Call<Request, Response> call;
      switch (Parse(&call.request)) {
        case intent::WireProblem::kNone:
          break;
        case intent::WireProblem::kMalformed:
          return Answer(usecase::CallError::Of(v1::ERROR_REASON_MALFORMED_REQUEST));
        case intent::WireProblem::kUnknownFields:
          return Answer(usecase::CallError::Of(v1::ERROR_REASON_UNKNOWN_FIELDS));
      }
      if constexpr (requires { call.request.request_id(); }) request_id_ = ParseUuid(call.request.request_id());
      if (auto over = TakeRead(entry.access.get(), method_.options_.method)) return Answer(*std::move(over));
      call.caller = std::move(entry.caller);
      call.access = std::move(entry.access);
      if (span_) call.trace = span_->own;
      call.deadline = SteadyDeadline(context().raw_deadline(), begun_, method_.context_.default_deadline);
      call.done = [self = std::weak_ptr(self_)](usecase::Result<Response> result) {
        if (const auto active = self.lock()) (*active)->Answer(std::move(result));
      };
      caller_left_ = method_.handler_(std::move(call));
      if (answered()) caller_left_ = nullptr;
    }

    void Answer(usecase::Result<Response> result) {
      if (answered()) return;
      caller_left_ = nullptr;
      CrashPoint("before-reply");
      if (result.ok()) {
        EndedCall ended{.reason = v1::ERROR_REASON_UNSPECIFIED, .trail = &result.trail()};
        if constexpr (requires { result.value().replayed(); }) {
          ended.replayed = result.value().replayed();
          ended.created = !ended.replayed && result.value().has_user_intent();
        }
        Report(ended);
        return Succeed(result.value());
      }
      usecase::CallError& error = result.error();
      if (!method_.options_.errors_say_sent) error.sent.reset();
      const RpcError converted = ToRpcError(error);
      if (converted.pushback_never) context().AddTrailingMetadata(kPushbackTrailer, kPushbackNever);
      Report({.reason = error.reason, .replayed = error.replayed, .error = &error, .trail = &result.trail()});
      Fail(converted.status);
    }

    void OnCallerLeft() override {
      self_.reset();  // what the handler still answers is dropped
      usecase::Trail trail;
      if (caller_left_) trail = std::exchange(caller_left_, nullptr)();
      CrashPoint("before-reply");
      Report({.reason = std::nullopt, .trail = &trail});
    }

    void Report(EndedCall call) {
      call.method = method_.options_.method;
      call.took = method_.context_.shard.Now() - begun_;
      call.caller = caller_;
      call.request_id = request_id_;
      call.context = &context();
      call.span = span_ ? &*span_ : nullptr;
      method_.context_.observer.OnCallEnded(call);
    }

    UnaryMethod& method_;
    SteadyTime begun_{};
    std::string caller_;
    std::optional<Uuid> request_id_;
    std::optional<CallSpan> span_;
    usecase::CallerLeft caller_left_;  // empty once the call is answered
    // A handler may outlive the call; its result finds the call through this, or is dropped.
    std::shared_ptr<ActiveCall*> self_ = std::make_shared<ActiveCall*>(this);
  };

  Service& service_;
  MethodContext& context_;
  const MethodOptions options_;
  Handler handler_;
};

}  // namespace userintent::rpc
