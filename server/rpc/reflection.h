// gRPC's reflection service under its present name, grpc.reflection.v1.
//
// libgrpc++_reflection 1.51 serves the same messages as grpc.reflection.v1alpha only, which newer tools no longer ask;
// newer ones serve both. Both are served where reflection is on (ConfigureBuilder). A synchronous service, as that
// library's is: it runs on threads that libgrpc has for that one already, and never on a shard's.
#pragma once

#include <grpcpp/impl/service_type.h>

#include <memory>

namespace userintent::rpc {

// Registered with the builder and destroyed after the server. Null where libgrpc++_reflection serves that name, too.
std::unique_ptr<grpc::Service> NewReflectionService();

}  // namespace userintent::rpc
