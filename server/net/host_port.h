// host_port: "HOST:PORT" as text, the part that listeners' addresses and origins have in common. Pure functions; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace userintent::net {

// An address to listen at. Empty: none.
struct HostPort {
  std::string host;  // IP address without brackets, or "localhost"
  uint16_t port = 0;

  bool empty() const { return host.empty(); }
  bool loopback() const;
  std::string Text() const;  // IPv6 in brackets
  friend bool operator==(const HostPort&, const HostPort&) = default;
};

// "HOST:PORT", HOST an IP address (IPv6 in brackets) or localhost, or the empty text for none. False, with `out`
// untouched, for everything else.
bool ParseHostPort(std::string_view text, HostPort* out);

// The parts, for other forms of text that hold them.

// Takes HOST or [HOST] off the front of `text`; `host` gets it without brackets. What is left begins with ':' or is
// empty. An IPv6 address passes in brackets only, and nothing else passes in brackets.
bool TakeHost(std::string_view* text, std::string* host);

// One to five digits, at most 65535.
bool ParsePort(std::string_view text, uint16_t* port);

std::string Bracketed(const std::string& host);  // IPv6 in brackets, everything else as it is
bool IsLoopbackHost(const std::string& host);    // the name "localhost" or a loopback address
bool IsAddressLiteral(const std::string& host);  // IPv4 or IPv6, without brackets

}  // namespace userintent::net
