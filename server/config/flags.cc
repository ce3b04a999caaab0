#include "server/config/flags.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace userintent::config {
namespace {

// In this file: the table of flags; reading the environment and the command line; --help.

struct Row {
  const char* name;
  const char* meaning;
  bool boolean;
  Form (*form)();
  absl::Status (*take)(std::string_view name, std::string_view text, Settings& settings);
  std::string (*text)(const Settings& settings);
};

template <typename T>
absl::Status Take(std::string_view name, std::string_view text, T* out) {
  return Parse(text, out) ? absl::OkStatus() : Problem(name, FormOf<T>().must);
}

absl::Status Take(std::string_view, std::string_view text, std::optional<astra::LimitRule>* out) {
  out->reset();
  if (text.empty()) return absl::OkStatus();
  absl::StatusOr<astra::LimitRule> rule = astra::ParseLimitRule(text);
  if (!rule.ok()) return rule.status();
  *out = *std::move(rule);
  return absl::OkStatus();
}

template <auto kMember>
constexpr Row RowOf(const char* name, const char* meaning) {
  using T = std::remove_reference_t<decltype(std::declval<Settings&>().*kMember)>;
  return {name,
          meaning,
          std::is_same_v<T, bool> || std::is_same_v<T, std::optional<bool>>,
          &FormOf<T>,
          [](std::string_view flag, std::string_view text, Settings& settings) {
            return Take(flag, text, &(settings.*kMember));
          },
          [](const Settings& settings) { return Text(settings.*kMember); }};
}

// In the order of the contract (section 5); flags that it does not name stand beside their relatives. Defaults are the
// members of Settings.
constexpr Row kRows[] = {
    RowOf<&Settings::listen>(
        "listen", "gRPC address; port 0 takes a free one and logs it; off loopback needs mTLS or --allow_plaintext"),
    RowOf<&Settings::tls_cert_file>("tls_cert_file",
                                    "server certificate chain (PEM); the three --tls_ flags go together"),
    RowOf<&Settings::tls_key_file>("tls_key_file", "its private key (PEM)"),
    RowOf<&Settings::tls_client_ca_file>("tls_client_ca_file",
                                         "authorities of client certificates (PEM), which every caller must have"),
    RowOf<&Settings::tls_client_crl_file>("tls_client_crl_file", "lists of revoked client certificates (CRLs, PEM)"),
    RowOf<&Settings::trust_domain>("trust_domain", "SPIFFE trust domains of callers; FILE: who may name those"),
    RowOf<&Settings::allow_plaintext>("allow_plaintext",
                                      "listen off loopback without TLS, for a service mesh that adds it"),
    RowOf<&Settings::policy_file>("policy_file", "which caller may call what, how often (JSON); none: everything"),
    RowOf<&Settings::environment>("environment", "Astra's; production must be said, and goes with its own host alone"),
    RowOf<&Settings::astra_base_url>("astra_base_url", "where Astra is: https, host and port only"),
    RowOf<&Settings::astra_client_id_file>("astra_client_id_file", "required; holds the client id for HTTP Basic"),
    RowOf<&Settings::astra_client_secret_file>("astra_client_secret_file",
                                               "required; holds the client secret for HTTP Basic"),
    RowOf<&Settings::astra_ca_file>("astra_ca_file",
                                    "authorities for Astra's certificate (PEM) instead of the system's"),
    RowOf<&Settings::astra_app_url>(
        "astra_app_url",
        "where the pages are that GetAuthorizationUrl sends persons to: https, host and port only; empty: Astra's that "
        "go with --astra_base_url, of its sandbox where that is on loopback"),
    RowOf<&Settings::oauth_redirect_uri>("oauth_redirect_uri",
                                         "where callers of GetAuthorizationUrl may have persons sent back to; without "
                                         "one the method refuses every call"),
    RowOf<&Settings::allow_private_upstream>(
        "allow_private_upstream",
        "allow an upstream host with addresses that are not public; localhost and loopback literals need no flag, "
        "another name that leads to loopback does"),
    RowOf<&Settings::astra_limit_error>(
        "astra_limit_error",
        "an answer with this status, and this text in its error, says that the e-mail address has no attempt left"),
    RowOf<&Settings::connect_timeout>("connect_timeout", "limit for one connection to Astra, TCP and TLS"),
    RowOf<&Settings::upstream_timeout>("upstream_timeout", "hard limit of one exchange with Astra"),
    RowOf<&Settings::late_answer_window>(
        "late_answer_window",
        "how long after --upstream_timeout an exchange is listened to, so that a late answer settles its unknown "
        "outcome; 0: not at all"),
    RowOf<&Settings::upstream_connections>("upstream_connections", "connections to Astra, at most"),
    RowOf<&Settings::upstream_http2>("upstream_http2", "offer HTTP/2 to Astra; false: HTTP/1.1 only"),
    RowOf<&Settings::upstream_transport>("upstream_transport",
                                         "what speaks to Astra; auto: nghttp2, libcurl where there is no HTTP/2"),
    RowOf<&Settings::max_connections>("max_connections",
                                      "callers' connections, at most; 0: as the descriptor limit allows, up to 2000"),
    RowOf<&Settings::max_connections_per_address>("max_connections_per_address",
                                                  "of these, from one address (IPv6: /64); 0: half, on loopback all"),
    RowOf<&Settings::max_connection_age>("max_connection_age", "a connection so old is ended, but for calls under way"),
    RowOf<&Settings::memory_watermark>("memory_watermark",
                                       "MiB above which the largest connections end; 0: 80 % of the container"),
    RowOf<&Settings::max_in_flight>("max_in_flight", "calls admitted at once; more are refused at once"),
    RowOf<&Settings::max_waiters_per_request>("max_waiters_per_request",
                                              "calls that may wait for one running request; more are answered at once"),
    RowOf<&Settings::max_waiters_per_caller>("max_waiters_per_caller",
                                             "calls of one caller that may wait for running requests"),
    RowOf<&Settings::watch_streams>("watch_streams", "open WatchUserIntents calls, at most; more are refused at once"),
    RowOf<&Settings::watch_streams_per_caller>("watch_streams_per_caller", "of these, of one caller"),
    RowOf<&Settings::default_deadline>("default_deadline", "for callers that set no deadline"),
    RowOf<&Settings::min_deadline>("min_deadline", "a call with less time left is not started"),
    RowOf<&Settings::ledger>("ledger",
                             "where requests are recorded; sqlite makes the directory; memory is for tests and forgets "
                             "everything at the end"),
    RowOf<&Settings::ledger_key_file>("ledger_key_file",
                                      "required; 32 or more random bytes, the key of the ledger's hashes"),
    RowOf<&Settings::ledger_previous_key_file>("ledger_previous_key_file",
                                               "keys before it, of older rows: files by commas, the last key first"),
    RowOf<&Settings::ledger_must_exist>("ledger_must_exist",
                                        "a path without a ledger is refused instead of getting a new one"),
    RowOf<&Settings::ledger_restored>(
        "ledger_restored", "acknowledges, once, that a backup of this time (RFC 3339) stands for a newer ledger"),
    RowOf<&Settings::retention>("retention",
                                "requests that ended longer ago are forgotten, at least 9504h (13 months); 0: never; "
                                "attempts of e-mail addresses are kept for ever"),
    RowOf<&Settings::released_retention>("released_retention",
                                         "requests that were not sent, or that Astra did not process, longer ago are "
                                         "forgotten; at least 24h"),
    RowOf<&Settings::watch_history>("watch_history",
                                    "changes that are kept, of all callers; who followed an older one begins anew"),
    RowOf<&Settings::webhook_listen>("webhook_listen",
                                     "address that Astra sends webhooks to; empty: none are received; off loopback "
                                     "needs the --webhook_tls_ flags, or --allow_plaintext behind an ingress"),
    RowOf<&Settings::webhook_path>("webhook_path", "the one path there that is served"),
    RowOf<&Settings::webhook_tls_cert_file>("webhook_tls_cert_file",
                                            "certificate chain (PEM) of --webhook_listen; goes with its key"),
    RowOf<&Settings::webhook_tls_key_file>("webhook_tls_key_file", "its private key (PEM)"),
    RowOf<&Settings::webhook_secret_file>(
        "webhook_secret_file",
        "key of the webhooks' signature, instead of the client secret and, for a day, the one before it"),
    RowOf<&Settings::webhook_previous_secret_file>("webhook_previous_secret_file",
                                                   "a client secret of before, which webhooks may be signed with, too"),
    RowOf<&Settings::webhook_connections>("webhook_connections", "connections to --webhook_listen, at most"),
    RowOf<&Settings::webhook_connections_per_address>(
        "webhook_connections_per_address", "of these, from one address (IPv6: /64); 0: half, on loopback all"),
    RowOf<&Settings::webhook_queue>("webhook_queue",
                                    "webhooks that may wait for their GET; more are refused with 503, for Astra to "
                                    "send again"),
    RowOf<&Settings::astra_read_rate>(
        "astra_read_rate", "GETs a second that Astra is asked for intents, at most twice as many at once; 0: no limit"),
    RowOf<&Settings::follow_up>(
        "follow_up",
        "for so long after a creation its status is read from Astra now and then, also when nobody asks; 0: only while "
        "somebody watches it"),
    RowOf<&Settings::email_attempt_limit>("email_attempt_limit",
                                          "attempts per e-mail address; 0 switches the local check off"),
    RowOf<&Settings::kyc_delegation>("kyc_delegation", "ssn_last_four is optional"),
    RowOf<&Settings::allow_non_public_ip>("allow_non_public_ip", "accept ip_address values that are not public"),
    RowOf<&Settings::metrics_listen>("metrics_listen",
                                     "address of /metrics, /livez and /readyz; empty switches them off"),
    RowOf<&Settings::reflection>("reflection", "gRPC reflection"),
    RowOf<&Settings::drain_timeout>("drain_timeout", "for calls under way after SIGTERM or SIGINT"),
    RowOf<&Settings::shards>("shards", "threads that serve calls; 0: one per two cores"),
    RowOf<&Settings::log_level>("log_level", "trace, debug, info, warn or error"),
};

struct ActionRow {
  const char* name;
  Action action;
  const char* placeholder;  // of its value; null: it takes none
  const char* meaning;
};

constexpr ActionRow kActions[] = {
    {"check_config", Action::kCheckConfig, nullptr,
     "check the settings, the files that they name and the ledger's place, changing nothing and without the network; "
     "prints every problem; exits 0 or 1"},
    {"check_policy", Action::kCheckPolicy, "CALLER,METHOD",
     "print what --policy_file says of this caller and method, and which rule counts; needs no other flag; exits 0 for "
     "allowed, else 1"},
    {"healthcheck", Action::kHealthcheck, nullptr, "ask the server that runs with these settings whether it serves"},
    {"help", Action::kHelp, nullptr, "print this and exit; so does -h"},
    {"version", Action::kVersion, nullptr, "print the version and exit"},
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

// The texts by flag, before any is parsed: so that a flag beats a variable even where the variable is wrong.
struct GivenText {
  std::string text;
  bool from_environment = false;
};
using GivenTexts = std::map<std::string, GivenText, std::less<>>;

void ReadEnvironment(const char* const* environment, GivenTexts& given, Problems& problems) {
  for (const char* const* entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.substr(0, kEnvironmentPrefix.size()) != kEnvironmentPrefix) continue;
    const size_t equals = std::min(text.find('='), text.size());
    const std::string_view name = text.substr(0, equals);
    const auto* row =
        std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return EnvironmentName(r) == name; });
    if (row == std::end(kRows)) {
      problems.Add(
          absl::InvalidArgumentError(Shown(name) + ": unknown variable of the environment; no flag has this name"));
      continue;
    }
    const std::string_view value = equals == text.size() ? std::string_view() : text.substr(equals + 1);
    // Of two entries of one name the first counts, as for getenv.
    given.try_emplace(row->name, GivenText{std::string(value), true});
  }
}

