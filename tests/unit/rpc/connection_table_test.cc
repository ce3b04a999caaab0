#include "server/rpc/connection_table.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace userintent::rpc {
namespace {

using Verdict = ConnectionTable::Verdict;

sockaddr_storage Address(const std::string& text) {
  sockaddr_storage address{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    address.ss_family = AF_INET;
  } else {
    EXPECT_EQ(inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr), 1) << text;
    address.ss_family = AF_INET6;
  }
  return address;
}

std::string Place(const std::string& text) { return PlaceOf(Address(text)); }

int Socket() { return socket(AF_INET, SOCK_STREAM, 0); }

TEST(PlaceOf, OneV4AddressAndOneV6NetworkAreAPlace) {
  EXPECT_EQ(Place("192.0.2.1"), Place("::ffff:192.0.2.1"));
  EXPECT_NE(Place("192.0.2.1"), Place("192.0.2.2"));
  EXPECT_EQ(Place("2001:db8::1"), Place("2001:db8::ffff:1"));
  EXPECT_NE(Place("2001:db8::1"), Place("2001:db8:0:1::1"));
}

// What is taken in without a place, as the server's own probe, comes from the server's very address. A neighbour in its
// IPv6 network is somebody else.
TEST(SameAddress, ANeighbourIsNotTheMachineItself) {
  const auto same = [](const char* a, const char* b) { return SameAddress(Address(a), Address(b)); };
  EXPECT_TRUE(same("192.0.2.1", "192.0.2.1"));
  EXPECT_TRUE(same("192.0.2.1", "::ffff:192.0.2.1"));
  EXPECT_TRUE(same("::ffff:192.0.2.1", "::ffff:192.0.2.1"));
  EXPECT_TRUE(same("2001:db8::1", "2001:db8::1"));
  EXPECT_FALSE(same("192.0.2.1", "192.0.2.2"));
  EXPECT_FALSE(same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
  EXPECT_FALSE(same("2001:db8::1", "2001:db8::2"));
}

TEST(ConnectionTable, ThereAreSoManyPlacesInAllAndForOneAddress) {
  ConnectionTable table(5, 3);
  std::vector<int> open;
  const auto come = [&](const char* from) {
    open.push_back(Socket());
    return table.Admit(open.back(), from);
  };
  for (int i = 0; i < 3; ++i) EXPECT_EQ(come("a"), Verdict::kAdmitted);
  EXPECT_EQ(come("a"), Verdict::kPlaceFull);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(come("b"), Verdict::kAdmitted);
  EXPECT_EQ(come("b"), Verdict::kFull);
  EXPECT_EQ(table.size(), 5);
  for (const int fd : open) close(fd);
  table.Sweep();
  EXPECT_EQ(table.size(), 0);
}

TEST(ConnectionTable, AClosedConnectionIsNoticedThoughNobodyTells) {
  ConnectionTable table(2, 2);
  const int one = Socket();
  const int two = Socket();
  ASSERT_EQ(table.Admit(one, "a"), Verdict::kAdmitted);
  ASSERT_EQ(table.Admit(two, "a"), Verdict::kAdmitted);
  close(two);
  table.Sweep();
  EXPECT_EQ(table.size(), 1);
  close(one);
  table.Sweep();
  EXPECT_EQ(table.size(), 0);
}

TEST(ConnectionTable, ANumberThatIsUsedAgainIsAnotherConnection) {
  ConnectionTable table(2, 2);
  const int first = Socket();
  ASSERT_EQ(table.Admit(first, "a"), Verdict::kAdmitted);
  close(first);
  const int again = Socket();
  ASSERT_EQ(again, first);
  EXPECT_EQ(table.Admit(again, "b"), Verdict::kAdmitted);
  EXPECT_EQ(table.size(), 1);
  // Something of the process's own has the number now.
  close(again);
  const int other = Socket();
  ASSERT_EQ(other, again);
  table.Sweep();
  EXPECT_EQ(table.size(), 0);
  close(other);
}

TEST(ConnectionTable, AFullTableLooksForClosedOnesBeforeItRefuses) {
  ConnectionTable table(1, 1);
  const int first = Socket();
  const int second = Socket();
  ASSERT_EQ(table.Admit(first, "a"), Verdict::kAdmitted);
  close(first);
  EXPECT_EQ(table.Admit(second, "a"), Verdict::kAdmitted);
  close(second);
}

}  // namespace
}  // namespace userintent::rpc
