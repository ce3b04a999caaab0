// What WaitForOutcome and WaitForStatus make of the events of a watch. Errors are those of the watch, and a few of this
// library's own, in the gateway's words where it has some.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "userintent/error.h"
#include "userintent/watch.h"

namespace userintent {
namespace {

Error ErrorWith(absl::StatusCode code, std::string_view reason, std::string message) {
  Error error;
  error.code = code;
  error.reason = std::string(reason);
  error.message = std::move(message);
  error.recovery = std::string(recovery::kStop);
  error.not_repeated = std::string(not_repeated::kNotRetryable);
  error.read = true;
  return error;
}

// It is known what became of the creation.
bool IsDecided(v1::CreationState state) {
  return state == v1::CREATION_STATE_CREATED || state == v1::CREATION_STATE_REJECTED ||
         state == v1::CREATION_STATE_NOT_SENT;
}

bool IsFinal(v1::UserIntentStatus status) {
  return status == v1::USER_INTENT_STATUS_CONVERTED_TO_USER || status == v1::USER_INTENT_STATUS_REJECTED ||
         status == v1::USER_INTENT_STATUS_SUSPENDED;
}

absl::string_view Word(absl::string_view name, absl::string_view prefix) {
  absl::ConsumePrefix(&name, prefix);
  return name;
}

// The first thing that `judge` makes of a state of the request: a Result, or an Error.
template <typename Result, typename Judge>
absl::StatusOr<Result> Await(const Watch& watch, const Watch::Source& source, const std::string& request_id,
                             Judge judge) {
  const auto ended = [&](Error error) {
    error.request_id = request_id;
    error.tries = source.streams();
    return StatusOf(error);
  };
  bool recorded = false;
  while (std::optional<WatchEvent> event = watch.Next()) {
    if (event->kind == WatchEvent::Kind::kReset) {
      recorded = false;
    } else if (event->kind == WatchEvent::Kind::kSynced) {
      if (recorded) continue;
      return ended(
          ErrorWith(absl::StatusCode::kNotFound, "REQUEST_NOT_FOUND", "no such request of this caller is recorded"));
    } else {
      recorded = true;
      if (!IsDecided(event->creation.state())) continue;
      std::optional<std::variant<Result, Error>> verdict = judge(std::move(event->creation));
      if (!verdict.has_value()) continue;
      if (auto* const result = std::get_if<Result>(&*verdict)) return std::move(*result);
      return ended(std::get<Error>(*std::move(verdict)));
    }
  }
  return watch.status();
}

}  // namespace

absl::StatusOr<v1::Creation> Watch::WaitForOutcome() const {
  using Verdict = std::optional<std::variant<v1::Creation, Error>>;
  return Await<v1::Creation>(*this, *source_, request_id_, [](v1::Creation creation) -> Verdict { return creation; });
}

absl::StatusOr<v1::UserIntent> Watch::WaitForStatus(const std::vector<v1::UserIntentStatus>& statuses) const {
  using Verdict = std::optional<std::variant<v1::UserIntent, Error>>;
  return Await<v1::UserIntent>(*this, *source_, request_id_, [&statuses](v1::Creation creation) -> Verdict {
    if (creation.state() != v1::CREATION_STATE_CREATED) {
      return ErrorWith(absl::StatusCode::kFailedPrecondition, "NOT_CREATED",
                       absl::StrCat("there is no intent: the request is ",
                                    Word(v1::CreationState_Name(creation.state()), "CREATION_STATE_")));
    }
    v1::UserIntent& intent = *creation.mutable_user_intent();
    const v1::UserIntentStatus status = intent.status();
    if (std::find(statuses.begin(), statuses.end(), status) != statuses.end()) return std::move(intent);
    if (!IsFinal(status)) return std::nullopt;
    Error error =
        ErrorWith(absl::StatusCode::kFailedPrecondition, reason::kStatusFinal,
                  absl::StrCat("the status is ", Word(v1::UserIntentStatus_Name(status), "USER_INTENT_STATUS_"),
                               ", and stays so"));
    error.final_status = status;
    error.user_intent_id = intent.id();
    return error;
  });
}

}  // namespace userintent
