// Why a file that a setting names is not taken, for those who read such files. Stateless; any thread.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace userintent {

// "WHAT: REASON"; `what` names the setting, and neither holds content or path.
inline absl::Status Refused(std::string_view what, std::string_view reason) {
  // Joined without absl: its string_view is the standard one in some builds and its own in others.
  return absl::InvalidArgumentError(std::string(what).append(": ").append(reason));
}

}  // namespace userintent
