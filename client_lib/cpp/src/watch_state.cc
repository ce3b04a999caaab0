#include "src/watch_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "src/call.h"

namespace userintent {
namespace {

// What no repeat of the same watch helps against, whoever says it. Everything else passes, unless the gateway itself
// says that it does not: by leaving RetryInfo out, or forbidding repeats.
bool IsFinal(const Error& error) {
  switch (error.code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
      return true;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return false;
    default:
      return !error.reason.empty() && !error.retry_after.has_value();
  }
}

}  // namespace

WatchState::WatchState(const WatchOptions& options) : WatchState(options, &SteadyNow, &RandomJitter) {}

WatchState::WatchState(const WatchOptions& options, Clock clock, Jitter jitter)
    : clock_(clock), jitter_(jitter), deadline_(clock() + options.timeout.value_or(absl::InfiniteDuration())) {
  for (const std::string& id : options.request_ids) request_.add_request_ids(id);
  request_.set_resume_token(options.resume_token);
}

std::optional<absl::Duration> WatchState::BeginStream() {
  const absl::Duration left = deadline_ - clock_();
  if (left <= absl::ZeroDuration()) {
    // What stood in the way is worth knowing.
    EndHere(absl::StatusCode::kDeadlineExceeded, absl::StrCat("the deadline was over", trouble_));
    return std::nullopt;
  }
  if (std::optional<Error> refused = Unsendable(request_); refused.has_value()) {
    error_ = OfWatch(*std::move(refused));
    return std::nullopt;
  }
  ++streams_;
  return left;
}

std::optional<WatchEvent> WatchState::Heard(v1::WatchUserIntentsResponse message) {
  trouble_.clear();
  WatchEvent event;
  bool wanted = true;
  switch (message.event_case()) {
    case v1::WatchUserIntentsResponse::kChanged:
      event.creation = std::move(*message.mutable_changed());
      break;
    case v1::WatchUserIntentsResponse::kSynced:
      event.kind = WatchEvent::Kind::kSynced;
      wanted = !std::exchange(synced_, true);
      break;
    case v1::WatchUserIntentsResponse::kReset:
      event.kind = WatchEvent::Kind::kReset;
      synced_ = false;
      request_.clear_resume_token();  // what it stood for is not kept any more
      break;
    default:  // a heartbeat, or what only a newer gateway knows
      lost_ = 0;
      wanted = false;
  }
  if (!message.resume_token().empty()) request_.set_resume_token(std::move(*message.mutable_resume_token()));
  if (!wanted) return std::nullopt;
  lost_ = 0;
  event.resume_token = request_.resume_token();
  return event;
}

std::optional<absl::Duration> WatchState::Lost(Error error) {
  error_ = std::move(error);
  if (IsFinal(error_)) {
    error_ = OfWatch(std::move(error_));
    return std::nullopt;
  }
  if (error_.code != absl::StatusCode::kOk && error_.code != absl::StatusCode::kDeadlineExceeded) {
    trouble_ = absl::StrCat("; no stream came about: ", absl::StatusCodeToString(error_.code), ", ", error_.message);
  }
  constexpr absl::Duration kFirst = absl::Milliseconds(100);
  constexpr absl::Duration kLongest = absl::Seconds(10);
  // Anything up to the limit: streams that ended at one moment must not come back at one.
  absl::Duration wait = std::min(kFirst * (1 << std::min(lost_, 10)), kLongest) * jitter_();
  if (error_.retry_after.has_value()) wait = std::max(wait, *error_.retry_after * (1.0 + 0.25 * jitter_()));
  ++lost_;
  return std::min(wait, std::max(deadline_ - clock_(), absl::ZeroDuration()));
}

void WatchState::Cancelled() { EndHere(absl::StatusCode::kCancelled, "the watch was cancelled"); }

Error WatchState::OfWatch(Error error) const {
  error.read = true;
  error.sent.clear();
  if (request_.request_ids_size() == 1) error.request_id = request_.request_ids(0);
  error.tries = streams_;
  error.not_repeated = std::string(not_repeated::kNotRetryable);
  return error;
}

void WatchState::EndHere(absl::StatusCode code, std::string message) {
  Error error;
  error.code = code;
  error.message = std::move(message);
  error.recovery = std::string(recovery::kRetrySameId);
  error_ = OfWatch(std::move(error));
  if (code == absl::StatusCode::kDeadlineExceeded) error_.not_repeated = std::string(not_repeated::kDeadline);
}

}  // namespace userintent
