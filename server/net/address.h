// The kind of a resolved address, and whether the clients may connect to it: a name that resolves to a machine inside
// must not lead the gateway there.
//
// Pure functions; any thread.
#pragma once

#include <sys/socket.h>

#include "server/net/ip_address.h"

namespace userintent::net {

// UpstreamKind() of a socket address. A family other than IPv4 and IPv6 is kUnusable.
AddressKind ClassifyAddress(const sockaddr* address, socklen_t length);

// Whether the upstream may have an address of this kind. `allow_private` (the flag --allow_private_upstream) admits
// kPrivate and kLoopback; `loopback_ok` (the origin names a loopback host) admits kLoopback alone. kUnusable is never
// admitted.
bool AddressAllowed(AddressKind kind, bool allow_private, bool loopback_ok);

}  // namespace userintent::net
