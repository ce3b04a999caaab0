#include "server/net/host_port.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/base/text.h"
#include "server/net/ip_address.h"

namespace userintent::net {

bool HostPort::loopback() const { return IsLoopbackHost(host); }

std::string HostPort::Text() const { return empty() ? "" : Bracketed(host) + ':' + std::to_string(port); }

bool ParseHostPort(std::string_view text, HostPort* out) {
  HostPort parsed;
  if (!text.empty()) {
    if (!TakeHost(&text, &parsed.host)) return false;
    if (parsed.host != "localhost" && !IsAddressLiteral(parsed.host)) return false;
    if (text.empty() || !ParsePort(text.substr(1), &parsed.port)) return false;
  }
  *out = std::move(parsed);
  return true;
}

bool TakeHost(std::string_view* text, std::string* host) {
  if (text->starts_with('[')) {
    const size_t end = text->find(']');
    if (end == std::string_view::npos) return false;
    *host = std::string(text->substr(1, end - 1));
    text->remove_prefix(end + 1);
    if (host->find(':') == std::string::npos || !IsAddressLiteral(*host)) return false;
  } else {
    const size_t end = std::min(text->find(':'), text->size());
    *host = std::string(text->substr(0, end));
    text->remove_prefix(end);
  }
  return !host->empty() && (text->empty() || text->front() == ':');
}

bool ParsePort(std::string_view text, uint16_t* port) {
  if (text.empty() || text.size() > 5 || !AllDigits(text)) return false;
  uint32_t value = 0;
  for (const char digit : text) value = value * 10 + static_cast<uint32_t>(digit - '0');
  if (value > 65535) return false;
  *port = static_cast<uint16_t>(value);
  return true;
}

std::string Bracketed(const std::string& host) { return host.find(':') == std::string::npos ? host : '[' + host + ']'; }

bool IsLoopbackHost(const std::string& host) {
  if (host == "localhost") return true;
  const std::optional<IpAddress> address = ParseIp(host);
  return address && UpstreamKind(*address) == AddressKind::kLoopback;
}

bool IsAddressLiteral(const std::string& host) { return ParseIp(host).has_value(); }

}  // namespace userintent::net
