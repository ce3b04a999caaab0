// Every answer that the webhook door gives, with the word that it is counted by. Texts are fixed: nothing of a request
// is ever in one, and every request without a good signature hears the same.
//
// Pure values; any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace userintent::webhook {

enum class Answer {
  kStored,
  kWaits,
  kDone,
  kBadRequest,
  kWrongShape,
  kNoSignature,
  kNotFound,
  kWrongMethod,
  kTooSlow,
  kNoLength,
  kTooLarge,
  kFull,
  kUnavailable,
  kWrongVersion,
};

struct AnswerRow {
  std::string_view name;
  unsigned int status;
  std::string_view text;
};

// Indexed by Answer.
inline constexpr AnswerRow kAnswers[] = {
    {"stored", 200, "ok\n"},
    {"waits", 200, "ok\n"},
    {"done", 200, "ok\n"},
    {"bad_request", 400, "bad request\n"},
    {"wrong_shape", 400, "not a webhook\n"},
    {"no_signature", 401, "no valid signature\n"},
    {"not_found", 404, "not found\n"},
    {"wrong_method", 405, "only POST\n"},
    {"too_slow", 408, "too slow\n"},
    {"no_length", 411, "Content-Length is required\n"},
    {"too_large", 413, "too large\n"},
    {"queue_full", 503, "try again later\n"},
    {"ledger_unavailable", 503, "try again later\n"},
    {"wrong_version", 505, "only HTTP/1.1\n"},
};
inline constexpr size_t kAnswerCount = sizeof kAnswers / sizeof kAnswers[0];

constexpr const AnswerRow& RowOf(Answer answer) { return kAnswers[static_cast<size_t>(answer)]; }

}  // namespace userintent::webhook
