// Messages to and from the raw bytes that methods are registered on (see unary_call.h). Pure functions; any thread.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "server/intent/strict_parse.h"

namespace userintent::rpc {

// `bytes` are let go of, and overwritten: they may be a person. What was parsed of a person before a problem was found
// is overwritten, too.
intent::WireProblem FromRaw(grpc::ByteBuffer& bytes, google::protobuf::Message* message);

grpc::ByteBuffer ToRaw(const google::protobuf::Message& message);

}  // namespace userintent::rpc
