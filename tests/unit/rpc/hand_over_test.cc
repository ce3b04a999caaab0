// Which connection a TLS session is of: made while the connection is handed over, or later by another thread.
#include "server/rpc/hand_over.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <thread>

namespace userintent::rpc {
namespace {

using Context = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;
using Session = std::unique_ptr<SSL, decltype(&SSL_free)>;

Context NewContext() { return {SSL_CTX_new(TLS_server_method()), SSL_CTX_free}; }

class HandOverTest : public ::testing::Test {
 protected:
  HandOverTest() { HandOver::WatchContext(watched_.get()); }

  Session NewSession() { return {SSL_new(watched_.get()), SSL_free}; }

  Context watched_ = NewContext();
};

std::string AddressOf(const Session& session) {
  const Connection* const from = HandOver::Of(session.get());
  return from == nullptr ? "nobody" : from->address;
}

TEST_F(HandOverTest, ASessionMadeAtOnceIsOfTheConnectionThatIsHandedOver) {
  Session first(nullptr, SSL_free), second(nullptr, SSL_free);
  {
    const HandOver scope({7, "192.0.2.1:1", false});
    first = NewSession();
    second = NewSession();
  }
  ASSERT_EQ(AddressOf(first), "192.0.2.1:1");
  EXPECT_EQ(HandOver::Of(first.get())->fd, 7);
  EXPECT_FALSE(HandOver::Of(first.get())->probe);
  EXPECT_EQ(AddressOf(second), "nobody") << "one connection, one session";
  EXPECT_EQ(AddressOf(NewSession()), "nobody");
}

TEST_F(HandOverTest, ASessionMadeLaterByAnotherThreadIsWaitedFor) {
  for (int i = 0; i < 100; ++i) {
    const std::string address = "192.0.2.2:" + std::to_string(i);
    Session session(nullptr, SSL_free);
    std::thread maker;
    {
      const HandOver scope({i, address, true});
      maker = std::thread([&] { session = NewSession(); });
    }
    maker.join();
    ASSERT_EQ(AddressOf(session), address);
    ASSERT_TRUE(HandOver::Of(session.get())->probe);
  }
}

TEST_F(HandOverTest, SessionsOfOtherContextsAreLeftAlone) {
  const Context other = NewContext();
  const HandOver scope({1, "192.0.2.3:1", false});
  const Session foreign(SSL_new(other.get()), SSL_free);
  EXPECT_EQ(AddressOf(foreign), "nobody");
  EXPECT_EQ(AddressOf(NewSession()), "192.0.2.3:1");
}

TEST_F(HandOverTest, WhenASessionIsMissingNobodyIsTakenForAnother) {
  { const HandOver scope({1, "192.0.2.4:1", false}); }  // gives up
  {
    const HandOver scope({2, "192.0.2.4:2", false});
    EXPECT_EQ(AddressOf(NewSession()), "nobody") << "of the first or of the second";
  }
  {
    const HandOver scope({3, "192.0.2.4:3", false});
    EXPECT_EQ(AddressOf(NewSession()), "nobody");
    EXPECT_EQ(AddressOf(NewSession()), "nobody");
  }
  const HandOver scope({4, "192.0.2.4:4", false});
  EXPECT_EQ(AddressOf(NewSession()), "192.0.2.4:4") << "none is missing any more";
}

}  // namespace
}  // namespace userintent::rpc
