#include "server/config/config.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/marshalling.h"
#include "absl/flags/reflection.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "server/astra/answer.h"
#include "server/base/certificates.h"
#include "server/base/duration.h"
#include "server/base/secret_file.h"
#include "server/base/text.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/look_at.h"
#include "server/net/ip_address.h"

// The table of flags, in the order of the contract (section 5): type, name, meaning. Defaults are the members of
// Config. Flags that the contract does not name stand beside their relatives.
#define USERINTENT_FLAGS(ROW)                                                                                    \
  ROW(HostPort, listen,                                                                                          \
      "gRPC address; port 0 takes a free one and logs it; off loopback needs mTLS or "                           \
      "--allow_plaintext")                                                                                       \
  ROW(std::string, tls_cert_file, "server certificate chain (PEM); the three --tls_ flags go together")          \
  ROW(std::string, tls_key_file, "its private key (PEM)")                                                        \
  ROW(std::string, tls_client_ca_file, "authorities of client certificates (PEM), which every caller must have") \
  ROW(bool, allow_plaintext, "listen off loopback without TLS, for a service mesh that adds it")                 \
  ROW(std::string, policy_file, "which caller may call which method; not supported by this version")             \
  ROW(Origin, astra_base_url, "where Astra is: https, host and port only")                                       \
  ROW(std::string, astra_client_id_file, "required; holds the client id for HTTP Basic")                         \
  ROW(std::string, astra_client_secret_file, "required; holds the client secret for HTTP Basic")                 \
  ROW(std::string, astra_ca_file, "authorities for Astra's certificate (PEM) instead of the system's")           \
  ROW(bool, allow_private_upstream,                                                                              \
      "allow an upstream host with addresses that are not public; localhost and loopback literals need no "      \
      "flag, another name that leads to loopback does")                                                          \
  ROW(LimitError, astra_limit_error,                                                                             \
      "an answer with this status, and this text in its error, says that the e-mail "                            \
      "address has no attempt left")                                                                             \
  ROW(absl::Duration, connect_timeout, "limit for one connection to Astra, TCP and TLS")                         \
  ROW(absl::Duration, upstream_timeout, "hard limit of one exchange with Astra")                                 \
  ROW(int, upstream_connections, "connections to Astra, at most")                                                \
  ROW(bool, upstream_http2, "offer HTTP/2 to Astra; false: HTTP/1.1 only")                                       \
  ROW(http::Transport, upstream_transport,                                                                       \
      "library that speaks to Astra; nghttp2: HTTP/2 only, auto: nghttp2, and libcurl "                          \
      "where Astra offers no HTTP/2")                                                                            \
  ROW(int, max_connections, "callers' connections, at most; 0: as the descriptor limit allows, up to 2000")      \
  ROW(int, max_connections_per_address, "of these, from one address (IPv6: /64); 0: half, on loopback all")      \
  ROW(int, max_in_flight, "calls admitted at once; more are refused at once")                                    \
  ROW(int, max_waiters_per_request, "calls that may wait for one running request; more are answered at once")    \
  ROW(int, max_waiters_per_caller, "calls of one caller that may wait for running requests")                     \
  ROW(absl::Duration, default_deadline, "for callers that set no deadline")                                      \
  ROW(absl::Duration, min_deadline, "a call with less time left is not started")                                 \
  ROW(LedgerLocation, ledger,                                                                                    \
      "where requests are recorded; sqlite makes the directory; memory is for tests and "                        \
      "forgets everything at the end")                                                                           \
  ROW(std::string, ledger_key_file, "required; 32 or more random bytes, the key of the ledger's hashes")         \
  ROW(std::string, ledger_previous_key_file,                                                                     \
      "keys before the current one, while rows under them remain; files, "                                       \
      "separated by commas, the last key first")                                                                 \
  ROW(bool, ledger_must_exist, "a path without a ledger is refused instead of getting a new one")                \
  ROW(std::optional<absl::Time>, ledger_restored,                                                                \
      "acknowledges, once, that a backup of this time (RFC 3339) stands for a newer ledger")                     \
  ROW(absl::Duration, retention,                                                                                 \
      "requests that ended longer ago are forgotten, at least 9504h (13 months); 0: never; attempts of e-mail "  \
      "addresses are kept for ever")                                                                             \
  ROW(int, email_attempt_limit, "attempts per e-mail address; 0 switches the local check off")                   \
  ROW(bool, kyc_delegation, "ssn_last_four is optional")                                                         \
  ROW(bool, allow_non_public_ip, "accept ip_address values that are not public")                                 \
  ROW(HostPort, metrics_listen, "address of /metrics, /livez and /readyz; empty switches them off")              \
  ROW(std::optional<bool>, reflection, "gRPC reflection")                                                        \
  ROW(absl::Duration, drain_timeout, "for calls under way after SIGTERM or SIGINT")                              \
  ROW(int, shards, "threads that serve calls; 0: one per two cores")                                             \
  ROW(observe::Level, log_level, "trace, debug, info, warn or error")

