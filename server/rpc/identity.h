// Who calls: the name in the client certificate (contract section 2). Never a header.
//
// Pure; any thread.
#pragma once

#include <grpcpp/security/auth_context.h>

#include <optional>
#include <string>

namespace userintent::rpc {

// The caller on a connection without TLS.
inline constexpr char kLocalCaller[] = "local";

// The certificate's only URI SAN, else its first DNS SAN; nothing when there is neither, when there are several URI
// SANs (SPIFFE allows one: with two, which one speaks?), or when the name is not 1-512 printable ASCII characters.
// URI and DNS names never collide. `require_tls`: the listener has TLS, so a connection without a peer identity has
// none.
std::optional<std::string> CallerOf(const grpc::AuthContext& context, bool require_tls);

}  // namespace userintent::rpc
