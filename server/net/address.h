// What kind of network address a host name resolved to, so that the upstream cannot be pointed at a machine inside.
//
// Pure functions; any thread.
#pragma once

#include <sys/socket.h>

#include "server/net/ip_address.h"

namespace userintent::net {

// IPv6 addresses that only carry an IPv4 one (mapped, NAT64) count as what they carry. A family other than IPv4 and
// IPv6 is kUnusable.
AddressKind ClassifyAddress(const sockaddr* address, socklen_t length);

// `allow_private` opens kPrivate and kLoopback, `loopback_ok` (the host was given as loopback) kLoopback alone; nothing
// opens kUnusable.
bool AddressAllowed(AddressKind kind, bool allow_private, bool loopback_ok);

}  // namespace userintent::net