namespace userintent {
namespace {

bool ParseLedger(std::string_view text, LedgerLocation* out) {
  constexpr std::string_view kSqlite = "sqlite:";
  if (text == "memory:") {
    *out = {LedgerLocation::Kind::kMemory, ""};
  } else if (text.substr(0, 13) == "postgresql://" || text.substr(0, 11) == "postgres://") {
    *out = {LedgerLocation::Kind::kPostgresql, ""};
  } else if (text.substr(0, kSqlite.size()) == kSqlite) {
    *out = {LedgerLocation::Kind::kSqlite, std::string(text.substr(kSqlite.size()))};
  } else {
    return false;
  }
  return true;
}

std::string LedgerText(const LedgerLocation& ledger) {
  switch (ledger.kind) {
    case LedgerLocation::Kind::kSqlite:
      return "sqlite:" + ledger.path;
    case LedgerLocation::Kind::kMemory:
      return "memory:";
    case LedgerLocation::Kind::kPostgresql:
      break;
  }
  return "postgresql://";
}

bool ParseLimitError(std::string_view text, LimitError* out) {
  LimitError parsed;
  if (!text.empty()) {
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return false;
    uint16_t status = 0;
    if (!net::ParsePort(text.substr(0, colon), &status)) return false;
    parsed = {status, std::string(text.substr(colon + 1))};
    if (parsed.substring.empty()) return false;
  }
  *out = std::move(parsed);
  return true;
}

}  // namespace

std::string LimitError::Text() const { return *this == LimitError() ? "" : std::to_string(status) + ':' + substring; }

std::vector<Config::KeyFile> Config::previous_key_files() const {
  std::vector<KeyFile> files;
  if (ledger_previous_key_file.empty()) return files;
  std::string_view rest = ledger_previous_key_file;
  for (;;) {
    const size_t comma = rest.find(',');
    files.push_back({std::string(rest.substr(0, comma)), "--ledger_previous_key_file"});
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (files.size() == 1) return files;
  for (size_t i = 0; i < files.size(); ++i) files[i].what += " (file " + std::to_string(i + 1) + ')';
  return files;
}

int Config::shard_count() const {
  if (shards > 0) return shards;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 2);
}

// What Abseil asks of the types of flags; found by argument-dependent look-up.
static bool AbslParseFlag(absl::string_view text, LedgerLocation* out, std::string*) {
  return ParseLedger({text.data(), text.size()}, out);
}
static std::string AbslUnparseFlag(const LedgerLocation& value) { return LedgerText(value); }
static bool AbslParseFlag(absl::string_view text, LimitError* out, std::string*) {
  return ParseLimitError({text.data(), text.size()}, out);
}
static std::string AbslUnparseFlag(const LimitError& value) { return value.Text(); }

namespace net {
static bool AbslParseFlag(absl::string_view text, HostPort* out, std::string*) {
  return ParseHostPort({text.data(), text.size()}, out);
}
static std::string AbslUnparseFlag(const HostPort& value) { return value.Text(); }
static bool AbslParseFlag(absl::string_view text, Origin* out, std::string*) {
  return ParseOrigin({text.data(), text.size()}, out);
}
static std::string AbslUnparseFlag(const Origin& value) { return value.Text(); }
}  // namespace net

namespace http {
constexpr std::pair<Transport, std::string_view> kTransportNames[] = {
    {Transport::kAuto, "auto"}, {Transport::kNghttp2, "nghttp2"}, {Transport::kLibcurl, "libcurl"}};
static bool AbslParseFlag(absl::string_view text, Transport* out, std::string*) {
  for (const auto& [transport, name] : kTransportNames) {
    if (name == std::string_view(text.data(), text.size())) {
      *out = transport;
      return true;
    }
  }
  return false;
}
static std::string AbslUnparseFlag(Transport value) {
  for (const auto& [transport, name] : kTransportNames) {
    if (transport == value) return std::string(name);
  }
  return "";
}
}  // namespace http

namespace observe {
static bool AbslParseFlag(absl::string_view text, Level* out, std::string*) {
  const std::optional<Level> level = ParseLevel({text.data(), text.size()});
  if (level) *out = *level;
  return level.has_value();
}
static std::string AbslUnparseFlag(Level value) { return std::string(LevelName(value)); }
}  // namespace observe

}  // namespace userintent

