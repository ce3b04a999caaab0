// CallObserver: told about calls, for logs and metrics. Called on shards' threads; must be thread-safe and must not
// block.
#pragma once

#include <grpcpp/server_context.h>

#include <optional>
#include <string>
#include <string_view>

#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/policy/access.h"
#include "server/policy/method.h"
#include "server/rpc/traceparent.h"
#include "server/usecase/result.h"

namespace userintent::rpc {

using policy::Method;

// One call that ended. What it refers to lives as long as OnCallEnded runs.
struct EndedCall {
  Method method = Method::kCreateUserIntent;
  std::optional<v1::ErrorReason> reason;  // UNSPECIFIED for OK; nothing: the caller left before it was answered
  bool replayed = false;                  // it was answered from the ledger
  SteadyClock::duration took{};
  const usecase::CallError* error = nullptr;  // as the caller hears it; null: it hears none
  bool created = false;                       // an intent was created for it, which it hears of now
  std::string_view caller = {};               // empty: it could not be told
  std::optional<Uuid> request_id = {};        // where the request has one, and it is a UUID
  const usecase::Trail* trail = nullptr;      // null: the use case had nothing to tell
  const grpc::ServerContext* context = nullptr;
  const CallSpan* span = nullptr;  // null: calls are not traced
};

class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual void OnCallBegun(Method method) = 0;
  virtual void OnCallEnded(const EndedCall& call) = 0;
  // The same of calls of other services, which are neither parsed nor answered in the way of ours. `code`: gRPC's name.
  virtual void OnOtherCallBegun() {}
  virtual void OnOtherCallEnded(std::string_view /*code*/, SteadyClock::duration /*took*/) {}
  // A call, or a stream under way, that the policy refuses, or would refuse if its rule were enforced.
  virtual void OnDenied(Method method, const std::string& caller, const policy::Admission& admission) = 0;
  // An exception was caught at the edge. Its text may hold anything, so only the place is told.
  virtual void OnBug(std::string_view where) = 0;
};

}  // namespace userintent::rpc
