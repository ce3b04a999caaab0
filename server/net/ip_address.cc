#include "server/net/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace userintent::net {
namespace {

constexpr AddressKind kPublic = AddressKind::kPublic;
constexpr AddressKind kLoopback = AddressKind::kLoopback;
constexpr AddressKind kUnusable = AddressKind::kUnusable;

// "IANA IPv4 Special-Purpose Address Registry" in full, then the multicast block, which has a registry of its own. Rows
// that the registry calls globally reachable (anycast services, AS112, AMT) stay in: they are services, not end users.
constexpr IpRange kIpv4[] = {
    {{0, 0, 0, 0}, 8, "\"This network\"", kUnusable},
    {{0, 0, 0, 0}, 32, "\"This host on this network\"", kUnusable},
    {{10, 0, 0, 0}, 8, "Private-Use"},
    {{100, 64, 0, 0}, 10, "Shared Address Space"},
    {{127, 0, 0, 0}, 8, "Loopback", kLoopback},
    {{169, 254, 0, 0}, 16, "Link Local"},
    {{172, 16, 0, 0}, 12, "Private-Use"},
    {{192, 0, 0, 0}, 24, "IETF Protocol Assignments"},
    {{192, 0, 0, 0}, 29, "IPv4 Service Continuity Prefix"},
    {{192, 0, 0, 8}, 32, "IPv4 dummy address"},
    {{192, 0, 0, 9}, 32, "Port Control Protocol Anycast"},
    {{192, 0, 0, 10}, 32, "Traversal Using Relays around NAT Anycast"},
    {{192, 0, 0, 170}, 32, "NAT64/DNS64 Discovery"},
    {{192, 0, 0, 171}, 32, "NAT64/DNS64 Discovery"},
    {{192, 0, 2, 0}, 24, "Documentation (TEST-NET-1)"},
    {{192, 31, 196, 0}, 24, "AS112-v4", kPublic},
    {{192, 52, 193, 0}, 24, "AMT", kPublic},
    {{192, 88, 99, 0}, 24, "Deprecated (6to4 Relay Anycast)"},
    {{192, 88, 99, 2}, 32, "6a44-relay anycast address"},
    {{192, 168, 0, 0}, 16, "Private-Use"},
    {{192, 175, 48, 0}, 24, "Direct Delegation AS112 Service", kPublic},
    {{198, 18, 0, 0}, 15, "Benchmarking"},
    {{198, 51, 100, 0}, 24, "Documentation (TEST-NET-2)"},
    {{203, 0, 113, 0}, 24, "Documentation (TEST-NET-3)"},
    {{240, 0, 0, 0}, 4, "Reserved", kUnusable},
    {{255, 255, 255, 255}, 32, "Limited Broadcast", kUnusable},
    {{224, 0, 0, 0}, 4, "Multicast", kUnusable},
};

// "IANA IPv6 Special-Purpose Address Registry" in full. IPv4-mapped text is refused even for a public IPv4 address: the
// value goes to Astra as given, and the form belongs to a socket interface, not to a device.
// Then what "Internet Protocol Version 6 Address Space" keeps outside the global unicast block 2000::/3.
constexpr IpRange kIpv6[] = {
    {{0, 0, 0, 0, 0, 0, 0, 1}, 128, "Loopback Address", kLoopback},
    {{0, 0, 0, 0, 0, 0, 0, 0}, 128, "Unspecified Address", kUnusable},
    {{0, 0, 0, 0, 0, 0xffff, 0, 0}, 96, "IPv4-mapped Address"},
    {{0x64, 0xff9b, 0, 0, 0, 0, 0, 0}, 96, "IPv4-IPv6 Translat."},
    {{0x64, 0xff9b, 1, 0, 0, 0, 0, 0}, 48, "IPv4-IPv6 Translat."},
    {{0x100, 0, 0, 0, 0, 0, 0, 0}, 64, "Discard-Only Address Block"},
    {{0x100, 0, 0, 1, 0, 0, 0, 0}, 64, "Dummy IPv6 Prefix"},
    {{0x2001, 0, 0, 0, 0, 0, 0, 0}, 23, "IETF Protocol Assignments"},
    {{0x2001, 0, 0, 0, 0, 0, 0, 0}, 32, "TEREDO"},
    {{0x2001, 1, 0, 0, 0, 0, 0, 1}, 128, "Port Control Protocol Anycast"},
    {{0x2001, 1, 0, 0, 0, 0, 0, 2}, 128, "Traversal Using Relays around NAT Anycast"},
    {{0x2001, 1, 0, 0, 0, 0, 0, 3}, 128, "DNS-SD Service Registration Protocol Anycast"},
    {{0x2001, 2, 0, 0, 0, 0, 0, 0}, 48, "Benchmarking"},
    {{0x2001, 3, 0, 0, 0, 0, 0, 0}, 32, "AMT"},
    {{0x2001, 4, 0x112, 0, 0, 0, 0, 0}, 48, "AS112-v6"},
    {{0x2001, 0x10, 0, 0, 0, 0, 0, 0}, 28, "Deprecated (previously ORCHID)"},
    {{0x2001, 0x20, 0, 0, 0, 0, 0, 0}, 28, "ORCHIDv2"},
    {{0x2001, 0x30, 0, 0, 0, 0, 0, 0}, 28, "Drone Remote ID Protocol Entity Tags (DETs) Prefix"},
    {{0x2001, 0xdb8, 0, 0, 0, 0, 0, 0}, 32, "Documentation"},
    {{0x2002, 0, 0, 0, 0, 0, 0, 0}, 16, "6to4"},
    {{0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0}, 48, "Direct Delegation AS112 Service", kPublic},
    {{0x3fff, 0, 0, 0, 0, 0, 0, 0}, 20, "Documentation"},
    {{0x5f00, 0, 0, 0, 0, 0, 0, 0}, 16, "Segment Routing (SRv6) SIDs"},
    {{0xfc00, 0, 0, 0, 0, 0, 0, 0}, 7, "Unique-Local"},
    {{0xfe80, 0, 0, 0, 0, 0, 0, 0}, 10, "Link-Local Unicast"},
    {{0x0000, 0, 0, 0, 0, 0, 0, 0}, 8, "Reserved by IETF"},
    {{0x0100, 0, 0, 0, 0, 0, 0, 0}, 8, "Reserved by IETF"},
    {{0x0200, 0, 0, 0, 0, 0, 0, 0}, 7, "Reserved by IETF"},
    {{0x0400, 0, 0, 0, 0, 0, 0, 0}, 6, "Reserved by IETF"},
    {{0x0800, 0, 0, 0, 0, 0, 0, 0}, 5, "Reserved by IETF"},
    {{0x1000, 0, 0, 0, 0, 0, 0, 0}, 4, "Reserved by IETF"},
    {{0x4000, 0, 0, 0, 0, 0, 0, 0}, 3, "Reserved by IETF"},
    {{0x6000, 0, 0, 0, 0, 0, 0, 0}, 3, "Reserved by IETF"},
    {{0x8000, 0, 0, 0, 0, 0, 0, 0}, 3, "Reserved by IETF"},
    {{0xa000, 0, 0, 0, 0, 0, 0, 0}, 3, "Reserved by IETF"},
    {{0xc000, 0, 0, 0, 0, 0, 0, 0}, 3, "Reserved by IETF"},
    {{0xe000, 0, 0, 0, 0, 0, 0, 0}, 4, "Reserved by IETF"},
    {{0xf000, 0, 0, 0, 0, 0, 0, 0}, 5, "Reserved by IETF"},
    {{0xf800, 0, 0, 0, 0, 0, 0, 0}, 6, "Reserved by IETF"},
    {{0xfe00, 0, 0, 0, 0, 0, 0, 0}, 9, "Reserved by IETF"},
    {{0xfec0, 0, 0, 0, 0, 0, 0, 0}, 10, "Reserved by IETF"},  // once Site-Local Unicast
    {{0xff00, 0, 0, 0, 0, 0, 0, 0}, 8, "Multicast", kUnusable},
};

// Groups are `width` bits wide and numbered from the left.
bool Holds(const IpRange& range, const std::array<uint16_t, 8>& groups, int width) {
  int bits = range.prefix;
  for (size_t i = 0; bits > 0; ++i, bits -= width) {
    const unsigned differing = static_cast<unsigned>(range.groups[i] ^ groups[i]);
    if (bits >= width ? differing != 0 : differing >> (width - bits) != 0) return false;
  }
  return true;
}

const IpRange* FirstHolding(const IpAddress& address) {
  std::array<uint16_t, 8> groups{};
  const bool v4 = address.size == 4;
  for (size_t i = 0; i < (v4 ? 4 : 8); ++i) {
    groups[i] = v4 ? address.bytes[i] : static_cast<uint16_t>(address.bytes[2 * i] << 8 | address.bytes[2 * i + 1]);
  }
  for (const IpRange& range : v4 ? SpecialPurposeIpv4() : SpecialPurposeIpv6()) {
    if (Holds(range, groups, v4 ? 8 : 16)) return &range;
  }
  return nullptr;
}

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};    // ::ffff:0:0/96
constexpr std::array<uint8_t, 12> kNat64 = {0, 0x64, 0xFF, 0x9B, 0, 0, 0, 0, 0, 0, 0, 0};  // 64:ff9b::/96