// Abseil wants its flags outside of namespaces.
using userintent::HostPort;
using userintent::LedgerLocation;
using userintent::LimitError;
using userintent::Origin;
namespace http = userintent::http;
namespace observe = userintent::observe;
#define USERINTENT_DEFINE(type, name, meaning) ABSL_FLAG(type, name, userintent::Config().name, meaning);
USERINTENT_FLAGS(USERINTENT_DEFINE)
#undef USERINTENT_DEFINE

namespace userintent {
namespace {

// How values of a type are written, for --help and for errors.
struct Form {
  const char* placeholder;
  const char* must;
};

template <typename T>
constexpr Form FormOf();
template <>
constexpr Form FormOf<HostPort>() {
  return {"HOST:PORT", "must be HOST:PORT, HOST an IP address (IPv6 in brackets) or localhost, PORT 0 to 65535"};
}
template <>
constexpr Form FormOf<std::string>() {
  return {"FILE", "must be a path"};
}
template <>
constexpr Form FormOf<bool>() {
  return {"true|false", "must be true or false"};
}
template <>
constexpr Form FormOf<std::optional<bool>>() {
  return {"true|false", "must be true or false"};
}
template <>
constexpr Form FormOf<Origin>() {
  return {"https://HOST[:PORT]", "must be https://host[:port] without path, query or user"};
}
template <>
constexpr Form FormOf<LimitError>() {
  return {"STATUS:SUBSTRING", "must be STATUS:SUBSTRING, for example 400:limit reached"};
}
template <>
constexpr Form FormOf<absl::Duration>() {
  return {"DURATION", "must be a duration with its unit (ms, s, m, h or d), for example 500ms or 3s"};
}
template <>
constexpr Form FormOf<std::optional<absl::Time>>() {
  return {"TIME", "must be a time as in RFC 3339, for example 2026-01-31T09:30:00Z"};
}
template <>
constexpr Form FormOf<int>() {
  return {"NUMBER", "must be a whole number"};
}
template <>
constexpr Form FormOf<LedgerLocation>() {
  return {"sqlite:PATH|memory:", "must be sqlite:PATH or memory:"};
}
template <>
constexpr Form FormOf<http::Transport>() {
  return {"auto|nghttp2|libcurl", "must be auto, nghttp2 or libcurl"};
}
template <>
constexpr Form FormOf<observe::Level>() {
  return {"LEVEL", "must be trace, debug, info, warn or error"};
}

struct Row {
  const char* name;
  Form form;
  bool boolean;
  void (*take)(Config&);  // from the flag into the struct
};

constexpr Row kRows[] = {
#define USERINTENT_ROW(type, name, meaning)                                                           \
  Row{#name, FormOf<type>(), std::is_same_v<type, bool> || std::is_same_v<type, std::optional<bool>>, \
      [](Config& config) { config.name = absl::GetFlag(FLAGS_##name); }},
    USERINTENT_FLAGS(USERINTENT_ROW)
#undef USERINTENT_ROW
};

struct ActionRow {
  const char* name;
  Config::Action action;
  const char* meaning;
};

constexpr ActionRow kActions[] = {
    {"check_config", Config::Action::kCheckConfig,
     "check the settings, the files that they name and the ledger's place, changing nothing and without the network; "
     "prints every problem; exits 0 or 1"},
    {"healthcheck", Config::Action::kHealthcheck, "ask the server that runs with these settings whether it serves"},
    {"help", Config::Action::kHelp, "print this and exit; so does -h"},
    {"version", Config::Action::kVersion, "print the version and exit"},
};

constexpr std::string_view kEnvironmentPrefix = "USERINTENT_";

const Row* FindRow(std::string_view name) {
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return name == r.name; });
  return row == std::end(kRows) ? nullptr : row;
}

const ActionRow* FindAction(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kActions), std::end(kActions), [&](const ActionRow& r) { return name == r.name; });
  return row == std::end(kActions) ? nullptr : row;
}

std::string EnvironmentName(const Row& row) {
  std::string name = row.name;
  absl::AsciiStrToUpper(&name);
  return std::string(kEnvironmentPrefix) + name;
}

// Words of the command line and of the environment as they may be shown: one line, not endless.
std::string Shown(std::string_view text) {
  constexpr size_t kMax = 64;
  std::string shown = absl::CHexEscape(std::string(text.substr(0, kMax)));
  if (text.size() > kMax) shown += "...";
  return shown;
}

absl::Status Problem(std::string_view flag, std::string_view text) {
  std::string message = "--";
  message += flag;
  message += ": ";
  message += text;
  return absl::InvalidArgumentError(message);
}

// What is wrong, in the order of finding: one line for each flag. What else is wrong with a flag, or with another
// because of it, is not known before the first is mended.
class Problems {
 public:
  void Add(const absl::Status& status) {
    if (status.ok()) return;
    const std::string line(status.message());
    if (flags_.insert(line.substr(0, line.find(':'))).second) lines_.push_back(line);
  }
  void Add(std::string_view flag, std::string_view text) { Add(Problem(flag, text)); }

