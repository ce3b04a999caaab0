// What the cases of tests/conformance/authorization_urls.json, which authorization_url_test runs, leave open: forms in
// which the client libraries need not agree with the gateway.
#include "server/net/redirect_uri.h"

#include <gtest/gtest.h>

#include <cctype>
#include <string>

namespace userintent::net {
namespace {

TEST(RedirectUri, TheHostIsAName) {
  for (const char* right : {"https://localhost/", "https://a", "https://a-b.c-d.example/", "https://1a.example"}) {
    EXPECT_TRUE(IsRedirectUri(right)) << right;
  }
  for (const char* wrong : {"https://a_b.example/", "https://-a.example/", "https://a..example/", "https://a.example./",
                            "https://0x7f.1/", "https://2130706433/", "https://[::1/", "https://::1/", "https://[a]/",
                            "http://[::ffff:8.8.8.8]/", "http://0.0.0.0/", "https://a.example:1:2/"}) {
    EXPECT_FALSE(IsRedirectUri(wrong)) << wrong;
  }
  EXPECT_FALSE(IsRedirectUri("https://" + std::string(64, 'a') + ".example/"));
}

TEST(RedirectUri, NoByteOfABrowsersOwnReading) {
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool allowed =
        std::string("-._~:/?@[]!$&'()*+,;=").find(c) != std::string::npos || (byte < 128 && std::isalnum(byte) != 0);
    EXPECT_EQ(IsRedirectUri(std::string("https://a.example/x") + c), allowed) << byte;
    EXPECT_EQ(IsRedirectUri(std::string("https://a.example?x") + c + "y"), allowed) << byte;
  }
}

}  // namespace
}  // namespace userintent::net
