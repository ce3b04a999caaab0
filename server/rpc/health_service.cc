#include "server/rpc/health_service.h"

#include <grpcpp/support/async_stream.h>

#include <optional>

#include "server/rpc/unary_call.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent::rpc {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

HealthCheckResponse::ServingStatus HealthState::Of(const std::string& service) const {
  if (!service.empty() && service != v1::UserIntentService::service_full_name()) {
    return HealthCheckResponse::SERVICE_UNKNOWN;
  }
  return serving_.load(std::memory_order_acquire) ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

class HealthCalls::CheckCall final : public UnaryCall {
 public:
  explicit CheckCall(HealthCalls& calls) : UnaryCall(calls.shard_), calls_(calls) {
    grpc::ServerCompletionQueue& queue = calls.shard_.queue();
    calls.service_.RequestCheck(&context(), request(), responder(), &queue, &queue, taken());
  }

 private:
  void PostAnother() override { new CheckCall(calls_); }  // owned by its tags

  // Answered at once, so a caller never leaves before.
  void OnRequest() override {
    calls_.observer_.OnOtherCallBegun();
    HealthCheckRequest asked;
    HealthCheckResponse response;
    if (Parse(&asked) == intent::WireProblem::kMalformed) {
      calls_.observer_.OnOtherCallEnded("INVALID_ARGUMENT", {});
      return Fail({grpc::StatusCode::INVALID_ARGUMENT, "not a HealthCheckRequest"});
    }
    response.set_status(calls_.state_.Of(asked.service()));
    if (response.status() == HealthCheckResponse::SERVICE_UNKNOWN) {
      calls_.observer_.OnOtherCallEnded("NOT_FOUND", {});
      return Fail({grpc::StatusCode::NOT_FOUND, "no such service"});
    }
    calls_.observer_.OnOtherCallEnded("OK", {});
    Succeed(response);
  }

  HealthCalls& calls_;
};

// Lives until its caller leaves or the server shuts down. At most one write, or the Finish, is under way at a time.
class HealthCalls::WatchCall final {
 public:
  explicit WatchCall(HealthCalls& calls)
      : calls_(calls),
        mark_(calls.shard_),
        writer_(&context_),
        taken_(this),
        done_(this),
        written_(this),
        finished_(this) {
    context_.AsyncNotifyWhenDone(static_cast<Tag*>(&done_));
    grpc::ServerCompletionQueue& queue = calls.shard_.queue();
    calls.service_.RequestWatch(&context_, &request_, &writer_, &queue, &queue, static_cast<Tag*>(&taken_));
  }

  void TellNews() {
    if (writing_ || left_) return;
    const auto status = calls_.state_.Of(request_.service());
    if (told_ == status) return;
    told_ = status;
    HealthCheckResponse response;
    response.set_status(status);
    writing_ = true;
    writer_.Write(response, static_cast<Tag*>(&written_));
  }

 private:
  void OnTaken(bool ok) {
    if (!ok) {  // the server shuts down; the call never began, and done_ never comes
      delete this;
      return;
    }
    new WatchCall(calls_);  // owned by its tags
    begun_ = calls_.shard_.Now();
    calls_.observer_.OnOtherCallBegun();
    calls_.watching_.push_back(this);
    TellNews();
  }

  void OnWritten(bool) {
    writing_ = false;
    if (left_) return Finish();
    TellNews();  // what changed meanwhile
  }

  void OnDone(bool) {
    left_ = true;
    std::erase(calls_.watching_, this);
    calls_.observer_.OnOtherCallEnded("CANCELLED", calls_.shard_.Now() - begun_);
    if (!writing_) Finish();
  }

  void Finish() { writer_.Finish(grpc::Status::CANCELLED, static_cast<Tag*>(&finished_)); }

  void OnFinished(bool) { delete this; }

  HealthCalls& calls_;
  const Shard::CallMark mark_;
  grpc::ServerContext context_;
  HealthCheckRequest request_;
  grpc::ServerAsyncWriter<HealthCheckResponse> writer_;
  MemberTag<WatchCall, &WatchCall::OnTaken> taken_;
  MemberTag<WatchCall, &WatchCall::OnDone> done_;
  MemberTag<WatchCall, &WatchCall::OnWritten> written_;
  MemberTag<WatchCall, &WatchCall::OnFinished> finished_;
  SteadyTime begun_{};
  std::optional<HealthCheckResponse::ServingStatus> told_;
  bool writing_ = false;
  bool left_ = false;
};

void HealthCalls::Start() {
  new CheckCall(*this);  // both are owned by their tags
  new WatchCall(*this);
}

void HealthCalls::Announce() {
  for (WatchCall* const watch : watching_) watch->TellNews();
}

}  // namespace userintent::rpc
