// ip_ranges: the address blocks that no end user's device on the public Internet can have, as the IANA registries list
// them. Constant tables and pure functions; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace userintent::intent {

// An address as its bytes on the wire, the first `size` (4 or 16) of them.
struct IpAddress {
  std::array<uint8_t, 16> bytes{};
  int size = 0;
};

struct IpRange {
  std::array<uint16_t, 8> groups;  // IPv6: the eight groups. IPv4: four bytes, one a group
  int prefix;                      // leading bits that are fixed
  std::string_view name;           // as the registry calls it
};

// In the order of the registries.
std::span<const IpRange> SpecialPurposeIpv4();
std::span<const IpRange> SpecialPurposeIpv6();

// Dotted quad without leading zeros, or IPv6 text without zone and brackets; nothing else parses.
std::optional<IpAddress> ParseIp(std::string_view text);

// The registry's name of the first block that holds the address; empty for a public address.
std::string_view SpecialPurposeName(const IpAddress& address);

}  // namespace userintent::intent
