#include "server/net/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <string>

namespace userintent::net {
namespace {

AddressKind Classify(const std::string& text) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  if (inet_pton(AF_INET, text.c_str(), &in.sin_addr) == 1) {
    return ClassifyAddress(reinterpret_cast<const sockaddr*>(&in), sizeof(in));
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  EXPECT_EQ(inet_pton(AF_INET6, text.c_str(), &in6.sin6_addr), 1) << text;
  return ClassifyAddress(reinterpret_cast<const sockaddr*>(&in6), sizeof(in6));
}

TEST(Address, RangesAreKnownUpToTheirEdges) {
  const struct {
    const char* text;
    AddressKind kind;
  } kCases[] = {
      {"0.0.0.0", AddressKind::kUnusable},
      {"0.255.255.255", AddressKind::kUnusable},
      {"1.0.0.0", AddressKind::kPublic},
      {"8.8.8.8", AddressKind::kPublic},
      {"9.255.255.255", AddressKind::kPublic},
      {"10.0.0.0", AddressKind::kPrivate},
      {"10.255.255.255", AddressKind::kPrivate},
      {"11.0.0.0", AddressKind::kPublic},
      {"100.63.255.255", AddressKind::kPublic},
      {"100.64.0.0", AddressKind::kPrivate},
      {"100.127.255.255", AddressKind::kPrivate},
      {"100.128.0.0", AddressKind::kPublic},
      {"126.255.255.255", AddressKind::kPublic},
      {"127.0.0.1", AddressKind::kLoopback},
      {"127.255.255.255", AddressKind::kLoopback},
      {"128.0.0.0", AddressKind::kPublic},
      {"169.254.169.254", AddressKind::kPrivate},
      {"169.253.255.255", AddressKind::kPublic},
      {"172.15.255.255", AddressKind::kPublic},
      {"172.16.0.0", AddressKind::kPrivate},
      {"172.31.255.255", AddressKind::kPrivate},
      {"172.32.0.0", AddressKind::kPublic},
      {"192.0.0.8", AddressKind::kPrivate},
      {"192.0.1.0", AddressKind::kPublic},
      {"192.0.2.1", AddressKind::kPrivate},
      {"192.88.99.1", AddressKind::kPrivate},
      {"192.168.0.1", AddressKind::kPrivate},
      {"192.169.0.0", AddressKind::kPublic},
      {"198.17.255.255", AddressKind::kPublic},
      {"198.19.255.255", AddressKind::kPrivate},
      {"198.51.100.7", AddressKind::kPrivate},
      {"203.0.113.7", AddressKind::kPrivate},
      {"223.255.255.255", AddressKind::kPublic},
      {"224.0.0.1", AddressKind::kUnusable},
      {"240.0.0.1", AddressKind::kUnusable},
      {"255.255.255.255", AddressKind::kUnusable},
      {"::", AddressKind::kUnusable},
      {"::1", AddressKind::kLoopback},
      {"::2", AddressKind::kPrivate},
      {"fe80::1", AddressKind::kPrivate},
      {"fc00::1", AddressKind::kPrivate},
      {"fdff::1", AddressKind::kPrivate},
      {"ff02::1", AddressKind::kUnusable},
      {"2001:4860:4860::8888", AddressKind::kPublic},
      {"2001:0::1", AddressKind::kPrivate},
      {"2001:1ff::1", AddressKind::kPrivate},
      {"2001:200::1", AddressKind::kPublic},
      {"2001:db8::1", AddressKind::kPrivate},
      {"2001:db9::1", AddressKind::kPublic},
      {"2002:a00:1::1", AddressKind::kPrivate},
      {"2003::1", AddressKind::kPublic},
      {"3fff:fff::1", AddressKind::kPrivate},
      {"3fff:1000::1", AddressKind::kPublic},
      {"4000::1", AddressKind::kPrivate},
      {"1fff::1", AddressKind::kPrivate},
      {"::ffff:8.8.8.8", AddressKind::kPublic},
      {"::ffff:127.0.0.1", AddressKind::kLoopback},
      {"::ffff:10.0.0.1", AddressKind::kPrivate},
      {"64:ff9b::8.8.8.8", AddressKind::kPublic},
      {"64:ff9b::127.0.0.1", AddressKind::kLoopback},
  };
  for (const auto& c : kCases) EXPECT_EQ(Classify(c.text), c.kind) << c.text;
}

TEST(Address, OtherFamiliesAndShortNamesAreUnusable) {
  sockaddr_in in{};
  in.sin_family = AF_UNIX;
  EXPECT_EQ(ClassifyAddress(reinterpret_cast<const sockaddr*>(&in), sizeof(in)), AddressKind::kUnusable);
  in.sin_family = AF_INET;
  EXPECT_EQ(ClassifyAddress(reinterpret_cast<const sockaddr*>(&in), 4), AddressKind::kUnusable);
}

TEST(Address, LoopbackAndPrivateAreOpenedSeparately) {
  EXPECT_TRUE(AddressAllowed(AddressKind::kPublic, false, false));
  EXPECT_FALSE(AddressAllowed(AddressKind::kPrivate, false, true));
  EXPECT_TRUE(AddressAllowed(AddressKind::kPrivate, true, false));
  EXPECT_TRUE(AddressAllowed(AddressKind::kLoopback, true, false));  // a side-car under a name of its own
  EXPECT_FALSE(AddressAllowed(AddressKind::kLoopback, false, false));
  EXPECT_TRUE(AddressAllowed(AddressKind::kLoopback, false, true));
  EXPECT_FALSE(AddressAllowed(AddressKind::kUnusable, true, true));
}

}  // namespace
}  // namespace userintent::net
