#include "server/tls/trust_domains.h"

#include <algorithm>
#include <utility>

namespace userintent::tls {
namespace {

bool IsDomain(std::string_view text) {
  constexpr size_t kMost = 255;
  return !text.empty() && text.size() <= kMost && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
  });
}

}  // namespace

std::optional<TrustDomains> ParseTrustDomains(std::string_view text) {
  TrustDomains domains;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view entry = text.substr(0, comma);
    const size_t equals = entry.find('=');
    TrustDomain domain{std::string(entry.substr(0, equals)), ""};
    if (equals != std::string_view::npos) domain.authority_file = entry.substr(equals + 1);
    if (!IsDomain(domain.name) || (equals != std::string_view::npos && domain.authority_file.empty())) {
      return std::nullopt;
    }
    const bool twice = std::any_of(domains.all.begin(), domains.all.end(),
                                   [&](const TrustDomain& other) { return other.name == domain.name; });
    if (twice) return std::nullopt;
    domains.all.push_back(std::move(domain));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return std::nullopt;  // a comma at the end
  }
  return domains;
}

std::optional<std::string_view> DomainOf(std::string_view uri) {
  constexpr std::string_view kScheme = "spiffe://";
  if (uri.substr(0, kScheme.size()) != kScheme) return std::nullopt;
  uri.remove_prefix(kScheme.size());
  const std::string_view domain = uri.substr(0, uri.find('/'));
  if (!IsDomain(domain)) return std::nullopt;
  return domain;
}

}  // namespace userintent::tls
