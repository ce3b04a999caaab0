#include "server/net/origin.h"

#include <algorithm>
#include <utility>

#include "server/base/text.h"
#include "server/net/host_port.h"

namespace userintent::net {
namespace {

constexpr std::string_view kScheme = "https://";

bool IsLabel(std::string_view label) {
  return !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
         std::all_of(label.begin(), label.end(), [](char c) { return IsAlnum(c) || c == '-'; });
}

// Labels of letters, digits and hyphens. A name that ends in a number would be read as an address by resolvers
// (0x7f.1, 2130706433), past the check of literals.
bool IsDnsName(std::string_view name) {
  if (name.size() > 253) return false;
  for (;;) {
    const size_t end = std::min(name.find('.'), name.size());
    const std::string_view label = name.substr(0, end);
    if (!IsLabel(label)) return false;
    if (end == name.size()) return !AllDigits(label) && !label.starts_with("0x");
    name.remove_prefix(end + 1);
  }
}

}  // namespace

bool Origin::loopback() const { return IsLoopbackHost(host); }

std::string Origin::Authority() const { return Bracketed(host) + (port == 443 ? "" : ':' + std::to_string(port)); }

std::string Origin::Text() const { return std::string(kScheme) + Authority(); }

bool ParseOrigin(std::string_view text, Origin* out) {
  std::string lower(text);
  MakeLower(&lower);
  std::string_view rest = lower;
  if (!rest.starts_with(kScheme)) return false;
  rest.remove_prefix(kScheme.size());
  Origin parsed;
  if (!TakeHost(&rest, &parsed.host)) return false;
  if (!IsAddressLiteral(parsed.host) && !IsDnsName(parsed.host)) return false;
  if (!rest.empty() && (!ParsePort(rest.substr(1), &parsed.port) || parsed.port == 0)) return false;
  *out = std::move(parsed);
  return true;
}

}  // namespace userintent::net
