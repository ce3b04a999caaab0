// Flags: from a command line and an environment to Settings. The table of flags is in flags.cc, in the order of the
// contract.
//
// Pure functions; any thread. They read no file and print nothing.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/config/problems.h"
#include "server/config/settings.h"

namespace userintent::config {

// What the process shall do; given by --help, --version, --check_config, --check_policy and
// --healthcheck.
enum class Action { kServe, kHelp, kVersion, kCheckConfig, kCheckPolicy, kHealthcheck };

// What was given. A flag that cannot be read has its default, and a line in `problems`.
struct Flags {
  Action action = Action::kServe;
  std::string question;  // of kCheckPolicy
  Settings settings;
  Problems problems;
  // False: a word could not be understood, so it is unknown what else was meant, and the settings are the defaults.
  bool understood = true;
  // By flag, the variable of the environment that its value came from.
  std::map<std::string, std::string, std::less<>> variables;

  // `found` as a status. Each line says which variable set its flag, which the text of the problem does not know.
  absl::Status WithSources(const Problems& found) const;
};

// A flag beats its variable, even where the variable's text is wrong. With kHelp and kVersion nothing else is looked
// at. `environment` ends with a null pointer, like environ.
Flags ReadFlags(int argc, const char* const* argv, const char* const* environment);

// What --help and --version print.
std::string HelpText();
std::string VersionText();

// The version of the program, without its name.
std::string_view ProgramVersion();

}  // namespace userintent::config
