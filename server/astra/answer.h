// Reads what Astra answered. The bytes are hostile until proved otherwise. Pure; any thread.
//
// A body is read only if it is at most 64 KiB of UTF-8 that form exactly one JSON value, nested at most 16 deep.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace userintent::astra {

// A longer body is not read. The HTTP client cuts it there (http::Options::max_answer_bytes).
inline constexpr size_t kMaxBody = size_t{64} * 1024;

struct Answer {
  std::string id;      // as IsAstraId() asks (server/base/utf8.h); opaque
  std::string status;  // Astra's own word, at most 64 printable ASCII bytes; empty: none, or not fit to keep

  bool operator==(const Answer&) const = default;
};

// The answer to a creation, or nothing when there is no usable id: an object whose member `id` is a string as above.
// An object that says `id` or `status` twice is unusable too, since it is open which one holds. Other members are
// ignored; a `status` of another type or shape is dropped, because the id does not depend on it.
std::optional<Answer> ParseAnswer(std::string_view body);

// ParseAnswer() without its short way for flat bodies (flat_answer.h): says the same of every body. Tests hold the two
// against each other.
std::optional<Answer> ParseAnyAnswer(std::string_view body);

// What is kept of the answer to a GET of an intent. The names, e-mail address, phone number and other metadata beside
// them end in the parser.
struct Reading {
  std::string status;      // as in Answer
  std::string user_id;     // like Answer::id; empty: none, or not fit to keep
  std::string kyc_type;    // as it came; empty: none
  std::string attempt_id;  // gateway_attempt_id of its metadata; empty: none, or more than one
};

// Nothing unless the body is an object whose member `id` is `user_intent_id`. None of the members that are read may
// come twice.
std::optional<Reading> ParseReading(std::string_view body, std::string_view user_intent_id);

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
