// --check_policy: what the policy file says of one caller and method. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/policy/policy.h"

namespace userintent::config {

struct PolicyAnswer {
  bool allowed = false;
  std::string text;  // one line: the verdict, the rule that counts, and its limits
};

// `question` is "CALLER,METHOD"; the caller as in the file or as in the log. What cannot be understood is an error that
// begins with --check_policy.
absl::StatusOr<PolicyAnswer> CheckPolicy(const policy::Policy& policy, std::string_view question);

}  // namespace userintent::config
