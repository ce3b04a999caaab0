// Reads what Astra answered. The bytes are hostile until proved otherwise. Pure; any thread.
//
// A body is read only if it is at most 64 KiB of UTF-8 that form exactly one JSON value, nested at most 16 deep.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace userintent::astra {

struct Answer {
  std::string id;      // 1-256 bytes without control characters; opaque
  std::string status;  // Astra's own word, at most 64 printable ASCII bytes; empty: none, or not fit to keep
};

// The answer to a creation, or nothing when there is no usable id: an object whose member `id` is a string as above.
// An object that says `id` or `status` twice is unusable too, since nobody knows which one holds. Other members are
// ignored; a `status` of another type or shape is dropped, because the id does not depend on it.
std::optional<Answer> ParseAnswer(std::string_view body);

// Whether an error body has a shape in which Astra writes errors: a JSON object with one of the members that its
// documentation names (code, name, description, error, error_description, status_code).
bool IsAstraError(std::string_view body);

// --astra_limit_error: what an answer looks like that says "this e-mail address has used its attempts".
struct LimitRule {
  int status = 0;         // 400-499
  std::string substring;  // not empty
};

// Reads "STATUS:SUBSTRING"; the substring is everything after the first colon. Error texts name the flag.
absl::StatusOr<LimitRule> ParseLimitRule(std::string_view text);

// Whether an error body contains `substring`, case-sensitively: inside some string value (not a key) when the body is
// JSON, anywhere in its bytes when it is not.
bool ErrorBodyContains(std::string_view body, std::string_view substring);

}  // namespace userintent::astra
