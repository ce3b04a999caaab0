// How the gRPC server listens: credentials, limits and reflection.
//
// Used by server.cc before the server is built; not thread-safe.
#pragma once

#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>

#include "server/tls/files.h"

namespace userintent::rpc {

// Headers of one call: names, values and 32 bytes for each, as HTTP/2 counts them. Room for the longest token, baggage
// and trace that proxies let pass (they stop at 60 KiB or less). libgrpc's own default is 8 KiB.
inline constexpr int kMaxMetadataBytes = 64 * 1024;

// A peer whose TLS handshake and HTTP/2 preface take longer is let go.
inline constexpr std::chrono::milliseconds kHandshakeTimeout{5000};

// mTLS: a client without a certificate that one of the authorities vouches for does not get past the handshake. Which
// certificate and which authorities those are, each handshake learns by itself (tls_watch.h); what is current now only
// makes libgrpc's context.
std::shared_ptr<grpc::ServerCredentials> MutualTls(const tls::Files& tls);

// The limits that hold for every connection, and whether reflection is served. Linking libgrpc++_reflection switches
// reflection on for every server of the process; without `reflection` the plugin is taken out again. A connection is
// ended when it is `max_age` old (libgrpc makes that 90 to 110 percent of it), so that its peer shows its certificate
// again.
void ConfigureBuilder(grpc::ServerBuilder& builder, bool reflection,
                      std::chrono::milliseconds max_age = std::chrono::minutes(30));

}  // namespace userintent::rpc
