#include "server/rpc/streaming_call.h"

#include <grpc/grpc.h>

#include <utility>

#include "server/rpc/raw_message.h"

namespace userintent::rpc {

StreamingCall::StreamingCall(Shard& shard)
    : shard_(shard), mark_(shard), writer_(&context_), taken_(this), done_(this), written_(this), finished_(this) {
  // Delivered once the call has begun and has ended in any way; tells of cancels.
  context_.AsyncNotifyWhenDone(static_cast<Tag*>(&done_));
}

StreamingCall::~StreamingCall() { shard_.CancelTimer(let_go_); }

intent::WireProblem StreamingCall::Parse(google::protobuf::Message* message) { return FromRaw(request_, message); }

void StreamingCall::Write(const google::protobuf::Message& message) {
  if (ended_) return;
  writing_ = true;
  writer_.Write(ToRaw(message), static_cast<Tag*>(&written_));
}

void StreamingCall::End(const grpc::Status& status) {
  if (std::exchange(ended_, true)) return;
  ended_with_ = status.error_code();
  writer_.Finish(status, static_cast<Tag*>(&finished_));
  // The status waits behind the message under way, which waits for room that only its reader can make.
  if (writing_ && !done_came_) let_go_ = shard_.CallAt(shard_.Now() + kLetGoAfter, [this] { LetGo(); });
}

// What libgrpc sends then has the code, but neither the details nor the message under way.
void StreamingCall::LetGo() {
  let_go_ = 0;
  grpc_call_cancel_with_status(context_.c_call(), static_cast<grpc_status_code>(ended_with_), "not read", nullptr);
}

void StreamingCall::OnTaken(bool ok) {
  if (!ok) {  // the server shuts down; the call never began, and done_ never comes
    delete this;
    return;
  }
  PostAnother();
  OnRequest();
}

void StreamingCall::OnDone(bool) {
  done_came_ = true;
  if (!ended_) {
    OnCallerLeft();
    End(grpc::Status::CANCELLED);  // no caller reads it; it lets the call go
  }
  OnOver();
  DeleteIfOver();  // nothing of this call may be touched after it
}

void StreamingCall::OnWriteEnded(bool ok) {
  writing_ = false;
  // Where it failed, the caller has left, of which done_ tells.
  if (ok && !ended_) OnWritten();
  DeleteIfOver();
}

void StreamingCall::OnFinished(bool) {
  finished_came_ = true;
  DeleteIfOver();
}

void StreamingCall::DeleteIfOver() {
  if (done_came_ && finished_came_ && !writing_) delete this;
}

}  // namespace userintent::rpc
