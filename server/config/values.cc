#include "server/config/values.h"

#include <algorithm>
#include <utility>

#include "absl/flags/marshalling.h"
#include "absl/strings/str_join.h"
#include "server/base/duration.h"
#include "server/base/text.h"
#include "server/http/client.h"
#include "server/net/redirect_uri.h"

namespace userintent::config {

// --- types of the language and of Abseil, in Abseil's form

namespace {

// Abseil's string_view is the standard one in some builds and its own in others.
template <typename T>
bool ParseAsAbseil(std::string_view text, T* out) {
  T parsed;
  std::string why;  // quotes the value, so it is dropped
  if (!absl::ParseFlag(absl::string_view(text.data(), text.size()), &parsed, &why)) return false;
  *out = parsed;
  return true;
}

template <typename T>
bool ParseOptional(std::string_view text, std::optional<T>* out) {
  T parsed;
  if (!text.empty() && !ParseAsAbseil(text, &parsed)) return false;
  *out = text.empty() ? std::nullopt : std::optional<T>(parsed);
  return true;
}

// Of a type whose values have names: pairs of value and name.
template <typename Names, typename T>
bool ParseName(const Names& names, std::string_view text, T* out) {
  for (const auto& [value, name] : names) {
    if (name != text) continue;
    *out = value;
    return true;
  }
  return false;
}

template <typename Names, typename T>
std::string NameIn(const Names& names, T wanted) {
  for (const auto& [value, name] : names) {
    if (value == wanted) return std::string(name);
  }
  return "";
}

}  // namespace

template <>
Form FormOf<std::string>() {
  return {"FILE", "must be a path"};
}
bool Parse(std::string_view text, std::string* out) {
  *out = std::string(text);
  return true;
}
std::string Text(const std::string& value) { return value; }

template <>
Form FormOf<bool>() {
  return {"true|false", "must be true or false"};
}
bool Parse(std::string_view text, bool* out) { return ParseAsAbseil(text, out); }
std::string Text(bool value) { return absl::UnparseFlag(value); }

template <>
Form FormOf<std::optional<bool>>() {
  return FormOf<bool>();
}
bool Parse(std::string_view text, std::optional<bool>* out) { return ParseOptional(text, out); }
std::string Text(const std::optional<bool>& value) { return value ? Text(*value) : ""; }

template <>
Form FormOf<int>() {
  return {"NUMBER", "must be a whole number"};
}
bool Parse(std::string_view text, int* out) { return ParseAsAbseil(text, out); }
std::string Text(int value) { return std::to_string(value); }

template <>
Form FormOf<absl::Duration>() {
  return {"DURATION", "must be a duration with its unit (ms, s, m, h or d), for example 500ms or 3s"};
}
bool Parse(std::string_view text, absl::Duration* out) { return ReadDuration(text, out); }
std::string Text(absl::Duration value) { return absl::FormatDuration(value); }

template <>
Form FormOf<std::optional<absl::Duration>>() {
  return FormOf<absl::Duration>();
}
bool Parse(std::string_view text, std::optional<absl::Duration>* out) { return ParseOptional(text, out); }
std::string Text(const std::optional<absl::Duration>& value) { return value ? Text(*value) : ""; }

template <>
Form FormOf<std::optional<absl::Time>>() {
  return {"TIME", "must be a time as in RFC 3339, for example 2026-01-31T09:30:00Z"};
}
bool Parse(std::string_view text, std::optional<absl::Time>* out) { return ParseOptional(text, out); }
std::string Text(const std::optional<absl::Time>& value) { return value ? absl::FormatTime(*value) : ""; }

// --- types of the server

template <>
Form FormOf<net::HostPort>() {
  return {"HOST:PORT", "must be HOST:PORT, HOST an IP address (IPv6 in brackets) or localhost, PORT 0 to 65535"};
}
bool Parse(std::string_view text, net::HostPort* out) { return net::ParseHostPort(text, out); }
std::string Text(const net::HostPort& value) { return value.Text(); }

template <>
Form FormOf<net::Origin>() {
  return {"https://HOST[:PORT]", "must be https://host[:port] without path, query or user"};
}
bool Parse(std::string_view text, net::Origin* out) { return net::ParseOrigin(text, out); }
std::string Text(const net::Origin& value) { return value.Text(); }

template <>
Form FormOf<std::optional<net::Origin>>() {
  return FormOf<net::Origin>();
}
bool Parse(std::string_view text, std::optional<net::Origin>* out) {
  net::Origin parsed;
  if (!text.empty() && !Parse(text, &parsed)) return false;
  *out = text.empty() ? std::nullopt : std::optional(std::move(parsed));
  return true;
}
std::string Text(const std::optional<net::Origin>& value) { return value ? Text(*value) : ""; }

template <>
Form FormOf<RedirectUris>() {
  return {"URI,...", "must be https URIs (http on loopback only) without fragment and comma, separated by commas"};
}
bool Parse(std::string_view text, RedirectUris* out) {
  RedirectUris parsed;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (!net::IsRedirectUri(text.substr(0, comma))) return false;
    parsed.all.emplace_back(text.substr(0, comma));
    if (comma + 1 == text.size()) return false;  // nothing behind the last comma
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  *out = std::move(parsed);
  return true;
}
std::string Text(const RedirectUris& value) { return absl::StrJoin(value.all, ","); }

template <>
Form FormOf<TrustDomains>() {
  return {"DOMAIN[=FILE],...", "must be trust domains in lower case, each once, separated by commas"};
}
bool Parse(std::string_view text, TrustDomains* out) {
  std::optional<TrustDomains> parsed = tls::ParseTrustDomains(text);
  if (!parsed) return false;
  *out = *std::move(parsed);
  return true;
}
std::string Text(const TrustDomains& value) {
  std::string text;
  for (const tls::TrustDomain& domain : value.all) {
    if (!text.empty()) text += ',';
    text += domain.name;
    if (!domain.authority_file.empty()) text.append("=").append(domain.authority_file);
  }
  return text;
}

template <>
Form FormOf<RequestPath>() {
  return {"/PATH", "must begin with / and be at most 256 visible characters without ?, # and %"};
}
bool Parse(std::string_view text, RequestPath* out) {
  if (text.empty() || text.front() != '/' || text.size() > 256 || !AllVisible(text) ||
      text.find_first_of("?#%") != std::string_view::npos) {
    return false;
  }
  out->text = std::string(text);
  return true;
}
std::string Text(const RequestPath& value) { return value.text; }

template <>
Form FormOf<LedgerLocation>() {
  return {"sqlite:PATH|postgresql://...|memory:", "must be sqlite:PATH, postgresql://... or memory:"};
}
bool Parse(std::string_view text, LedgerLocation* out) {
  constexpr std::string_view kSqlite = "sqlite:";
  if (text == "memory:") {
    *out = {LedgerLocation::Kind::kMemory, "", ""};
  } else if (text.substr(0, 13) == "postgresql://" || text.substr(0, 11) == "postgres://") {
    *out = {LedgerLocation::Kind::kPostgresql, "", std::string(text)};
  } else if (text.substr(0, kSqlite.size()) == kSqlite) {
    *out = {LedgerLocation::Kind::kSqlite, std::string(text.substr(kSqlite.size())), ""};
  } else {
    return false;
  }
  return true;
}
std::string Text(const LedgerLocation& value) {
  switch (value.kind) {
    case LedgerLocation::Kind::kSqlite:
      return "sqlite:" + value.path;
    case LedgerLocation::Kind::kMemory:
      return "memory:";
    case LedgerLocation::Kind::kPostgresql:
      return value.url;
  }
  return "";
}

// Parsed by astra::ParseLimitRule, whose errors say more than the form.
template <>
Form FormOf<std::optional<astra::LimitRule>>() {
  return {"STATUS:SUBSTRING", "must be STATUS:SUBSTRING, for example 400:limit reached"};
}
std::string Text(const std::optional<astra::LimitRule>& value) {
  return value ? std::to_string(value->status) + ':' + value->substring : "";
}

template <>
Form FormOf<Environment>() {
  return {"sandbox|production", "must be sandbox or production"};
}
constexpr std::pair<Environment, std::string_view> kEnvironmentNames[] = {
    {Environment::kNotSaid, ""}, {Environment::kSandbox, "sandbox"}, {Environment::kProduction, "production"}};
bool Parse(std::string_view text, Environment* out) { return ParseName(kEnvironmentNames, text, out); }
std::string Text(Environment value) { return NameIn(kEnvironmentNames, value); }

template <>
Form FormOf<http::Transport>() {
  return {"auto|nghttp2|libcurl", "must be auto, nghttp2 or libcurl"};
}
constexpr std::pair<http::Transport, std::string_view> kTransportNames[] = {
    {http::Transport::kAuto, "auto"}, {http::Transport::kNghttp2, "nghttp2"}, {http::Transport::kLibcurl, "libcurl"}};
bool Parse(std::string_view text, http::Transport* out) { return ParseName(kTransportNames, text, out); }
std::string Text(http::Transport value) { return NameIn(kTransportNames, value); }

template <>
Form FormOf<observe::Level>() {
  return {"LEVEL", "must be trace, debug, info, warn or error"};
}
bool Parse(std::string_view text, observe::Level* out) {
  const std::optional<observe::Level> level = observe::ParseLevel(text);
  if (level) *out = *level;
  return level.has_value();
}
std::string Text(observe::Level value) { return std::string(observe::LevelName(value)); }

}  // namespace userintent::config
