#include "server/net/address.h"

#include <netinet/in.h>

#include <cstring>

namespace userintent::net {

AddressKind ClassifyAddress(const sockaddr* address, socklen_t length) {
  IpAddress ip;
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof(in));
    ip.size = 4;
    std::memcpy(ip.bytes.data(), &in.sin_addr, 4);
    return UpstreamKind(ip);
  }
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in6;
    std::memcpy(&in6, address, sizeof(in6));
    ip.size = 16;
    std::memcpy(ip.bytes.data(), &in6.sin6_addr, 16);
    return UpstreamKind(ip);
  }
  return AddressKind::kUnusable;
}

bool AddressAllowed(AddressKind kind, bool allow_private, bool loopback_ok) {
  switch (kind) {
    case AddressKind::kPublic:
      return true;
    case AddressKind::kLoopback:
      return loopback_ok || allow_private;
    case AddressKind::kPrivate:
      return allow_private;
    case AddressKind::kUnusable:
      return false;
  }
  return false;
}

}  // namespace userintent::net