  bool Has(std::string_view flag) const { return flags_.find("--" + std::string(flag)) != flags_.end(); }
  const std::vector<std::string>& lines() const { return lines_; }

  absl::Status Joined() const {
    if (lines_.empty()) return absl::OkStatus();
    std::string text;
    for (const std::string& line : lines_) text += (text.empty() ? "" : "\n") + line;
    return absl::InvalidArgumentError(text);
  }

 private:
  std::vector<std::string> lines_;
  std::set<std::string> flags_;
};

// The texts that were given, before any is parsed: so that a flag beats a variable even where the variable is wrong.
struct Given {
  struct Value {
    std::string text;
    bool from_environment = false;
  };
  std::map<std::string, Value, std::less<>> values;  // by flag
  Config::Action action = Config::Action::kServe;
  bool understood = true;  // all of it: otherwise nobody knows what else was meant
};

void ReadEnvironment(const char* const* environment, Given* given, Problems* problems) {
  for (const char* const* entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.substr(0, kEnvironmentPrefix.size()) != kEnvironmentPrefix) continue;
    const size_t equals = std::min(text.find('='), text.size());
    const std::string_view name = text.substr(0, equals);
    const auto* row =
        std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return EnvironmentName(r) == name; });
    if (row == std::end(kRows)) {
      problems->Add(
          absl::InvalidArgumentError(Shown(name) + ": unknown variable of the environment; no flag has this name"));
      continue;
    }
    const std::string_view value = equals == text.size() ? std::string_view() : text.substr(equals + 1);
    // Of two entries of one name the first counts, as for getenv.
    given->values.try_emplace(row->name, Given::Value{std::string(value), true});
  }
}

// Abseil's syntax: --flag=value, --flag value, one dash or two, --flag and --noflag for booleans.
void ReadCommandLine(int argc, const char* const* argv, Given* given, Problems* problems) {
  for (int i = 1; i < argc; ++i) {
    std::string_view word = argv[i];
    if (word.size() < 2 || word.front() != '-' || word == "--") {
      problems->Add(absl::InvalidArgumentError(
          "argument " + std::to_string(i) +
          " is no flag: only flags are understood, and true or false follows its flag after a ="));
      given->understood = false;
      return;
    }
    word.remove_prefix(word.substr(0, 2) == "--" ? 2 : 1);
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string_view::npos) value = std::string(word.substr(equals + 1));

    if (const ActionRow* action = FindAction(name)) {
      if (value) {
        problems->Add(name, "takes no value");
      } else if (given->action != Config::Action::kServe && given->action != action->action) {
        problems->Add(name, "contradicts the other flag that says what to do");
      } else {
        given->action = action->action;
      }
      continue;
    }
    const Row* row = FindRow(name);
    if (row == nullptr && !value && name.substr(0, 2) == "no") {
      row = FindRow(name.substr(2));
      if (row != nullptr && !row->boolean) row = nullptr;
      if (row != nullptr) value = "false";
    }
    const bool value_follows = i + 1 < argc && std::string_view(argv[i + 1]).substr(0, 2) != "--";
    if (row == nullptr) {
      problems->Add(Shown(name), "there is no such flag; --help lists all");
      if (!value && value_follows && argv[i + 1][0] != '-') ++i;  // its value, most likely
      continue;
    }
    if (!value && row->boolean) value = "true";
    if (!value) {
      if (!value_follows) {
        problems->Add(name, "needs a value");
        continue;
      }
      value = argv[++i];
    }
    given->values[row->name] = {*std::move(value), false};
  }
}

// --help and --version must work whatever else is wrong.
Config::Action WantedInformation(int argc, const char* const* argv) {
  for (const Config::Action action : {Config::Action::kHelp, Config::Action::kVersion}) {
    for (int i = 1; i < argc; ++i) {
      std::string_view word = argv[i];
      if (word.substr(0, 2) == "--") word.remove_prefix(1);
      if (word == (action == Config::Action::kHelp ? "-help" : "-version")) return action;
      if (action == Config::Action::kHelp && word == "-h") return action;
    }
  }
  return Config::Action::kServe;
}

// Adds to each line where the value came from, which the text of the problem does not know.
absl::Status WithSources(const Problems& problems, const Given& given) {
  Problems told;
  for (const std::string& line : problems.lines()) {
    const auto found =
        line.substr(0, 2) == "--" ? given.values.find(line.substr(2, line.find(':') - 2)) : given.values.end();
    const bool variable = found != given.values.end() && found->second.from_environment;
    told.Add(absl::InvalidArgumentError(variable ? line + " (set by " + EnvironmentName(*FindRow(found->first)) + ')'
                                                 : line));
  }
  return told.Joined();
}

