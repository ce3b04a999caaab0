// The gateway's health, asked by itself: `userintent-server --healthcheck`, for containers without a shell, and whether
// the server answers calls at all, for /livez.
//
// All of it blocks, for as long as it is told.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/tls/files.h"

namespace userintent::rpc {

// Asks grpc.health.v1 of the server at `target` ("127.0.0.1:50051") for its overall state. With `tls` it shows the
// server's own certificate as client certificate, and trusts the authorities of clients; the certificate must then
// allow both uses. From main only.
absl::Status CheckHealth(const std::string& target, const tls::Files& tls, absl::Duration timeout);

// Calls of a server to itself, through libgrpc and the queue of a shard, but not through the port: no certificate says
// that a gateway may call itself, and none should have to. One shard is asked at a time, and again until it has
// answered. One thread at a time; ends before the server does.
class CallsToSelf {
 public:
  explicit CallsToSelf(grpc::Server& server) : server_(server) {}
  CallsToSelf(const CallsToSelf&) = delete;
  CallsToSelf& operator=(const CallsToSelf&) = delete;

  // Whether a call was answered, whatever the answer.
  bool Answered(absl::Duration timeout);

 private:
  grpc::Server& server_;
  std::shared_ptr<grpc::Channel> channel_;  // to one shard; which one, libgrpc draws
};

}  // namespace userintent::rpc
