// StreamingCall: the life of one call of a server-streaming method, on raw bytes (see unary_call.h for why).
//
// A call belongs to one shard's thread and to its own tags: libgrpc holds up to four of them (taken, done, written,
// finished), and the call deletes itself when the last one has come back. At most one write is under way. It is ended
// once, and in here alone; a caller that does not read the write under way, so that it never learns of the end, is let
// go kLetGoAfter later.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <chrono>

#include "server/intent/strict_parse.h"
#include "server/rpc/shard.h"

namespace userintent::rpc {

class StreamingCall {
 public:
  static constexpr std::chrono::seconds kLetGoAfter{10};

  StreamingCall(const StreamingCall&) = delete;
  StreamingCall& operator=(const StreamingCall&) = delete;

 protected:
  explicit StreamingCall(Shard& shard);
  virtual ~StreamingCall();

  // A request came. First another call is posted in this one's place, then this one is dealt with.
  virtual void PostAnother() = 0;
  virtual void OnRequest() = 0;
  // The message was taken, and the call has not ended.
  virtual void OnWritten() = 0;
  // The caller left before the call was ended; nothing can be written any more.
  virtual void OnCallerLeft() = 0;
  // Nothing comes any more; what the call holds may go.
  virtual void OnOver() = 0;

  // The request's bytes into `message`, and lets go of them.
  intent::WireProblem Parse(google::protobuf::Message* message);

  // Not while a write is under way. Nothing is written once the call has ended.
  void Write(const google::protobuf::Message& message);
  // Ends the call, unless it has ended.
  void End(const grpc::Status& status);
  bool ended() const { return ended_; }

  grpc::ServerContext& context() { return context_; }
  // With context(), what a Request... function of a service wants.
  grpc::ByteBuffer* request() { return &request_; }
  grpc::ServerAsyncWriter<grpc::ByteBuffer>* writer() { return &writer_; }
  Tag* taken() { return &taken_; }

 private:
  void OnTaken(bool ok);
  void OnDone(bool);
  void OnWriteEnded(bool ok);
  void OnFinished(bool);
  void LetGo();
  void DeleteIfOver();

  Shard& shard_;
  const Shard::CallMark mark_;
  grpc::ServerContext context_;
  grpc::ByteBuffer request_;
  grpc::ServerAsyncWriter<grpc::ByteBuffer> writer_;
  MemberTag<StreamingCall, &StreamingCall::OnTaken> taken_;
  MemberTag<StreamingCall, &StreamingCall::OnDone> done_;
  MemberTag<StreamingCall, &StreamingCall::OnWriteEnded> written_;
  MemberTag<StreamingCall, &StreamingCall::OnFinished> finished_;
  grpc::StatusCode ended_with_ = grpc::StatusCode::OK;
  Loop::TimerId let_go_ = 0;
  bool writing_ = false;
  bool ended_ = false;
  bool done_came_ = false;
  bool finished_came_ = false;
};

}  // namespace userintent::rpc
