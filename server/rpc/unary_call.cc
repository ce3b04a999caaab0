#include "server/rpc/unary_call.h"

#include <utility>

#include "server/rpc/raw_message.h"

namespace userintent::rpc {

UnaryCall::UnaryCall(Shard& shard) : mark_(shard), responder_(&context_), taken_(this), done_(this), finished_(this) {
  // Delivered once the call has begun and has ended in any way; tells of cancels.
  context_.AsyncNotifyWhenDone(static_cast<Tag*>(&done_));
}

intent::WireProblem UnaryCall::Parse(google::protobuf::Message* message) { return FromRaw(request_, message); }

void UnaryCall::Succeed(const google::protobuf::Message& message) {
  if (std::exchange(answered_, true)) return;
  responder_.Finish(ToRaw(message), grpc::Status::OK, static_cast<Tag*>(&finished_));
}

void UnaryCall::Fail(const grpc::Status& status) {
  if (std::exchange(answered_, true)) return;
  responder_.FinishWithError(status, static_cast<Tag*>(&finished_));
}

void UnaryCall::OnTaken(bool ok) {
  if (!ok) {  // the server shuts down; the call never began, and done_ never comes
    delete this;
    return;
  }
  PostAnother();
  OnRequest();
}

void UnaryCall::OnDone(bool) {
  done_came_ = true;
  if (context_.IsCancelled() && !answered_) {
    OnCallerLeft();
    Fail(grpc::Status::CANCELLED);  // no caller reads it; it lets the call go
  }
  DeleteIfEnded();  // nothing of this call may be touched after it
}

void UnaryCall::OnFinished(bool) {
  finished_came_ = true;
  DeleteIfEnded();  // nothing of this call may be touched after it
}

void UnaryCall::DeleteIfEnded() {
  if (done_came_ && finished_came_) delete this;
}

}  // namespace userintent::rpc