// Abseil's syntax: --flag=value, --flag value, one dash or two, --flag and --noflag for booleans.
class CommandLine {
 public:
  CommandLine(int argc, const char* const* argv, GivenTexts& given, Flags& flags)
      : argc_(argc), argv_(argv), given_(given), flags_(flags) {}

  void Read() {
    for (; at_ < argc_ && flags_.understood; ++at_) ReadWord(argv_[at_]);
  }

 private:
  void ReadWord(std::string_view word) {
    if (word.size() < 2 || word.front() != '-' || word == "--") {
      flags_.problems.Add(absl::InvalidArgumentError(
          "argument " + std::to_string(at_) +
          " is no flag: only flags are understood, and true or false follows its flag after a ="));
      flags_.understood = false;
      return;
    }
    word.remove_prefix(word.substr(0, 2) == "--" ? 2 : 1);
    const size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string_view::npos) value = std::string(word.substr(equals + 1));
    if (const ActionRow* action = FindAction(name)) return TakeAction(*action, std::move(value));
    TakeFlag(name, std::move(value));
  }

  void TakeAction(const ActionRow& row, std::optional<std::string> value) {
    if (value && row.placeholder == nullptr) return flags_.problems.Add(row.name, "takes no value");
    if (flags_.action != Action::kServe && flags_.action != row.action) {
      flags_.problems.Add(row.name, "contradicts the other flag that says what to do");
      return;
    }
    flags_.action = row.action;
    if (row.placeholder == nullptr) return;
    if (!value && !ValueFollows()) return flags_.problems.Add(row.name, "needs a value");
    flags_.question = value ? *std::move(value) : argv_[++at_];
  }

  bool ValueFollows() const { return at_ + 1 < argc_ && std::string_view(argv_[at_ + 1]).substr(0, 2) != "--"; }

  void TakeFlag(std::string_view name, std::optional<std::string> value) {
    const Row* row = FindRow(name);
    if (row == nullptr && !value && name.substr(0, 2) == "no") {
      row = FindRow(name.substr(2));
      if (row != nullptr && !row->boolean) row = nullptr;
      if (row != nullptr) value = "false";
    }
    if (row == nullptr) {
      flags_.problems.Add(Shown(name), "there is no such flag; --help lists all");
      if (!value && ValueFollows() && argv_[at_ + 1][0] != '-') ++at_;  // its value, most likely
      return;
    }
    if (!value && row->boolean) value = "true";
    if (!value) {
      if (!ValueFollows()) return flags_.problems.Add(name, "needs a value");
      value = argv_[++at_];
    }
    given_[row->name] = {*std::move(value), false};
  }

  const int argc_;
  const char* const* const argv_;
  int at_ = 1;
  GivenTexts& given_;
  Flags& flags_;
};

