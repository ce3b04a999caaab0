#include "src/call.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/random/random.h"

namespace userintent {
namespace {

double RandomJitter() {
  thread_local absl::InsecureBitGen generator;
  return absl::Uniform(generator, 0.0, 1.0);
}

}  // namespace

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

Call::Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget)
    : Call(std::move(request_id), timeout, max_tries, budget, &SteadyNow, &RandomJitter) {}

Call::Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget, Clock clock, Jitter jitter)
    : request_id_(std::move(request_id)),
      max_tries_(max_tries),
      budget_(budget),
      clock_(clock),
      jitter_(jitter),
      deadline_(clock() + timeout) {}

std::optional<absl::Duration> Call::BeginTry() {
  const absl::Duration left = deadline_ - clock_();
  // A wait that took longer than it should have. The first try is made all the same: gRPC answers it.
  if (tries_ > 0 && left <= absl::ZeroDuration()) return std::nullopt;
  ++tries_;
  return left;
}

std::optional<absl::Duration> Call::Failed(Error error) {
  error_ = std::move(error);
  error_.request_id = request_id_;
  error_.tries = tries_;
  if (!error_.retry_after.has_value() || tries_ >= max_tries_) return std::nullopt;
  // Not before the delay that the gateway asked for, and spread: many callers must not come back at one moment.
  const absl::Duration wait = *error_.retry_after * (1.0 + 0.25 * jitter_());
  if (clock_() + wait >= deadline_ || !budget_->Take()) return std::nullopt;
  return wait;
}

void Call::Cancelled() {
  error_ = Error();
  error_.code = absl::StatusCode::kCancelled;
  error_.message = "cancelled while waiting to repeat";
  error_.request_id = request_id_;
  error_.tries = tries_;
}

}  // namespace userintent
