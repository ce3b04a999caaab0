// For every block: its first and last address, and the addresses just outside, written out by hand.
#include "server/net/ip_address.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace userintent::net {
namespace {

std::string NameOf(const std::string& text) {
  const auto address = ParseIp(text);
  if (!address.has_value()) return "does not parse";
  return std::string(SpecialPurposeName(*address));
}

struct Block {
  const char* first;
  const char* last;
  const char* before;  // just outside, where that is public
  const char* after;
  const char* name;
};

const Block kBlocks[] = {
    {"0.0.0.0", "0.255.255.255", nullptr, "1.0.0.0", "\"This network\""},
    {"10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0", "Private-Use"},
    {"100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0", "Shared Address Space"},
    {"127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0", "Loopback"},
    {"169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0", "Link Local"},
    {"172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0", "Private-Use"},
    {"192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0", "IETF Protocol Assignments"},
    {"192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0", "Documentation (TEST-NET-1)"},
    {"192.31.196.0", "192.31.196.255", "192.31.195.255", "192.31.197.0", "AS112-v4"},
    {"192.52.193.0", "192.52.193.255", "192.52.192.255", "192.52.194.0", "AMT"},
    {"192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0", "Deprecated (6to4 Relay Anycast)"},
    {"192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0", "Private-Use"},
    {"192.175.48.0", "192.175.48.255", "192.175.47.255", "192.175.49.0", "Direct Delegation AS112 Service"},
    {"198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0", "Benchmarking"},
    {"198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0", "Documentation (TEST-NET-2)"},
    {"203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0", "Documentation (TEST-NET-3)"},
    {"224.0.0.0", "239.255.255.255", "223.255.255.255", nullptr, "Multicast"},
    {"240.0.0.0", "255.255.255.255", nullptr, nullptr, "Reserved"},

    {"::1", "::1", nullptr, nullptr, "Loopback Address"},
    {"::", "::", nullptr, nullptr, "Unspecified Address"},
    {"::ffff:0.0.0.0", "::ffff:255.255.255.255", nullptr, nullptr, "IPv4-mapped Address"},
    {"::ffff:8.8.8.8", "::ffff:808:808", nullptr, nullptr, "IPv4-mapped Address"},
    {"::2", "::fffe:ffff:ffff", nullptr, nullptr, "Reserved by IETF"},
    {"64:ff9b::", "64:ff9b::ffff:ffff", nullptr, nullptr, "IPv4-IPv6 Translat."},
    {"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "IPv4-IPv6 Translat."},
    {"100::", "100::ffff:ffff:ffff:ffff", nullptr, nullptr, "Discard-Only Address Block"},
    {"100:0:0:1::", "100::1:ffff:ffff:ffff:ffff", nullptr, nullptr, "Dummy IPv6 Prefix"},
    {"100:0:0:2::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, "2000::", "Reserved by IETF"},
    {"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:200::", "IETF Protocol Assignments"},
    {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
     "2001:db9::", "Documentation"},
    {"2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::", "6to4"},
    {"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
     "2620:4f:8001::", "Direct Delegation AS112 Service"},
    {"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
     "3fff:1000::", "Documentation"},
    {"4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr,
     "Reserved by IETF"},
    {"5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Segment Routing (SRv6) SIDs"},
    {"5f01::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Reserved by IETF"},
    {"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Unique-Local"},
    {"fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Reserved by IETF"},
    {"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Link-Local Unicast"},
    {"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Reserved by IETF"},
    {"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", nullptr, nullptr, "Multicast"},
};

TEST(IpRanges, FirstLastAndJustOutside) {
  for (const Block& block : kBlocks) {
    EXPECT_EQ(NameOf(block.first), block.name) << block.first;
    EXPECT_EQ(NameOf(block.last), block.name) << block.last;
    if (block.before != nullptr) {
      EXPECT_EQ(NameOf(block.before), "") << block.before;
    }
    if (block.after != nullptr) {
      EXPECT_EQ(NameOf(block.after), "") << block.after;
    }
  }
}

// One table, two questions: what a device may have, the upstream may have too; not always the other way round.
TEST(IpRanges, WhatADeviceMayHaveIsPublicForTheUpstream) {
  for (const Block& block : kBlocks) {
    for (const char* text : {block.first, block.last, block.before, block.after}) {
      if (text == nullptr) continue;
      const IpAddress address = *ParseIp(text);
      EXPECT_EQ(IsDeviceAddress(address), SpecialPurposeName(address).empty()) << text;
      if (IsDeviceAddress(address)) {
        EXPECT_EQ(UpstreamKind(address), AddressKind::kPublic) << text;
      }
    }
  }
  for (const char* text : {"192.31.196.1", "192.52.193.1", "192.175.48.1", "2620:4f:8000::1"}) {
    EXPECT_FALSE(IsDeviceAddress(*ParseIp(text))) << text;
    EXPECT_EQ(UpstreamKind(*ParseIp(text)), AddressKind::kPublic) << text;
  }
}

TEST(IpRanges, OrdinaryAddressesArePublic) {
  for (const char* text : {"8.8.8.8", "1.1.1.1", "73.1.2.3", "100.0.0.1", "172.64.0.1", "192.167.1.1", "198.20.1.1",
                           "2a00:1450:4001:81b::200e", "2600::1", "2001:4860:4860::8888", "2400:cb00::1"}) {
    EXPECT_EQ(NameOf(text), "") << text;
  }
}

// Everything outside 2000::/3 has a name: no gap between the reserved blocks.
TEST(IpRanges, OnlyGlobalUnicastIpv6CanBePublic) {
  for (uint32_t group = 0; group <= 0xffff; ++group) {
    IpAddress address;
    address.size = 16;
    address.bytes = {static_cast<uint8_t>(group >> 8), static_cast<uint8_t>(group & 0xff), 0x12, 0x34, 0x56};
    const bool global_unicast = group >= 0x2000 && group <= 0x3fff;
    if (!global_unicast) {
      EXPECT_NE(SpecialPurposeName(address), "") << std::hex << group;
    }
    if (global_unicast && group != 0x2002 && group != 0x2001) {
      EXPECT_EQ(SpecialPurposeName(address), "") << std::hex << group;
    }
  }
}

// A bit set behind the prefix would be a row that holds something else than it says.
TEST(IpRanges, RowsAreWellFormed) {
  const auto check = [](const IpRange& range, int width, size_t count) {
    EXPECT_GE(range.prefix, 3);
    EXPECT_LE(range.prefix, width * static_cast<int>(count));
    EXPECT_FALSE(range.name.empty());
    for (int bit = 0; bit < width * static_cast<int>(count); ++bit) {
      const auto group = range.groups[static_cast<size_t>(bit / width)];
      if (bit >= range.prefix) {
        EXPECT_EQ(group >> (width - 1 - bit % width) & 1, 0) << range.name;
      }
    }
    for (size_t i = 0; i < range.groups.size(); ++i) {
      if (i >= count) {
        EXPECT_EQ(range.groups[i], 0);
      }
      if (width == 8) {
        EXPECT_LE(range.groups[i], 255);
      }
    }
  };
  for (const IpRange& range : SpecialPurposeIpv4()) check(range, 8, 4);
  for (const IpRange& range : SpecialPurposeIpv6()) check(range, 16, 8);
}

TEST(IpRanges, OnlyPlainAddressesParse) {
  for (const char* text : {"0.0.0.0", "255.255.255.255", "1.2.3.4", "::", "1::", "1:2:3:4:5:6:7:8", "ABCD:ef::1",
                           "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"}) {
    EXPECT_TRUE(ParseIp(text).has_value()) << text;
  }
  for (const std::string& text : {std::string(),
                                  std::string("1.2.3"),
                                  std::string("1.2.3.4.5"),
                                  std::string("1.2.3.256"),
                                  std::string("01.2.3.4"),
                                  std::string("1.2.3.04"),
                                  std::string("0x1.2.3.4"),
                                  std::string("16909060"),
                                  std::string(" 1.2.3.4"),
                                  std::string("1.2.3.4 "),
                                  std::string("1.2.3.4\n"),
                                  std::string("1.2.3.4/32"),
                                  std::string("1.2.3.-4"),
                                  std::string("1.2.3.4\0", 8),
                                  std::string("1.2.3.4\0x", 9),
                                  std::string("8.8.8.8\xd9\xa0"),
                                  std::string(":"),
                                  std::string(":::"),
                                  std::string("1::2::3"),
                                  std::string("1:2:3:4:5:6:7"),
                                  std::string("1:2:3:4:5:6:7:8:9"),
                                  std::string("12345::"),
                                  std::string("g::"),
                                  std::string("fe80::1%eth0"),
                                  std::string("fe80::1%1"),
                                  std::string("[2600::1]"),
                                  std::string("2600::1/64"),
                                  std::string("::1\0", 4),
                                  std::string(200, '1'),
                                  std::string(200, ':')}) {
    EXPECT_FALSE(ParseIp(text).has_value()) << text;
  }
}

TEST(IpAddress, Ipv4Mapped) {
  EXPECT_TRUE(IsIpv4Mapped(*ParseIp("::ffff:8.8.8.8")));
  EXPECT_TRUE(IsIpv4Mapped(*ParseIp("::FFFF:808:808")));
  for (const char* text : {"8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "::fffe:8.8.8.8", "1::ffff:8.8.8.8"}) {
    EXPECT_FALSE(IsIpv4Mapped(*ParseIp(text))) << text;
  }
}

}  // namespace
}  // namespace userintent::net
