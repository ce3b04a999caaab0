#include "server/config/flags.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "server/config/flag_rows.h"

namespace userintent::config {
namespace {

// In this file: reading the environment and the command line; --help.

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

const FlagRow* FindRow(std::string_view name) {
  const auto row = std::find_if(FlagRows().begin(), FlagRows().end(), [&](const FlagRow& r) { return name == r.name; });
  return row == FlagRows().end() ? nullptr : &*row;
}

const ActionRow* FindAction(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kActions), std::end(kActions), [&](const ActionRow& r) { return name == r.name; });
  return row == std::end(kActions) ? nullptr : row;
}

std::string EnvironmentName(const FlagRow& row) {
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
    const auto* row = std::find_if(FlagRows().begin(), FlagRows().end(),
                                   [&](const FlagRow& r) { return EnvironmentName(r) == name; });
    if (row == FlagRows().end()) {
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
    const FlagRow* row = FindRow(name);
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

// What --help says of a default. Three defaults are no value that can be written.
std::string DefaultText(const FlagRow& row) {
  static const Settings defaults;
  if (std::string_view(row.name) == "reflection") return "true on loopback, else false";
  if (std::string_view(row.name) == "lame_duck") return "5s, on loopback 0";
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

namespace {

// A default must not contradict what was given: who shortens the whole exchange need not know of the connection's part.
void FitDefaults(const GivenTexts& given, Settings& settings) {
  const auto is_default = [&given](const char* flag) { return given.find(flag) == given.end(); };
  if (is_default("connect_timeout") && settings.upstream_timeout > absl::ZeroDuration()) {
    settings.connect_timeout = std::min(settings.connect_timeout, settings.upstream_timeout);
  }
  if (is_default("min_deadline") && settings.default_deadline > absl::ZeroDuration()) {
    settings.min_deadline = std::min(settings.min_deadline, settings.default_deadline / 2);
  }
}

}  // namespace

Flags ReadFlags(int argc, const char* const* argv, const char* const* environment) {
  Flags flags;
  flags.action = WantedInformation(argc, argv);
  if (flags.action != Action::kServe) return flags;
  GivenTexts given;
  ReadEnvironment(environment, given, flags.problems);
  CommandLine(argc, argv, given, flags).Read();
  for (const FlagRow& row : FlagRows()) {
    const auto found = given.find(row.name);
    if (found == given.end()) continue;
    if (found->second.from_environment) flags.variables.emplace(row.name, EnvironmentName(row));
    if (flags.understood) flags.problems.Add(row.take(row.name, found->second.text, flags.settings));
  }
  FitDefaults(given, flags.settings);
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
  for (const FlagRow& row : FlagRows()) {
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
