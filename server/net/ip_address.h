// ip_address: address literals, and the one table of special addresses, as the IANA registries list them. Two questions
// are asked of it: can an end user's device have this address (IsDeviceAddress), and what would a connection to it
// reach (UpstreamKind)? Some addresses are public and yet no device's: those of anycast services such as AS112.
//
// Constant tables and pure functions; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace userintent::net {

// An address as its bytes on the wire, the first `size` (4 or 16) of them.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};
  int size = 0;
};

// What a connection to the address would reach.
enum class AddressKind {
  kPublic,    // globally reachable unicast
  kLoopback,  // 127.0.0.0/8, ::1
  kPrivate,   // every other special-purpose unicast range: private, link-local, shared (CGNAT), documentation, ...
  kUnusable,  // no unicast destination, or one that the kernel quietly turns into loopback: 0.0.0.0/8, ::, multicast
};

struct IpRange {
  std::array<uint16_t, 8> groups;  // IPv6: the eight groups. IPv4: four bytes, one a group
  int prefix;                      // leading bits that are fixed
  std::string_view name;           // as the registry calls it
  AddressKind kind = AddressKind::kPrivate;
};

// In the order of the registries; the first that holds an address counts.
std::span<const IpRange> SpecialPurposeIpv4();
std::span<const IpRange> SpecialPurposeIpv6();

// Dotted quad without leading zeros, or IPv6 text without zone and brackets; nothing else parses.
std::optional<IpAddress> ParseIp(std::string_view text);

// The registry's name of the first block that holds the address; empty for a public address.
std::string_view SpecialPurposeName(const IpAddress& address);

// ::ffff:a.b.c.d: the form in which a dual-stack socket shows an IPv4 peer.
bool IsIpv4Mapped(const IpAddress& address);

// Whether an end user's device on the public Internet can have the address: no block holds it.
bool IsDeviceAddress(const IpAddress& address);

// The address's kind by the table above. An IPv6 address that only carries an IPv4 one (mapped, NAT64) has the kind of
// that one.
AddressKind UpstreamKind(const IpAddress& address);

}  // namespace userintent::net
