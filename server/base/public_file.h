// Reads a file that is no secret, but that says whom to trust: certificates, the policy. Stateless; any thread. Blocks
// for as long as reading a small local file takes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace userintent {

// Refuses a file that is not regular, that others may write, or that has more than `max` bytes. Symbolic links are
// followed.
// `what` names the setting that gave the path, and begins the text of an error, which never holds content or path.
absl::StatusOr<std::string> ReadPublicFile(const std::string& path, std::string_view what,
                                           size_t max = size_t{1} << 20);

}  // namespace userintent
