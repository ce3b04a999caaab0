#include "server/base/duration.h"

#include <string>

namespace userintent {

bool ReadDuration(std::string_view text, absl::Duration* out) {
  const size_t d = text.find('d');  // no other unit has this letter
  if (d == std::string_view::npos) return absl::ParseDuration(std::string(text), out);
  if (text.substr(0, d).find_first_not_of("+-.0123456789") != std::string_view::npos) return false;
  const std::string_view rest = text.substr(d + 1);
  // The sign stands in front of all.
  if (rest.substr(0, 1).find_first_of("+-") != std::string_view::npos) return false;
  absl::Duration hours;
  absl::Duration more;
  const bool negative = text.front() == '-';
  if (!absl::ParseDuration(std::string(text.substr(0, d)) + 'h', &hours)) return false;
  if (!rest.empty() && !absl::ParseDuration(std::string(rest), &more)) return false;
  *out = hours * 24 + (negative ? -more : more);
  return true;
}

}  // namespace userintent
