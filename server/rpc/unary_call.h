// UnaryCall: the life of one call of a unary method, on raw bytes.
//
// Methods are registered on raw bytes, because libgrpc++ 1.51 would answer malformed bytes with UNIMPLEMENTED.
//
// A call belongs to one shard's thread and to its own tags: libgrpc holds up to three of them (taken, done, finished),
// and the call deletes itself when the last one has come back. It is answered at most once, and in here alone: no other
// code calls Finish of a unary method.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include "server/intent/strict_parse.h"
#include "server/rpc/shard.h"

namespace userintent::rpc {

class UnaryCall {
 public:
  UnaryCall(const UnaryCall&) = delete;
  UnaryCall& operator=(const UnaryCall&) = delete;

 protected:
  explicit UnaryCall(Shard& shard);
  virtual ~UnaryCall() = default;

  // A request came. First another call is posted in this one's place, then this one is dealt with.
  virtual void PostAnother() = 0;
  virtual void OnRequest() = 0;
  // The caller left and has no answer yet; it gets none any more.
  virtual void OnCallerLeft() {}

  // The request's bytes into `message`, and lets go of them.
  intent::WireProblem Parse(google::protobuf::Message* message);

  // Each answers the call, unless it is answered.
  void Succeed(const google::protobuf::Message& message);
  void Fail(const grpc::Status& status);
  bool answered() const { return answered_; }

  grpc::ServerContext& context() { return context_; }
  // With context(), what a Request... function of a service wants.
  grpc::ByteBuffer* request() { return &request_; }
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer>* responder() { return &responder_; }
  Tag* taken() { return &taken_; }

 private:
  void OnTaken(bool ok);
  void OnDone(bool);
  void OnFinished(bool);
  void DeleteIfEnded();

  const Shard::CallMark mark_;
  grpc::ServerContext context_;
  grpc::ByteBuffer request_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> responder_;
  MemberTag<UnaryCall, &UnaryCall::OnTaken> taken_;
  MemberTag<UnaryCall, &UnaryCall::OnDone> done_;
  MemberTag<UnaryCall, &UnaryCall::OnFinished> finished_;
  bool answered_ = false;
  bool done_came_ = false;
  bool finished_came_ = false;
};

}  // namespace userintent::rpc
