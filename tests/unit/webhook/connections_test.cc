#include "server/webhook/connections.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <chrono>
#include <deque>
#include <string>

namespace userintent::webhook {
namespace {

using Room = Connections::Room;
using std::chrono::seconds;

constexpr SteadyTime kStart{seconds(1000)};

class ConnectionsTest : public testing::Test {
 protected:
  Connection* New(const std::string& address, int second, Phase phase = Phase::kReading) {
    Connection& connection = all_.emplace_back();
    connection.address = address;
    connection.phase = phase;
    connection.since = kStart + seconds(second);
    connection.deadline = connection.since + seconds(10);
    return &connection;
  }

  std::deque<Connection> all_;
};

TEST_F(ConnectionsTest, BelowTheLimitsNobodyGoes) {
  Connections connections(2, 2);
  EXPECT_EQ(connections.Add(New("a", 0)).goes, nullptr);
  EXPECT_EQ(connections.Add(New("a", 1)).goes, nullptr);
}

TEST_F(ConnectionsTest, TheLongestSilenceGoes) {
  Connections connections(3, 3);
  connections.Add(New("a", 1));
  Connection* const oldest = New("b", 0);
  connections.Add(oldest);
  connections.Add(New("c", 2));
  const auto admission = connections.Add(New("d", 3));
  EXPECT_EQ(admission.room, Room::kFull);
  EXPECT_EQ(admission.goes, oldest);
}

TEST_F(ConnectionsTest, WhoBroughtAGoodSignatureGoesLast) {
  Connections connections(2, 2);
  Connection* const sender = New("a", 0, Phase::kIdle);
  sender->proven = true;
  Connection* const stranger = New("a", 1);
  connections.Add(sender);
  connections.Add(stranger);
  EXPECT_EQ(connections.Add(New("a", 2)).goes, stranger);
  stranger->cut = true;
  Connection* const newer = New("a", 3);
  newer->proven = true;
  // The one that came second is still there and no stranger of old.
  all_[2].phase = Phase::kAsking;
  EXPECT_EQ(connections.Add(newer).goes, sender);
}

TEST_F(ConnectionsTest, WhoIsBeingAnsweredStays) {
  Connections connections(2, 2);
  connections.Add(New("a", 0, Phase::kAsking));
  connections.Add(New("a", 1, Phase::kAnswering));
  Connection* const late = New("b", 2);
  EXPECT_EQ(connections.Add(late).goes, late);
}

TEST_F(ConnectionsTest, EachAddressHasItsOwnLimit) {
  Connections connections(10, 1);
  Connection* const first = New("a", 5);
  connections.Add(New("b", 0));
  connections.Add(first);
  const auto admission = connections.Add(New("a", 6));
  EXPECT_EQ(admission.room, Room::kAddressFull);
  EXPECT_EQ(admission.goes, first);
}

TEST_F(ConnectionsTest, WhoGoesHoldsNoPlace) {
  Connections connections(1, 1);
  Connection* const first = New("a", 0);
  connections.Add(first);
  first->cut = true;
  EXPECT_EQ(connections.Add(New("a", 1)).goes, nullptr);
}

TEST_F(ConnectionsTest, DeadlinesOfThoseThatStay) {
  Connections connections(9, 9);
  EXPECT_EQ(connections.NextDeadline(), SteadyTime::max());
  Connection* const first = New("a", 0);
  connections.Add(first);
  connections.Add(New("a", 1));
  EXPECT_EQ(connections.NextDeadline(), kStart + seconds(10));
  EXPECT_TRUE(connections.Late(kStart + seconds(9)).empty());
  EXPECT_EQ(connections.Late(kStart + seconds(10)), std::vector<Connection*>{first});
  first->cut = true;
  EXPECT_TRUE(connections.Late(kStart + seconds(10)).empty());
  EXPECT_EQ(connections.NextDeadline(), kStart + seconds(11));
  connections.Remove(first);
  EXPECT_EQ(connections.all().size(), 1U);
}

TEST(AddressKey, IsTheAddressOrItsNetwork) {
  const auto v4 = [](const char* text) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    inet_pton(AF_INET, text, &address.sin_addr);
    return AddressKey(reinterpret_cast<const sockaddr*>(&address));
  };
  const auto v6 = [](const char* text) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    inet_pton(AF_INET6, text, &address.sin6_addr);
    return AddressKey(reinterpret_cast<const sockaddr*>(&address));
  };
  EXPECT_NE(v4("192.0.2.1"), v4("192.0.2.2"));
  EXPECT_EQ(v6("::ffff:192.0.2.1"), v4("192.0.2.1"));
  EXPECT_EQ(v6("2001:db8::1"), v6("2001:db8::ffff:2"));
  EXPECT_NE(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
  EXPECT_EQ(AddressKey(nullptr), "");
}

}  // namespace
}  // namespace userintent::webhook
