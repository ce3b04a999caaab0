// The types of the settings' values, and how each of them is written on a command line.
//
// Plain values and pure functions; any thread. Used by the table of flags (flags.cc) and by readers of a setting.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/astra/answer.h"
#include "server/net/host_port.h"
#include "server/net/origin.h"
#include "server/observe/level.h"
#include "server/tls/trust_domains.h"

namespace userintent::http {
enum class Transport;  // server/http/client.h
}  // namespace userintent::http

namespace userintent::config {

struct LedgerLocation {
  enum class Kind { kSqlite, kMemory, kPostgresql };
  Kind kind = Kind::kSqlite;
  std::string path = {};  // kSqlite
  std::string url = {};   // kPostgresql, whole
  friend bool operator==(const LedgerLocation&, const LedgerLocation&) = default;
};

// The path of a request, as it stands in its first line.
struct RequestPath {
  std::string text;
  friend bool operator==(const RequestPath&, const RequestPath&) = default;
};

// Where persons may be sent back to after Astra's pages; each is a net::IsRedirectUri.
struct RedirectUris {
  std::vector<std::string> all;
  friend bool operator==(const RedirectUris&, const RedirectUris&) = default;
};

// Astra has two, with credentials, persons and attempts of their own.
enum class Environment { kNotSaid, kSandbox, kProduction };
using tls::TrustDomains;

// How values of a type are written, for --help and for errors.
struct Form {
  const char* placeholder;
  const char* must;  // what an error says of a text in another form
};

// Form and meaning of each type. Parse is false, with `out` untouched, where the text has another form. Text is what
// Parse would read back, for the defaults in --help.
template <typename T>
Form FormOf();

bool Parse(std::string_view text, bool* out);  // true, yes, 1, ...
bool Parse(std::string_view text, int* out);
bool Parse(std::string_view text, std::string* out);
bool Parse(std::string_view text, absl::Duration* out);
bool Parse(std::string_view text, std::optional<bool>* out);            // empty: not set
bool Parse(std::string_view text, std::optional<absl::Duration>* out);  // empty: not set
bool Parse(std::string_view text, std::optional<absl::Time>* out);      // empty: not set
bool Parse(std::string_view text, net::HostPort* out);                  // empty: no address
bool Parse(std::string_view text, net::Origin* out);
bool Parse(std::string_view text, std::optional<net::Origin>* out);  // empty: not set
bool Parse(std::string_view text, RedirectUris* out);                // separated by commas; empty: none
bool Parse(std::string_view text, TrustDomains* out);                // separated by commas; empty: none
bool Parse(std::string_view text, RequestPath* out);
bool Parse(std::string_view text, LedgerLocation* out);
bool Parse(std::string_view text, Environment* out);  // empty: not said
bool Parse(std::string_view text, http::Transport* out);
bool Parse(std::string_view text, observe::Level* out);

std::string Text(bool value);
std::string Text(int value);
std::string Text(const std::string& value);
std::string Text(absl::Duration value);
std::string Text(const std::optional<bool>& value);
std::string Text(const std::optional<absl::Duration>& value);
std::string Text(const std::optional<absl::Time>& value);
std::string Text(const net::HostPort& value);
std::string Text(const net::Origin& value);
std::string Text(const std::optional<net::Origin>& value);
std::string Text(const RedirectUris& value);
std::string Text(const TrustDomains& value);
std::string Text(const RequestPath& value);
std::string Text(const LedgerLocation& value);
std::string Text(const std::optional<astra::LimitRule>& value);
std::string Text(Environment value);
std::string Text(http::Transport value);
std::string Text(observe::Level value);

}  // namespace userintent::config