bool Begins(const IpAddress& address, const std::array<uint8_t, 12>& prefix) {
  return address.size == 16 && std::equal(prefix.begin(), prefix.end(), address.bytes.begin());
}

// The IPv4 address that an IPv6 address merely carries.
std::optional<IpAddress> CarriedIpv4(const IpAddress& address) {
  if (!Begins(address, kMapped) && !Begins(address, kNat64)) return std::nullopt;
  IpAddress carried;
  carried.size = 4;
  std::memcpy(carried.bytes.data(), &address.bytes[12], 4);
  return carried;
}

}  // namespace

std::span<const IpRange> SpecialPurposeIpv4() { return kIpv4; }
std::span<const IpRange> SpecialPurposeIpv6() { return kIpv6; }

std::optional<IpAddress> ParseIp(std::string_view text) {
  char terminated[INET6_ADDRSTRLEN];
  // A NUL inside would hide the rest from inet_pton.
  if (text.size() >= sizeof terminated || text.find('\0') != text.npos) return std::nullopt;
  std::memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  IpAddress address;
  const bool v6 = text.find(':') != text.npos;
  address.size = v6 ? 16 : 4;
  if (inet_pton(v6 ? AF_INET6 : AF_INET, terminated, address.bytes.data()) != 1) return std::nullopt;
  return address;
}

std::string_view SpecialPurposeName(const IpAddress& address) {
  const IpRange* const range = FirstHolding(address);
  return range == nullptr ? std::string_view() : range->name;
}

bool IsIpv4Mapped(const IpAddress& address) { return Begins(address, kMapped); }

bool IsDeviceAddress(const IpAddress& address) { return FirstHolding(address) == nullptr; }

AddressKind UpstreamKind(const IpAddress& address) {
  if (const std::optional<IpAddress> carried = CarriedIpv4(address)) return UpstreamKind(*carried);
  const IpRange* const range = FirstHolding(address);
  return range == nullptr ? AddressKind::kPublic : range->kind;
}

}  // namespace userintent::net
