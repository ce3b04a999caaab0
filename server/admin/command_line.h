// The command line of userintent-ledger.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace userintent::admin {

const char* Help();

struct CommandLine {
  std::vector<std::string> words;  // the command and its argument
  std::map<std::string, std::string, std::less<>> flags;
  bool help = false;

  bool has(std::string_view flag) const { return flags.find(flag) != flags.end(); }
  std::string get(std::string_view flag) const {
    const auto found = flags.find(flag);
    return found == flags.end() ? std::string() : found->second;
  }
};

// Wrong usage, in one line.
absl::Status Usage(const std::string& text);

absl::StatusOr<CommandLine> Parse(int argc, const char* const* argv);

// Whether the command takes each of the flags given.
absl::Status CheckFlags(const CommandLine& line);

}  // namespace userintent::admin
