// Problems: what is wrong with the settings, one line for each flag.
//
// Error texts begin with the flag's name and hold no value: someone may have put a secret where a path belongs, and a
// variable of the environment where none of ours belongs. One thread.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace userintent::config {

// "--flag: text".
absl::Status Problem(std::string_view flag, std::string_view text);

// In the order of finding. A second line about a flag is dropped: what else is wrong with it, or with another because
// of it, is not known before the first is put right.
class Problems {
 public:
  // Each line of the status; nothing for OK.
  void Add(const absl::Status& status);
  void Add(std::string_view flag, std::string_view text) { Add(Problem(flag, text)); }

  bool Has(std::string_view flag) const { return flags_.contains("--" + std::string(flag)); }
  bool empty() const { return lines_.empty(); }
  const std::vector<std::string>& lines() const { return lines_; }

  // OK where there is none.
  absl::Status Joined() const;

 private:
  void AddLine(std::string line);

  std::vector<std::string> lines_;
  std::set<std::string> flags_;
};

}  // namespace userintent::config
