#include "server/admin/ask.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "server/base/secret_file.h"
#include "server/base/text.h"

namespace userintent::admin {
namespace {

constexpr size_t kLongestLine = 1024;

// Without the end of the line; nothing when stdin ends before one begins, or the line is too long.
std::optional<std::string> ReadLine() {
  std::string line;
  for (;;) {
    const int c = std::getchar();
    if (c == '\n' || (c == EOF && !line.empty())) break;
    if (c == EOF || line.size() == kLongestLine) return std::nullopt;
    line.push_back(static_cast<char>(c));
  }
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

}  // namespace

bool OnTerminal() { return ::isatty(STDIN_FILENO) == 1; }

absl::Status AskForYes(std::string_view text) {
  std::fprintf(stderr, "%.*s\nGo on? Say yes: ", static_cast<int>(text.size()), text.data());
  std::fflush(stderr);
  if (ReadLine() == "yes") return absl::OkStatus();
  return absl::CancelledError("nothing was changed");
}

absl::StatusOr<std::string> ReadEmail() {
  if (OnTerminal()) {
    std::fputs("e-mail address: ", stderr);
    std::fflush(stderr);
  }
  std::optional<std::string> line = ReadLine();
  // What the gateway would not take was never recorded; so this is a slip, and no answer would be better than "none".
  const bool good = line && line->size() <= 254 && std::count(line->begin(), line->end(), '@') == 1 &&
                    line->front() != '@' && line->back() != '@' && AllVisible(*line);
  if (!good)
    return absl::InvalidArgumentError("stdin must hold one line, which is an e-mail address; --help tells more");
  return *std::move(line);
}

absl::StatusOr<std::unique_ptr<const intent::Fingerprinter>> ReadKeys(const std::string& current,
                                                                      const std::string& previous) {
  const absl::StatusOr<Secret> key = ReadLedgerKey(current, "--ledger_key_file");
  if (!key.ok()) return key.status();
  std::vector<Secret> older;
  for (const auto& path : absl::StrSplit(previous, ',', absl::SkipEmpty())) {
    absl::StatusOr<Secret> one = ReadLedgerKey(std::string(path), "--ledger_previous_key_file");
    if (!one.ok()) return one.status();
    older.push_back(*std::move(one));
  }
  return std::make_unique<const intent::Fingerprinter>(*key, older);
}

}  // namespace userintent::admin
