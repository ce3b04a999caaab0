#include "server/tls/trust_domains.h"

#include <gtest/gtest.h>

#include <string>

namespace userintent::tls {
namespace {

TEST(TrustDomains, AreReadAsTheFlagHasThem) {
  EXPECT_EQ(ParseTrustDomains(""), TrustDomains());
  EXPECT_EQ(ParseTrustDomains("a.example"), (TrustDomains{{{"a.example", ""}}}));
  EXPECT_EQ(ParseTrustDomains("a.example,b-2_c=/etc/b=c.pem,d"),
            (TrustDomains{{{"a.example", ""}, {"b-2_c", "/etc/b=c.pem"}, {"d", ""}}}));
  EXPECT_TRUE(ParseTrustDomains(std::string(255, 'a')).has_value());
  for (const std::string& wrong : {std::string(256, 'a'), std::string(","), std::string("a,"), std::string(",a"),
                                   std::string("A"), std::string("a b"), std::string("a/b"), std::string("a="),
                                   std::string("=f"), std::string("spiffe://a"), std::string("a,b,a=f")}) {
    EXPECT_FALSE(ParseTrustDomains(wrong).has_value()) << wrong;
  }
}

TEST(TrustDomains, OfANameIsWhatStandsBeforeItsPath) {
  EXPECT_EQ(DomainOf("spiffe://a.example/signup"), "a.example");
  EXPECT_EQ(DomainOf("spiffe://a.example"), "a.example");
  for (const char* wrong : {"", "spiffe:", "spiffe://", "spiffe:///path", "SPIFFE://a.example/x", "https://a.example/x",
                            "spiffe://A.example/x", "spiffe://user@a.example/x", "spiffe://a.example:443/x"}) {
    EXPECT_FALSE(DomainOf(wrong).has_value()) << wrong;
  }
}

}  // namespace
}  // namespace userintent::tls
