// StreamingMethod: one server-streaming method of our service on one shard. Each call is identified, parsed strictly
// and given to the method's handler, whose stream writes the messages and ends the call with a CallError. As
// UnaryMethod in all that they have in common.
//
// A method belongs to its shard's thread and outlives its calls: its owner destroys it after the shard has stopped.
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "server/rpc/status_details.h"
#include "server/rpc/streaming_call.h"
#include "server/rpc/unary_method.h"
#include "server/usecase/stream.h"

namespace userintent::rpc {

// kRequestCall: &Service::Request<Name>, where Service has the method on raw bytes.
template <typename Request, typename Response, auto kRequestCall, typename Service>
class StreamingMethod final : public PostedMethod {
 public:
  using Handler = absl::AnyInvocable<std::shared_ptr<usecase::ServerStream>(usecase::StreamCall<Request, Response>&&)>;

  StreamingMethod(Service& service, MethodContext& context, const MethodOptions& options, Handler handler)
      : service_(service), context_(context), options_(options), handler_(std::move(handler)) {}

  void Post() override {
    for (int i = 0; i < options_.posted; ++i) new ActiveCall(*this);  // owned by its tags
  }

  void OnPolicyChanged() override {
    // A call that ends here is deleted later, by its tags.
    for (ActiveCall* call : open_) call->CheckAccess();
  }

 private:
  class ActiveCall final : public StreamingCall, public usecase::StreamOutput<Response> {
   public:
    explicit ActiveCall(StreamingMethod& method) : StreamingCall(method.context_.shard), method_(method) {
      grpc::ServerCompletionQueue& queue = method.context_.shard.queue();
      (method.service_.*kRequestCall)(&context(), request(), writer(), &queue, &queue, taken());
    }
    ~ActiveCall() override { method_.open_.erase(this); }

    // Ends the stream if its caller may not call the method any more.
    void CheckAccess() {
      if (ended() || StillAllowed(caller_, method_.context_, method_.options_.method)) return;
      Guarded([this] { stream_->OnNotAllowed(); });
    }

    // usecase::StreamOutput.
    void Write(const Response& message) override { StreamingCall::Write(message); }
    void End(usecase::CallError error) override {
      if (ended()) return;
      if (!method_.options_.errors_say_sent) error.sent.reset();
      const RpcError converted = ToRpcError(error);
      if (converted.pushback_never) context().AddTrailingMetadata(kPushbackTrailer, kPushbackNever);
      Report({.reason = error.reason, .error = &error});
      StreamingCall::End(converted.status);
    }

   private:
    void PostAnother() override { new ActiveCall(method_); }

    void OnRequest() override {
      begun_ = method_.context_.shard.Now();
      span_ = BeginSpan(context(), method_.context_.tracing);
      method_.context_.observer.OnCallBegun(method_.options_.method);
      Guarded([this] { Handle(); });
    }

    void OnWritten() override {
      if (stream_) Guarded([this] { stream_->OnWritten(); });
    }

    // The boundary: nothing below throws by design; what does all the same becomes INTERNAL for its caller.
    template <typename F>
    void Guarded(F&& f) {
      try {
        f();
      } catch (const std::exception&) {
        method_.context_.observer.OnBug("stream");
        End(usecase::CallError::Of(v1::ERROR_REASON_INTERNAL));
      }
    }

    void Handle() {
      Entry entry = Enter(context(), method_.context_, method_.options_.method);
      caller_ = entry.caller;
      if (entry.refused != v1::ERROR_REASON_UNSPECIFIED) return End(usecase::CallError::Of(entry.refused));
      usecase::StreamCall<Request, Response> call{std::move(entry.caller), {}, *this, std::move(entry.access)};
      switch (Parse(&call.request)) {
        case intent::WireProblem::kNone:
          break;
        case intent::WireProblem::kMalformed:
          return End(usecase::CallError::Of(v1::ERROR_REASON_MALFORMED_REQUEST));
        case intent::WireProblem::kUnknownFields:
          return End(usecase::CallError::Of(v1::ERROR_REASON_UNKNOWN_FIELDS));
      }
      if (auto over = TakeRead(call.access.get(), method_.options_.method)) return End(*std::move(over));
      stream_ = method_.handler_(std::move(call));
      if (stream_ && !ended()) method_.open_.insert(this);
    }

    void OnCallerLeft() override { Report({}); }
    void OnOver() override {
      method_.open_.erase(this);
      stream_.reset();
    }

    void Report(EndedCall call) {
      call.method = method_.options_.method;
      call.took = method_.context_.shard.Now() - begun_;
      call.caller = caller_;
      call.context = &context();
      call.span = span_ ? &*span_ : nullptr;
      method_.context_.observer.OnCallEnded(call);
    }

    StreamingMethod& method_;
    SteadyTime begun_{};
    std::string caller_;
    std::optional<CallSpan> span_;
    std::shared_ptr<usecase::ServerStream> stream_;
  };

  Service& service_;
  MethodContext& context_;
  const MethodOptions options_;
  Handler handler_;
  absl::flat_hash_set<ActiveCall*> open_;  // those with a stream; a call goes from it before its stream does
};

}  // namespace userintent::rpc
