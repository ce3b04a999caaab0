// Which SPIFFE trust domains callers may be of, and which authorities may name callers of each.
//
// Plain values and pure functions; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace userintent::tls {

struct TrustDomain {
  std::string name;            // example.com, of spiffe://example.com/signup
  std::string authority_file;  // PEM; empty: every authority of callers may name callers of this domain
  friend bool operator==(const TrustDomain&, const TrustDomain&) = default;
};

// As --trust_domain has them.
struct TrustDomains {
  std::vector<TrustDomain> all;  // no name twice; empty: names are not pinned
  friend bool operator==(const TrustDomains&, const TrustDomains&) = default;
};

// DOMAIN or DOMAIN=FILE, separated by commas. Domains are as SPIFFE allows them: up to 255 lower-case letters, digits,
// dots, dashes and underscores. Nothing where the text has another form, or names a domain twice.
std::optional<TrustDomains> ParseTrustDomains(std::string_view text);

// The trust domain of a SPIFFE name, which begins with spiffe://; nothing where it is none.
std::optional<std::string_view> DomainOf(std::string_view uri);

}  // namespace userintent::tls
