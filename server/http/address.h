// What kind of network address a host name resolved to, so that the upstream cannot be pointed at a machine inside.
//
// Pure functions; any thread.
#pragma once

#include <sys/socket.h>

namespace userintent::http {

enum class AddressKind {
  kPublic,    // globally routable unicast
  kLoopback,  // 127.0.0.0/8, ::1
  kPrivate,   // every other special-purpose unicast range: private, link-local, shared (CGNAT), documentation, ...
  kUnusable,  // no unicast destination, or one that the kernel quietly turns into loopback: 0.0.0.0/8, ::, multicast
};

// IPv6 addresses that only carry an IPv4 one (mapped, NAT64) count as what they carry. A family other than IPv4 and
// IPv6 is kUnusable.
AddressKind ClassifyAddress(const sockaddr* address, socklen_t length);

// Loopback is decided by `loopback_ok` alone; `allow_private` opens kPrivate; nothing opens kUnusable.
bool AddressAllowed(AddressKind kind, bool allow_private, bool loopback_ok);

}  // namespace userintent::http