using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using BioPtr = std::unique_ptr<BIO, decltype(&BIO_free)>;

// A key with a passphrase must fail, not ask the terminal for it.
int NoPassphrase(char*, int, int, void*) { return 0; }

absl::StatusOr<Certificates> ReadCertificates(std::string_view flag, const std::string& path) {
  return ReadCertificateFile(path, "--" + std::string(flag));
}

bool AnyTlsFlag(const Config& config) {
  return !config.tls_cert_file.empty() || !config.tls_key_file.empty() || !config.tls_client_ca_file.empty();
}

void CheckTls(const Config& config, Problems& problems) {
  if (!AnyTlsFlag(config)) return;
  for (const auto& [flag, path] :
       {std::pair("tls_cert_file", &config.tls_cert_file), std::pair("tls_key_file", &config.tls_key_file),
        std::pair("tls_client_ca_file", &config.tls_client_ca_file)}) {
    if (path->empty()) {
      return problems.Add(flag, "missing; --tls_cert_file, --tls_key_file and --tls_client_ca_file go together");
    }
  }
  const absl::StatusOr<Certificates> chain = ReadCertificates("tls_cert_file", config.tls_cert_file);
  problems.Add(chain.status());
  const absl::StatusOr<Secret> key_bytes = ReadSecretFile(config.tls_key_file, "--tls_key_file");
  problems.Add(key_bytes.status());
  if (key_bytes.ok()) {
    const std::string_view bytes = key_bytes->Reveal();
    const BioPtr bio{BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())), BIO_free};
    const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr), EVP_PKEY_free);
    if (key == nullptr) {
      problems.Add("tls_key_file", "holds no private key in PEM form without a passphrase");
    } else if (chain.ok() && X509_check_private_key(chain->parsed.front().get(), key.get()) != 1) {
      problems.Add("tls_key_file", "is not the key of the first certificate in --tls_cert_file");
    }
    ERR_clear_error();
  }
  problems.Add(ReadCertificates("tls_client_ca_file", config.tls_client_ca_file).status());
}

absl::Status CheckCredential(std::string_view flag, const std::string& path, bool colon_allowed) {
  if (path.empty()) return Problem(flag, "required");
  const absl::StatusOr<Secret> secret = ReadSecretFile(path, "--" + std::string(flag));
  if (!secret.ok()) return secret.status();
  // HTTP Basic separates the two by a colon, and neither may hold control characters (RFC 7617).
  if (!colon_allowed && secret->Reveal().find(':') != std::string_view::npos) {
    return Problem(flag, "the client id must not hold a ':'");
  }
  if (HasControlCharacter(secret->Reveal())) {
    return Problem(flag, "must hold one line without control characters");
  }
  return absl::OkStatus();
}

void CheckUpstream(const Config& config, Problems& problems) {
  Origin again;
  if (!net::ParseOrigin(config.astra_base_url.Text(), &again) || again != config.astra_base_url) {
    problems.Add("astra_base_url", FormOf<Origin>().must);
  } else if (const std::optional<net::IpAddress> literal =
                 net::ParseIp(again.host)) {  // names are judged when they are resolved
    const net::AddressKind kind = net::UpstreamKind(*literal);
    const std::string name(net::SpecialPurposeName(*literal));
    if (kind == net::AddressKind::kUnusable) {
      problems.Add("astra_base_url", "is an address that nobody can be reached at (" + name + ')');
    } else if (kind == net::AddressKind::kPrivate && !config.allow_private_upstream) {
      problems.Add("astra_base_url", "is not a public address (" + name + "); --allow_private_upstream allows it");
    }
  }
  problems.Add(CheckCredential("astra_client_id_file", config.astra_client_id_file, false));
  problems.Add(CheckCredential("astra_client_secret_file", config.astra_client_secret_file, true));
  if (!config.astra_ca_file.empty()) problems.Add(ReadCertificates("astra_ca_file", config.astra_ca_file).status());
  if (!config.upstream_http2 && config.upstream_transport == http::Transport::kNghttp2) {
    problems.Add("upstream_transport", "nghttp2 speaks HTTP/2 only, which --upstream_http2=false forbids");
  }
  const LimitError& rule = config.astra_limit_error;
  if (rule != LimitError()) problems.Add(astra::ParseLimitRule(rule.Text()).status());
}

struct DurationRange {
  const char* flag;
  absl::Duration Config::*value;
  absl::Duration max;
};

