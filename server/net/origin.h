// Origin: where an HTTPS server is (RFC 6454). Parsed in one place: the settings and the HTTP clients must agree on
// which host a text names, or the check of the one would say nothing about the connection of the other.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace userintent::net {

struct Origin {
  std::string host;  // DNS name or IP address, lower case, without brackets
  uint16_t port = 443;

  bool loopback() const;          // the name "localhost" or a loopback address
  std::string Authority() const;  // "host:port", IPv6 in brackets, without the port 443
  std::string Text() const;       // "https://" and the authority
  friend bool operator==(const Origin&, const Origin&) = default;
};

// "https://host" or "https://host:port" in any case: no user, no path, no query, not even a slash at the end. The host
// is an address literal (IPv6 in brackets) or a DNS name. False, with `out` untouched, for everything else.
bool ParseOrigin(std::string_view text, Origin* out);

}  // namespace userintent::net
