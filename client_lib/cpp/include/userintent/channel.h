// The settings of the connection, for callers who make their own gRPC channel and give it to ClientOptions::channel, or
// use the generated stub without the client.
//
// Any thread may call this.
#pragma once

#include "grpcpp/support/channel_arguments.h"

namespace userintent {

// Keepalive, reconnection and size limits that fit the gateway's, with gRPC's own retries off. Credentials are apart.
grpc::ChannelArguments ChannelArguments();

}  // namespace userintent