struct NumberRange {
  const char* flag;
  int Config::*value;
  int min;
  int max;
};

// In the order of the table of flags. The least duration is one millisecond: finer than that nothing is timed.
void CheckRanges(const Config& config, Problems& problems) {
  static constexpr DurationRange kDurations[] = {
      {"connect_timeout", &Config::connect_timeout, absl::Minutes(1)},
      {"upstream_timeout", &Config::upstream_timeout, absl::Minutes(10)},
      {"default_deadline", &Config::default_deadline, absl::Hours(1)},
      {"min_deadline", &Config::min_deadline, absl::Minutes(1)},
      {"drain_timeout", &Config::drain_timeout, absl::Hours(1)},
  };
  static constexpr NumberRange kNumbers[] = {
      {"upstream_connections", &Config::upstream_connections, 1, 10000},
      {"max_connections", &Config::max_connections, 0, 1000000},
      {"max_connections_per_address", &Config::max_connections_per_address, 0, 1000000},
      {"max_in_flight", &Config::max_in_flight, 1, 1000000},
      {"max_waiters_per_request", &Config::max_waiters_per_request, 0, 1000000},
      {"max_waiters_per_caller", &Config::max_waiters_per_caller, 0, 1000000},
      {"email_attempt_limit", &Config::email_attempt_limit, 0, 1000},
      {"shards", &Config::shards, 0, 256},
  };
  for (const DurationRange& range : kDurations) {
    const absl::Duration value = config.*range.value;
    if (value < absl::Milliseconds(1) || value > range.max) {
      problems.Add(range.flag, "must be from 1ms to " + absl::FormatDuration(range.max));
    }
  }
  for (const NumberRange& range : kNumbers) {
    const int value = config.*range.value;
    if (value < range.min || value > range.max) {
      problems.Add(range.flag, "must be from " + std::to_string(range.min) + " to " + std::to_string(range.max));
    }
  }
  if (config.connect_timeout > config.upstream_timeout && !problems.Has("upstream_timeout")) {
    problems.Add("connect_timeout", "must not be longer than --upstream_timeout");
  }
  if (config.min_deadline >= config.default_deadline && !problems.Has("default_deadline")) {
    problems.Add("min_deadline", "must be shorter than --default_deadline");
  }
}

absl::Status CheckLedgerPath(const std::string& path) {
  if (path.empty() || path.back() == '/') return Problem("ledger", "sqlite: needs the path of a file");
  // SQLite's own words for databases that vanish, and its URIs with options that would undo durability.
  if (path.front() == ':' || path.substr(0, 5) == "file:") {
    return Problem("ledger", "sqlite: needs a plain path; a ledger that forgets is called memory:");
  }
  if (HasControlCharacter(path)) return Problem("ledger", "the path holds control characters");
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Problem("ledger", "the path is not a regular file");
  }
  return absl::OkStatus();
}

// Whether a ledger must be there, and is a backup.
void CheckLedgersLife(const Config& config, Problems& problems) {
  const bool sqlite = config.ledger.kind == LedgerLocation::Kind::kSqlite;
  struct stat info {};
  const bool there = sqlite && stat(config.ledger.path.c_str(), &info) == 0;
  if (there && info.st_size == 0) problems.Add("ledger", "the file holds 0 bytes, so what it held is lost");
  if (config.ledger_must_exist && !sqlite) {
    problems.Add("ledger_must_exist", "needs --ledger=sqlite:PATH");
  } else if (config.ledger_must_exist && !there) {
    problems.Add("ledger_must_exist", "there is no ledger at the path");
  }
  if (!config.ledger_restored) return;
  const absl::Time time = *config.ledger_restored;
  if (!sqlite) {
    problems.Add("ledger_restored", "needs --ledger=sqlite:PATH");
  } else if (time <= absl::UnixEpoch() || time > absl::Now() + absl::Minutes(1)) {
    problems.Add("ledger_restored", "must be the time of a backup, and not in the future");
  }
}

void CheckLedger(const Config& config, Problems& problems) {
  switch (config.ledger.kind) {
    case LedgerLocation::Kind::kPostgresql:
      problems.Add("ledger", "PostgreSQL is not supported yet; use sqlite:PATH");
      break;
    case LedgerLocation::Kind::kMemory:
      break;
    case LedgerLocation::Kind::kSqlite:
      problems.Add(CheckLedgerPath(config.ledger.path));
      break;
  }
  CheckLedgersLife(config, problems);
  if (config.retention != absl::ZeroDuration()) {
    // Callers may repeat an id for as long; and not so long that the clock cannot count back.
    constexpr absl::Duration kLeast = absl::Hours(396 * 24);
    if (config.retention < kLeast || config.retention > absl::Hours(36525 * 24)) {
      problems.Add("retention", "must be 0, or from 9504h (13 months) to 876600h");
    }
    if (config.ledger.kind != LedgerLocation::Kind::kSqlite) problems.Add("retention", "needs --ledger=sqlite:PATH");
  }
  if (config.ledger_key_file.empty()) problems.Add("ledger_key_file", "required");
  problems.Add(ReadLedgerKey(config.ledger_key_file, "--ledger_key_file").status());
  for (const Config::KeyFile& file : config.previous_key_files()) {
    problems.Add(file.path.empty() ? absl::InvalidArgumentError(file.what + ": the list names an empty path")
                                   : ReadLedgerKey(file.path, file.what).status());
  }
}

