#include "src/redirect_uri.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace userintent {
namespace {

constexpr size_t kLongest = 2048;

bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }
bool IsAlnum(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); }

bool IsAddress(int family, absl::string_view host, in6_addr* address) {
  return inet_pton(family, std::string(host).c_str(), address) == 1;
}

// Labels of letters, digits and hyphens. What ends in a number would be read as an address.
bool IsDnsName(absl::string_view name) {
  if (name.size() > 253) return false;
  absl::string_view last;
  for (const absl::string_view label : absl::StrSplit(name, '.')) {
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
    if (!std::all_of(label.begin(), label.end(), [](char c) { return IsAlnum(c) || c == '-'; })) return false;
    last = label;
  }
  return !std::all_of(last.begin(), last.end(), &IsDigit) && !absl::StartsWithIgnoreCase(last, "0x");
}

// Takes the host from the text. False: it is none. loopback: it stands for this machine.
bool TakeHost(absl::string_view* text, bool* loopback) {
  in6_addr address = {};
  if (absl::ConsumePrefix(text, "[")) {
    const absl::string_view host = text->substr(0, text->find(']'));
    text->remove_prefix(host.size());
    *loopback = host == "::1";
    return absl::ConsumePrefix(text, "]") && IsAddress(AF_INET6, host, &address);
  }
  const absl::string_view host = text->substr(0, text->find(':'));
  text->remove_prefix(host.size());
  const bool ipv4 = IsAddress(AF_INET, host, &address);
  *loopback = absl::EqualsIgnoreCase(host, "localhost") || (ipv4 && absl::StartsWith(host, "127."));
  return ipv4 || IsDnsName(host);
}

// Nothing, or a colon and a number from 1 to 65535.
bool IsPort(absl::string_view text) {
  if (text.empty()) return true;
  int port = 0;
  return absl::ConsumePrefix(&text, ":") && text.size() <= 5 && std::all_of(text.begin(), text.end(), &IsDigit) &&
         absl::SimpleAtoi(text, &port) && port >= 1 && port <= 65535;
}

// Of a path and a query together.
bool IsPathAndQuery(absl::string_view text) {
  const auto hex = [&text](size_t i) {
    return i < text.size() && absl::ascii_isxdigit(static_cast<unsigned char>(text[i]));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && hex(i + 1) && hex(i + 2)) {
      i += 2;
    } else if (!IsAlnum(text[i]) && !absl::StrContains("-._~:/?@[]!$&'()*+,;=", text[i])) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool IsRedirectUri(absl::string_view uri) {
  if (uri.size() > kLongest) return false;
  const bool secure = absl::ConsumePrefix(&uri, "https://");
  if (!secure && !absl::ConsumePrefix(&uri, "http://")) return false;
  absl::string_view authority = uri.substr(0, uri.find_first_of("/?"));
  uri.remove_prefix(authority.size());
  bool loopback = false;
  return TakeHost(&authority, &loopback) && IsPort(authority) && (secure || loopback) && IsPathAndQuery(uri);
}

}  // namespace userintent
