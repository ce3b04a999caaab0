// A call that is answered by a stream of messages, as a use case sees it. No gRPC. The unary kind: call.h.
//
// A handler is a function std::shared_ptr<ServerStream>(StreamCall<Request, Response>&&) on a shard's thread. It writes
// and ends through `output`, from inside itself or later on the same thread; one that ends the call at once may return
// null. The stream that it returns is let go, on the same thread and never from inside of one of its own functions,
// once the call has ended or its caller has left; `output` must not be used after that.
#pragma once

#include <memory>
#include <string>

#include "server/policy/access.h"
#include "server/usecase/result.h"

namespace userintent::usecase {

template <typename Response>
class StreamOutput {
 public:
  virtual ~StreamOutput() = default;
  // Not while one is under way: ServerStream::OnWritten tells when it has been taken, never inline.
  virtual void Write(const Response& message) = 0;
  // The last word, at any time. A write under way still reaches the caller before it.
  virtual void End(CallError error) = 0;
};

class ServerStream {
 public:
  virtual ~ServerStream() = default;
  // The last message was taken: there is room for another one.
  virtual void OnWritten() = 0;
  // The policy does not let the caller go on: ends the call with CALLER_NOT_ALLOWED.
  virtual void OnNotAllowed() = 0;
};

template <typename Request, typename Response>
struct StreamCall {
  std::string caller;  // the authenticated identity
  Request request;     // parsed, not yet checked
  StreamOutput<Response>& output;
  std::shared_ptr<const policy::Access> access = nullptr;  // what the caller may do; null in tests: no limits
};

}  // namespace userintent::usecase