void CheckAll(const Config& config, Problems& problems) {
  HostPort again;
  if (config.listen.empty() || !ParseHostPort(config.listen.Text(), &again)) {
    problems.Add("listen", FormOf<HostPort>().must);
  }
  CheckTls(config, problems);
  if (!config.listen.loopback() && !AnyTlsFlag(config) && !config.allow_plaintext) {
    problems.Add("listen",
                 "off loopback needs the three --tls_ flags, or --allow_plaintext behind a mesh that adds TLS");
  }
  if (AnyTlsFlag(config) && config.allow_plaintext) problems.Add("allow_plaintext", "contradicts the --tls_ flags");
  if (!config.policy_file.empty()) problems.Add("policy_file", "not supported by this version");
  CheckUpstream(config, problems);
  CheckRanges(config, problems);
  CheckLedger(config, problems);
  if (!ParseHostPort(config.metrics_listen.Text(), &again)) {
    problems.Add("metrics_listen", FormOf<HostPort>().must);
  } else if (!config.metrics_listen.empty() && config.metrics_listen.port != 0 &&
             config.metrics_listen.port == config.listen.port && config.metrics_listen.host == config.listen.host) {
    problems.Add("metrics_listen", "is the same address as --listen");
  }
}

// The ledger's place and the file there, as far as that can be seen without changing anything. Needs good keys.
absl::Status CheckLedgerPlace(const Config& config) {
  if (config.ledger.kind != LedgerLocation::Kind::kSqlite) return absl::OkStatus();
  const absl::StatusOr<Secret> key = ReadLedgerKey(config.ledger_key_file, "--ledger_key_file");
  if (!key.ok()) return key.status();
  std::vector<uint64_t> keys = {intent::Fingerprinter(*key).key_id()};
  for (const Config::KeyFile& file : config.previous_key_files()) {
    const absl::StatusOr<Secret> old = ReadLedgerKey(file.path, file.what);
    if (!old.ok()) return old.status();
    keys.push_back(intent::Fingerprinter(*old).key_id());
  }
  const absl::Status status = ledger::LookAt(config.ledger.path, keys);
  return status.ok() ? status : Problem("ledger", std::string(status.message()));
}

}  // namespace

absl::Status Validate(const Config& config) {
  Problems problems;
  CheckAll(config, problems);
  return problems.Joined();
}

std::vector<std::string> Warnings(const Config& config) {
  std::vector<std::string> warnings;
  const auto warn = [&](std::string_view flag, std::string_view text) {
    warnings.emplace_back(Problem(flag, text).message());
  };
  if (!config.tls() && !config.listen.loopback()) {
    warn("allow_plaintext", "serves personal data without TLS off loopback, to callers that nobody authenticates");
  }
  if (config.tls()) {
    const absl::StatusOr<Certificates> chain = ReadCertificates("tls_cert_file", config.tls_cert_file);
    if (chain.ok() && X509_cmp_current_time(X509_get0_notAfter(chain->parsed.front().get())) < 0) {
      warn("tls_cert_file", "the certificate has expired");
    }
    if (chain.ok() && X509_cmp_current_time(X509_get0_notBefore(chain->parsed.front().get())) > 0) {
      warn("tls_cert_file", "the certificate is not valid yet");
    }
  }
  if (config.allow_private_upstream) warn("allow_private_upstream", "personal data may go to a private address");
  if (config.drain_timeout < config.upstream_timeout) {
    warn("drain_timeout", "is shorter than --upstream_timeout; exchanges cut off by it end with an unknown outcome");
  }
  if (config.ledger.kind == LedgerLocation::Kind::kMemory) {
    warn("ledger", "memory: forgets every request at the end of the process, and the promise of one creation with it");
  }
  if (config.email_attempt_limit == 0) {
    warn("email_attempt_limit", "0 leaves the count of attempts to Astra");
  } else if (config.email_attempt_limit > 3) {
    warn("email_attempt_limit", "is larger than Astra's limit of 3");
  }
  if (config.allow_non_public_ip) {
    warn("allow_non_public_ip", "accepts addresses of end users that no end user on the internet has");
  }
  if (!config.metrics_listen.empty() && !config.metrics_listen.loopback()) {
    warn("metrics_listen", "shows metrics off loopback, without TLS and to everyone");
  }
  if (config.reflection_on() && !config.listen.loopback()) warn("reflection", "is on off loopback");
  return warnings;
}

