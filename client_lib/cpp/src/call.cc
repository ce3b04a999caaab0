#include "src/call.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "src/decode.h"
#include "src/utf8.h"

namespace userintent {

double RandomJitter() {
  thread_local absl::InsecureBitGen generator;
  return absl::Uniform(generator, 0.0, 1.0);
}

std::optional<Error> Unsendable(const google::protobuf::Message& request) {
  const size_t bytes = request.ByteSizeLong();
  Error error;
  if (bytes > kMaxRequestBytes) {
    error.message =
        absl::StrCat("the request has ", bytes, " bytes, more than the ", kMaxRequestBytes, " that may be sent");
  } else if (!IsUtf8(request)) {
    error.message = "a string in the request is not UTF-8";
  } else {
    return std::nullopt;
  }
  error.code = absl::StatusCode::kInvalidArgument;
  // In the gateway's words for bytes that are no message.
  error.reason = "MALFORMED_REQUEST";
  error.recovery = std::string(recovery::kFixRequest);
  return error;
}

bool Budget::Take() {
  absl::MutexLock lock(&mu_);
  if (tokens_ < kRepeat) return false;
  tokens_ -= kRepeat;
  return true;
}

void Budget::Succeeded() {
  absl::MutexLock lock(&mu_);
  tokens_ = std::min(tokens_ + kSuccess, kCapacity);
}

absl::Duration SteadyNow() { return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

std::chrono::system_clock::time_point In(absl::Duration left) {
  return absl::ToChronoTime(absl::Now() + std::min(left, absl::Hours(24 * 365)));
}

Call::Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget)
    : Call(std::move(request_id), timeout, max_tries, budget, &SteadyNow, &RandomJitter) {}

Call::Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget, Clock clock, Jitter jitter)
    : request_id_(std::move(request_id)),
      max_tries_(max_tries),
      budget_(budget),
      clock_(clock),
      jitter_(jitter),
      deadline_(clock() + timeout) {}

void Call::IsRead(std::string user_intent_id) {
  read_ = true;
  user_intent_id_ = std::move(user_intent_id);
}

std::optional<absl::Duration> Call::BeginTry() {
  const absl::Duration left = deadline_ - clock_();
  if (left <= absl::ZeroDuration()) {
    if (tries_ == 0) {
      EndHere(absl::StatusCode::kDeadlineExceeded, "the deadline was over before the call began");
    } else {
      Complete(not_repeated::kDeadline);  // the wait took longer than it should have; the error before it stands
    }
    return std::nullopt;
  }
  ++tries_;
  return left;
}

bool Call::Accepts(const google::protobuf::Message& request) {
  std::optional<Error> refused = Unsendable(request);
  if (!refused.has_value()) return true;
  error_ = *std::move(refused);
  error_.sent = std::string(sent::kNo);
  Complete(not_repeated::kNotRetryable);
  return false;
}

std::optional<absl::Duration> Call::Failed(Error error) {
  error_ = std::move(error);
  const auto ends = [this](std::string_view why) {
    Complete(why);
    return std::nullopt;
  };
  if (!error_.retry_after.has_value()) return ends(not_repeated::kNotRetryable);
  if (tries_ >= max_tries_) return ends(not_repeated::kMaxTries);
  // Not before the delay that the gateway asked for, and spread: many callers must not come back at one moment.
  const absl::Duration wait = *error_.retry_after * (1.0 + 0.25 * jitter_());
  if (clock_() + wait >= deadline_) return ends(not_repeated::kDeadline);
  if (!budget_->Take()) return ends(not_repeated::kBudget);
  return wait;
}

void Call::Cancelled() {
  EndHere(absl::StatusCode::kCancelled,
          tries_ == 0 ? "cancelled before the call began" : "cancelled while waiting to repeat");
}

void Call::EndHere(absl::StatusCode code, std::string message) {
  error_ = Error();
  error_.code = code;
  error_.message = std::move(message);
  if (tries_ == 0) {  // nothing left this process
    error_.sent = std::string(sent::kNo);
    error_.recovery = std::string(recovery::kRetrySameId);
  }
  Complete(not_repeated::kNotRetryable);
}

void Call::Complete(std::string_view not_repeated) {
  error_.request_id = request_id_;
  error_.tries = tries_;
  error_.not_repeated = std::string(not_repeated);
  if (!read_) return;
  error_.read = true;
  error_.sent.clear();
  if (error_.user_intent_id.empty()) error_.user_intent_id = user_intent_id_;
  if (error_.reason.empty() && error_.recovery.empty() && SameCallLater(error_.code)) {
    error_.recovery = std::string(recovery::kRetrySameId);
  }
}

}  // namespace userintent
