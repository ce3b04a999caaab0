#include "server/http/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdint>
#include <cstring>

namespace userintent::http {
namespace {

struct Range4 {
  uint32_t base;
  int bits;
  AddressKind kind;
};

// The IANA IPv4 special-purpose registry. First match wins.
constexpr Range4 kRanges4[] = {
    {0x00000000, 8, AddressKind::kUnusable},  // 0.0.0.0/8, this host: Linux connects 0.0.0.0 to loopback
    {0x0A000000, 8, AddressKind::kPrivate},   // 10.0.0.0/8
    {0x64400000, 10, AddressKind::kPrivate},  // 100.64.0.0/10, shared address space
    {0x7F000000, 8, AddressKind::kLoopback},  // 127.0.0.0/8
    {0xA9FE0000, 16, AddressKind::kPrivate},  // 169.254.0.0/16, link-local, also cloud metadata services
    {0xAC100000, 12, AddressKind::kPrivate},  // 172.16.0.0/12
    {0xC0000000, 24, AddressKind::kPrivate},  // 192.0.0.0/24, protocol assignments
    {0xC0000200, 24, AddressKind::kPrivate},  // 192.0.2.0/24, documentation
    {0xC0586300, 24, AddressKind::kPrivate},  // 192.88.99.0/24, former 6to4 relays
    {0xC0A80000, 16, AddressKind::kPrivate},  // 192.168.0.0/16
    {0xC6120000, 15, AddressKind::kPrivate},  // 198.18.0.0/15, benchmarking
    {0xC6336400, 24, AddressKind::kPrivate},  // 198.51.100.0/24, documentation
    {0xCB007100, 24, AddressKind::kPrivate},  // 203.0.113.0/24, documentation
    {0xE0000000, 4, AddressKind::kUnusable},  // 224.0.0.0/4, multicast
    {0xF0000000, 4, AddressKind::kUnusable},  // 240.0.0.0/4, reserved and broadcast
};

AddressKind Classify4(uint32_t address) {
  for (const Range4& range : kRanges4) {
    if ((address ^ range.base) >> (32 - range.bits) == 0) return range.kind;
  }
  return AddressKind::kPublic;
}

uint32_t Load32(const uint8_t* bytes) {
  return (uint32_t{bytes[0]} << 24) | (uint32_t{bytes[1]} << 16) | (uint32_t{bytes[2]} << 8) | uint32_t{bytes[3]};
}

AddressKind Classify6(const uint8_t* a) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  static constexpr uint8_t kNat64[12] = {0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0};
  static constexpr uint8_t kZero[15] = {};
  if (std::memcmp(a, kMapped, 12) == 0 || std::memcmp(a, kNat64, 12) == 0) return Classify4(Load32(a + 12));
  if (std::memcmp(a, kZero, 15) == 0) {
    if (a[15] == 1) return AddressKind::kLoopback;
    if (a[15] == 0) return AddressKind::kUnusable;
  }
  if (a[0] == 0xFF) return AddressKind::kUnusable;          // multicast
  if ((a[0] & 0xE0) != 0x20) return AddressKind::kPrivate;  // outside 2000::/3: unique local, link-local, reserved
  const uint32_t head = Load32(a);
  if (head >> 9 == 0x20010000u >> 9) return AddressKind::kPrivate;  // 2001::/23, protocol assignments (Teredo, ...)
  if (head == 0x20010DB8u) return AddressKind::kPrivate;            // 2001:db8::/32, documentation
  if (head >> 16 == 0x2002u) return AddressKind::kPrivate;          // 2002::/16, 6to4: may carry any IPv4 address
  if (head >> 12 == 0x3FFF0u) return AddressKind::kPrivate;         // 3fff::/20, documentation
  return AddressKind::kPublic;
}

}  // namespace

AddressKind ClassifyAddress(const sockaddr* address, socklen_t length) {
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof(in));
    return Classify4(ntohl(in.sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    sockaddr_in6 in6;
    std::memcpy(&in6, address, sizeof(in6));
    return Classify6(in6.sin6_addr.s6_addr);
  }
  return AddressKind::kUnusable;
}

bool AddressAllowed(AddressKind kind, bool allow_private, bool loopback_ok) {
  switch (kind) {
    case AddressKind::kPublic:
      return true;
    case AddressKind::kLoopback:
      return loopback_ok;
    case AddressKind::kPrivate:
      return allow_private;
    case AddressKind::kUnusable:
      return false;
  }
  return false;
}

}  // namespace userintent::http