absl::StatusOr<Config> LoadConfig(int argc, const char* const* argv, const char* const* environment) {
  Config config;
  config.action = WantedInformation(argc, argv);
  if (config.action != Config::Action::kServe) return config;

  Given given;
  Problems problems;
  ReadEnvironment(environment, &given, &problems);
  ReadCommandLine(argc, argv, &given, &problems);
  if (!given.understood) return WithSources(problems, given);
  config.action = given.action;

  // Flags are global to the process, so each one is set every time. (Abseil's FlagSaver would write lines to stderr.)
  for (const Row& row : kRows) {
    absl::CommandLineFlag* flag = absl::FindCommandLineFlag(row.name);
    const auto found = given.values.find(row.name);
    std::string text = found == given.values.end() ? flag->DefaultValue() : found->second.text;
    absl::Duration duration;  // Abseil knows no days
    if (std::string_view(row.form.must) == FormOf<absl::Duration>().must && ReadDuration(text, &duration)) {
      text = absl::FormatDuration(duration);
    }
    std::string why;  // Abseil's text quotes the value
    if (!flag->ParseFrom(text, &why)) {
      problems.Add(row.name, row.form.must);
      flag->ParseFrom(flag->DefaultValue(), &why);
    }
    row.take(config);
  }
  if (config.action != Config::Action::kHealthcheck) CheckAll(config, problems);
  if (config.action == Config::Action::kCheckConfig && !problems.Has("ledger") && !problems.Has("ledger_key_file") &&
      !problems.Has("ledger_previous_key_file")) {
    problems.Add(CheckLedgerPlace(config));
  }
  if (!problems.lines().empty()) return WithSources(problems, given);
  return config;
}

absl::StatusOr<Config> LoadConfig(int argc, char** argv) { return LoadConfig(argc, argv, environ); }

Config LoadConfigOrExit(int argc, char** argv) {
  absl::StatusOr<Config> config = LoadConfig(argc, argv);
  if (!config.ok()) {
    const std::string text(config.status().message());
    std::string_view lines = text;
    while (!lines.empty()) {
      const std::string line(lines.substr(0, lines.find('\n')));
      std::fprintf(stderr, "userintent-server: %s\n", line.c_str());
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    }
    std::exit(1);
  }
  switch (config->action) {
    case Config::Action::kHelp:
      std::fputs(HelpText().c_str(), stdout);
      std::exit(0);
    case Config::Action::kVersion:
      std::fputs(VersionText().c_str(), stdout);
      std::exit(0);
    case Config::Action::kCheckConfig:
      for (const std::string& warning : Warnings(*config)) std::fprintf(stderr, "warning: %s\n", warning.c_str());
      std::fputs("the configuration is valid\n", stdout);
      std::exit(0);
    case Config::Action::kServe:
    case Config::Action::kHealthcheck:
      break;
  }
  return *std::move(config);
}

std::string HelpText() {
  std::string text =
      "userintent-server: a gRPC gateway in front of Astra's call that creates a user intent.\n"
      "\n"
      "Every flag may also be given as a variable of the environment: USERINTENT_ and its name in capitals. A flag\n"
      "beats its variable. Durations are numbers with a unit: ms, s, m, h or d. Secrets come from files only, "
      "which\n"
      "others must not be able to read or to write.\n"
      "\n";
  for (const Row& row : kRows) {
    const absl::CommandLineFlag* flag = absl::FindCommandLineFlag(row.name);
    std::string fallback = flag->DefaultValue();
    if (fallback.empty()) fallback = "none";
    // The two defaults that a value cannot say.
    if (std::string_view(row.name) == "reflection") fallback = "true on loopback, else false";
    if (std::string_view(row.name) == "astra_ca_file") fallback = "the system's";
    text += "  --";
    text += row.name;
    text += '=';
    text += row.form.placeholder;
    text += "  (default: ";
    text += fallback;
    text += ")\n      ";
    text += flag->Help();
    text += '\n';
  }
  text += '\n';
  for (const ActionRow& action : kActions) {
    text += "  --";
    text += action.name;
    text += "\n      ";
    text += action.meaning;
    text += '\n';
  }
  return text;
}

std::string VersionText() { return "userintent-server " USERINTENT_VERSION "\n"; }

std::string_view ProgramVersion() { return USERINTENT_VERSION; }

}  // namespace userintent
