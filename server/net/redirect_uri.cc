#include "server/net/redirect_uri.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "server/base/text.h"
#include "server/net/origin.h"

namespace userintent::net {
namespace {

constexpr size_t kLongest = 2048;
constexpr std::string_view kHttps = "https://";
constexpr std::string_view kHttp = "http://";

bool IsHexDigit(char c) { return IsDigit(c) || (ToLower(c) >= 'a' && ToLower(c) <= 'f'); }

// Of a path and a query together; no '#', which would begin a fragment.
bool IsPathAndQuery(std::string_view text) {
  constexpr std::string_view kMarks = "-._~:/?@[]!$&'()*+,;=";
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size() || !IsHexDigit(text[i + 1]) || !IsHexDigit(text[i + 2])) return false;
      i += 2;
    } else if (!IsAlnum(text[i]) && kMarks.find(text[i]) == std::string_view::npos) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool IsRedirectUri(std::string_view text) {
  if (text.size() > kLongest) return false;
  const bool https = text.starts_with(kHttps);
  if (!https && !text.starts_with(kHttp)) return false;
  const std::string_view rest = text.substr(https ? kHttps.size() : kHttp.size());
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  Origin origin;
  if (!ParseOrigin(std::string(kHttps).append(rest.substr(0, end)), &origin)) return false;
  return (https || origin.loopback()) && IsPathAndQuery(rest.substr(end));
}

}  // namespace userintent::net
