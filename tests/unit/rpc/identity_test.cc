// Who a certificate says that its caller is.
#include "server/rpc/identity.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/rpc/peer.h"

namespace userintent::rpc {
namespace {

using Names = std::vector<std::string>;

std::optional<std::string> Caller(Names uris, Names names) {
  return CallerOf(Peer({{"peer_uri", std::move(uris)}, {"peer_dns", std::move(names)}}), true);
}

TEST(CallerOf, TheOnlyUriElseTheFirstDnsName) {
  EXPECT_EQ(Caller({"spiffe://example.com/billing"}, {}), "uri:spiffe://example.com/billing");
  EXPECT_EQ(Caller({"spiffe://example.com/billing"}, {"billing.example.com"}), "uri:spiffe://example.com/billing");
  EXPECT_EQ(Caller({}, {"billing.example.com", "other.example.com"}), "dns:billing.example.com");
}

TEST(CallerOf, NoUsableName) {
  EXPECT_EQ(Caller({}, {}), std::nullopt);
  EXPECT_EQ(Caller({"spiffe://example.com/a", "spiffe://example.com/b"}, {"a.example.com"}), std::nullopt)
      << "with two, which one speaks?";
  for (const std::string& name :
       {std::string(), std::string("a b"), std::string("a\nb"), std::string("\xc3\xa9"), std::string(513, 'x')}) {
    EXPECT_EQ(Caller({name}, {"a.example.com"}), std::nullopt) << "another name in place of a URI that is unusable";
    EXPECT_EQ(Caller({}, {name}), std::nullopt);
  }
  EXPECT_EQ(Caller({}, {std::string(512, 'x')}), "dns:" + std::string(512, 'x'));
}

TEST(CallerOf, WithoutTlsEveryCallerIsTheLocalOne) {
  EXPECT_EQ(CallerOf(Peer(Peer::Values()), false), kLocalCaller);
  EXPECT_EQ(CallerOf(Peer(Peer::Values{{"peer_uri", {"spiffe://example.com/billing"}}}), false), kLocalCaller);
}

}  // namespace
}  // namespace userintent::rpc
