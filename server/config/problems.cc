#include "server/config/problems.h"

#include <algorithm>
#include <utility>

namespace userintent::config {

absl::Status Problem(std::string_view flag, std::string_view text) {
  std::string message = "--";
  message += flag;
  message += ": ";
  message += text;
  return absl::InvalidArgumentError(message);
}

void Problems::Add(const absl::Status& status) {
  if (status.ok()) return;
  const std::string text(status.message());
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    AddLine(text.substr(at, end - at));
    at = end + 1;
  }
}

void Problems::AddLine(std::string line) {
  if (flags_.insert(line.substr(0, line.find(':'))).second) lines_.push_back(std::move(line));
}

absl::Status Problems::Joined() const {
  if (lines_.empty()) return absl::OkStatus();
  std::string text;
  for (const std::string& line : lines_) text += (text.empty() ? "" : "\n") + line;
  return absl::InvalidArgumentError(text);
}

}  // namespace userintent::config
