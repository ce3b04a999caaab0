// grpc.health.v1 on the shards' own queues.
//
// libgrpc++ has one too, but on its callback API, which brings two threads that wait in gRPC's poller beside the
// shard's. They take events away from it, and each call is woken from thread to thread: measured, 10 % of the CPU of a
// call under load, a third of it at rest (docs/decisions/0006).
//
// Check is a UnaryCall, without the identity, the counting and the errors of our own service (UnaryMethod): every
// client that reaches the port may ask, as with libgrpc++'s. Watch is a stream, with a life of its own.
//
// HealthState is one for the server, set by any thread. A HealthCalls belongs to its shard's thread, like every call in
// here; server.cc owns both, and they outlive the shards.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/shard.h"

namespace userintent::rpc {

using Health = grpc::health::v1::Health;
using HealthService = Health::WithRawMethod_Check<Health::WithAsyncMethod_Watch<Health::Service>>;

// Of all the services that are asked for: "" (the server as a whole) and the gateway's own have one state together.
class HealthState {
 public:
  void Set(bool serving) { serving_.store(serving, std::memory_order_release); }

  // What the standard calls it; SERVICE_UNKNOWN for any other name.
  grpc::health::v1::HealthCheckResponse::ServingStatus Of(const std::string& service) const;

 private:
  std::atomic<bool> serving_{false};
};

class HealthCalls {
 public:
  HealthCalls(HealthService& service, const HealthState& state, Shard& shard, CallObserver& observer)
      : service_(service), state_(state), shard_(shard), observer_(observer) {}
  HealthCalls(const HealthCalls&) = delete;
  HealthCalls& operator=(const HealthCalls&) = delete;

  // Posts the calls that wait for requests. On the shard's thread, or before there is one.
  void Start();

  // Tells those who watch, if there is news.
  void Announce();

 private:
  class CheckCall;
  class WatchCall;

  HealthService& service_;
  const HealthState& state_;
  Shard& shard_;
  CallObserver& observer_;
  std::vector<WatchCall*> watching_;  // each is deleted by its tags, and leaves before that
};

}  // namespace userintent::rpc