// --help and --version work beside any other mistake on the command line.
Action WantedInformation(int argc, const char* const* argv) {
  for (const Action action : {Action::kHelp, Action::kVersion}) {
    for (int i = 1; i < argc; ++i) {
      std::string_view word = argv[i];
      if (word.substr(0, 2) == "--") word.remove_prefix(1);
      if (word == (action == Action::kHelp ? "-help" : "-version")) return action;
      if (action == Action::kHelp && word == "-h") return action;
    }
  }
  return Action::kServe;
}

// What --help says of a default. Two defaults are no value that can be written.
std::string DefaultText(const Row& row) {
  static const Settings defaults;
  if (std::string_view(row.name) == "reflection") return "true on loopback, else false";
  if (std::string_view(row.name) == "astra_ca_file") return "the system's";
  std::string text = row.text(defaults);
  return text.empty() ? "none" : text;
}

}  // namespace

absl::Status Flags::WithSources(const Problems& found) const {
  Problems told;
  for (const std::string& line : found.lines()) {
    const auto variable =
        line.substr(0, 2) == "--" ? variables.find(line.substr(2, line.find(':') - 2)) : variables.end();
    told.Add(
        absl::InvalidArgumentError(variable == variables.end() ? line : line + " (set by " + variable->second + ')'));
  }
  return told.Joined();
}

