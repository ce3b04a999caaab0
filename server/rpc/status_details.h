// The error of the contract in gRPC's words: a grpc::Status with google.rpc.Status in grpc-status-details-bin.
//
// Pure functions; any thread.
#pragma once

#include <grpcpp/support/status.h>

#include "server/usecase/result.h"

namespace userintent::rpc {

// Message and serialised details together (contract section 3).
inline constexpr size_t kMaxErrorBytes = 4096;

// Every error carries either RetryInfo in its details or this trailer, never both, never neither.
inline constexpr char kPushbackTrailer[] = "grpc-retry-pushback-ms";
inline constexpr char kPushbackNever[] = "-1";

struct RpcError {
  grpc::Status status;
  bool pushback_never = false;  // send the trailer
};

RpcError ToRpcError(const usecase::CallError& error);

}  // namespace userintent::rpc
