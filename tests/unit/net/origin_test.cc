// Which texts name an origin, and which host and port they name.
#include "server/net/origin.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/net/host_port.h"

namespace userintent::net {
namespace {

TEST(Origin, ParsesHostAndPort) {
  struct Case {
    const char* text;
    const char* host;
    uint16_t port;
    const char* authority;
  };
  const std::vector<Case> cases = {
      {"https://api.example.com", "api.example.com", 443, "api.example.com"},
      {"https://api.example.com:443", "api.example.com", 443, "api.example.com"},
      {"https://api.example.com:8443", "api.example.com", 8443, "api.example.com:8443"},
      {"https://api.example.com:00443", "api.example.com", 443, "api.example.com"},
      {"HTTPS://API.Example.COM:1", "api.example.com", 1, "api.example.com:1"},
      {"https://astra", "astra", 443, "astra"},
      {"https://10.example.com", "10.example.com", 443, "10.example.com"},
      {"https://192.0.2.1:65535", "192.0.2.1", 65535, "192.0.2.1:65535"},
      {"https://[2001:DB8::1]", "2001:db8::1", 443, "[2001:db8::1]"},
      {"https://[::1]:8443", "::1", 8443, "[::1]:8443"},
  };
  for (const Case& c : cases) {
    Origin origin;
    ASSERT_TRUE(ParseOrigin(c.text, &origin)) << c.text;
    EXPECT_EQ(origin.host, c.host) << c.text;
    EXPECT_EQ(origin.port, c.port) << c.text;
    EXPECT_EQ(origin.Authority(), c.authority) << c.text;
    EXPECT_EQ(origin.Text(), std::string("https://") + c.authority);
    Origin again;
    ASSERT_TRUE(ParseOrigin(origin.Text(), &again));
    EXPECT_EQ(again, origin);
  }
}

TEST(Origin, RefusesEverythingElse) {
  const std::string label(64, 'a');
  const std::vector<std::string> texts = {
      "",
      "https://",
      "https:/example.com",
      "http://example.com",
      "example.com",
      "https://example.com/",
      "https://example.com?x",
      "https://example.com#x",
      "https://user@example.com",
      "https://example.com:",
      "https://example.com:0",
      "https://example.com:65536",
      "https://example.com:443443",
      "https://example.com:+1",
      "https://example.com:1 ",
      " https://example.com",
      "https://exa mple.com",
      "https://exam\nple.com",
      std::string("https://example.com\0", 20),
      "https://-a.example.com",
      "https://a-.example.com",
      "https://a..example.com",
      "https://.example.com",
      "https://example.com.",
      "https://a_b.example.com",
      "https://" + label + ".example.com",
      // what resolvers read as an address though it is no literal
      "https://2130706433",
      "https://127.1",
      "https://0x7f.0.0.1",
      "https://example.0x7f",
      "https://192.0.2.256",
      "https://::1",
      "https://[::1",
      "https://[::1]x",
      "https://[192.0.2.1]",
      "https://[example.com]",
      "https://[::1%25lo]",
  };
  for (const std::string& text : texts) {
    Origin origin{"untouched", 7};
    EXPECT_FALSE(ParseOrigin(text, &origin)) << text;
    EXPECT_EQ(origin, (Origin{"untouched", 7})) << text;
  }
}

TEST(Origin, Loopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.8.8.8", "::1"}) {
    EXPECT_TRUE((Origin{host, 1}).loopback()) << host;
  }
  for (const char* host : {"localhost.example.com", "8.8.8.8", "::2", "example.com"}) {
    EXPECT_FALSE((Origin{host, 1}).loopback()) << host;
  }
}

TEST(HostPort, ParsesAddressesToListenAt) {
  const std::vector<std::pair<const char*, HostPort>> cases = {
      {"", {"", 0}},
      {"127.0.0.1:0", {"127.0.0.1", 0}},
      {"[::1]:65535", {"::1", 65535}},
      {"localhost:8080", {"localhost", 8080}},
  };
  for (const auto& [text, expected] : cases) {
    HostPort parsed{"untouched", 7};
    ASSERT_TRUE(ParseHostPort(text, &parsed)) << text;
    EXPECT_EQ(parsed, expected) << text;
    EXPECT_EQ(parsed.Text(), text);
  }
  for (const char* text : {":80", "127.0.0.1", "127.0.0.1:", "example.com:80", "::1:80", "[::1]", "[127.0.0.1]:1",
                           "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:1 ", "[::1]80"}) {
    HostPort parsed{"untouched", 7};
    EXPECT_FALSE(ParseHostPort(text, &parsed)) << text;
    EXPECT_EQ(parsed, (HostPort{"untouched", 7})) << text;
  }
}

}  // namespace
}  // namespace userintent::net