Flags ReadFlags(int argc, const char* const* argv, const char* const* environment) {
  Flags flags;
  flags.action = WantedInformation(argc, argv);
  if (flags.action != Action::kServe) return flags;
  GivenTexts given;
  ReadEnvironment(environment, given, flags.problems);
  CommandLine(argc, argv, given, flags).Read();
  for (const Row& row : kRows) {
    const auto found = given.find(row.name);
    if (found == given.end()) continue;
    if (found->second.from_environment) flags.variables.emplace(row.name, EnvironmentName(row));
    if (flags.understood) flags.problems.Add(row.take(row.name, found->second.text, flags.settings));
  }
  return flags;
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
    text += "  --";
    text += row.name;
    text += '=';
    text += row.form().placeholder;
    text += "  (default: ";
    text += DefaultText(row);
    text += ")\n      ";
    text += row.meaning;
    text += '\n';
  }
  text += '\n';
  for (const ActionRow& action : kActions) {
    text += "  --";
    text += action.name;
    if (action.placeholder != nullptr) text.append("=").append(action.placeholder);
    text += "\n      ";
    text += action.meaning;
    text += '\n';
  }
  return text;
}

std::string VersionText() { return "userintent-server " USERINTENT_VERSION "\n"; }

std::string_view ProgramVersion() { return USERINTENT_VERSION; }

}  // namespace userintent::config
