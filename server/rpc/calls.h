// The gRPC edge: how calls come in, and the one place where they are finished.
//
// The methods are registered on raw bytes, because libgrpc++ 1.51 would answer malformed bytes with UNIMPLEMENTED.
// Every call object belongs to one shard's thread, and to its own tags: it is deleted when the last tag that it handed
// out has come back. Requests are posted ahead and posted again at once when one is taken.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "server/rpc/identity.h"
#include "server/rpc/shard.h"
#include "server/usecase/creation.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent::rpc {

// The longest request, on the wire and decoded (contract section 2).
inline constexpr int kMaxRequestBytes = 64 * 1024;

using Service = v1::UserIntentService::WithRawMethod_CreateUserIntent<
    v1::UserIntentService::WithRawMethod_GetCreation<v1::UserIntentService::Service>>;

enum class Method { kCreateUserIntent, kGetCreation };

// Told about calls, for logs and metrics. Called on shards' threads; must be thread-safe and must not block.
class CallObserver : public usecase::CreationObserver {
 public:
  virtual void OnCallBegun(Method method) = 0;
  // `reason` is UNSPECIFIED for OK, and nothing when the caller left before it was answered.
  virtual void OnCallEnded(Method method, std::optional<v1::ErrorReason> reason, bool replayed,
                           SteadyClock::duration took) = 0;
  // An exception was caught at the edge. Its text may hold anything, so only the place is told.
  virtual void OnBug(std::string_view where) = 0;
};

// What the calls of one shard need; outlives them.
struct CallServices {
  Service& service;
  Shard& shard;
  usecase::Services intent;
  CallObserver& monitor;
  bool require_identity = false;  // the listener has TLS
  SteadyClock::duration default_deadline = std::chrono::seconds(35);
  CertificateClock certificates;
};

// Posts the calls that wait for requests. On the shard's thread, or before there is one.
void PostCalls(CallServices& services);

}  // namespace userintent::rpc
