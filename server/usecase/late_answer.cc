#include "server/usecase/late_answer.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "server/base/crash_point.h"
#include "server/base/time.h"
#include "server/usecase/messages.h"
#include "server/usecase/retry_policy.h"

namespace userintent::usecase {
namespace {

// An answer that comes when the window is nearly over has still so long to be recorded.
constexpr std::chrono::minutes kAtLeast{1};

std::string EvidenceOf(const astra::Outcome& outcome) {
  if (outcome.http_status == 0) return "HTTP/2 stream refused unprocessed";
  return "HTTP status " + std::to_string(outcome.http_status);
}

}  // namespace

void LateAnswer::OnRecorded() {
  recorded_ = true;
  if (proof_) Settle();
}

void LateAnswer::OnOutcome(const astra::Outcome& outcome) {
  CrashPoint("late-answer-not-recorded");
  const SteadyTime now = deps_.loop.Now();
  deps_.observer.OnLateAnswer(key_.request_id, attempt_id_, outcome);
  if (outcome.verdict == astra::Verdict::kRateLimited) {
    deps_.admission.HoldBack(now, outcome.retry_after.value_or(kDefaultRetryAfter));
  }
  const RetryPolicy::Record decided = RetryPolicy::WithoutAnotherTry(outcome);
  // A 2xx line without a usable body settles nothing, and counts as an attempt as it would have in time.
  if (decided.state == ledger::State::kUnknown && !outcome.confirmed) return;
  ledger::SettleRequest proof;
  proof.key = key_;
  proof.attempt_id = attempt_id_;
  proof.state = decided.state;
  proof.sent = SentOf(outcome.verdict);
  proof.reason = decided.reason;
  proof.now = NowMicros();
  proof.answer = ToAnswer(outcome, proof.now);
  proof.action = "settle by late answer";
  proof.evidence = EvidenceOf(outcome);
  proof_ = std::move(proof);
  give_up_ = now + std::max<SteadyClock::duration>(deps_.late_window, kAtLeast);
  if (recorded_) Settle();
}

void LateAnswer::Settle() {
  proof_->now = NowMicros();
  deps_.ledger.Settle(*proof_, deps_.loop,
                      [self = shared_from_this()](const ledger::SettleAnswer& answer) { self->OnSettled(answer); });
}

void LateAnswer::OnSettled(const ledger::SettleAnswer& answer) {
  const bool later =
      answer.verdict == ledger::SettleVerdict::kStillRuns || answer.verdict == ledger::SettleVerdict::kUnavailable;
  if (!later) return deps_.observer.OnSettled(SettleWay::kLateAnswer, key_, answer);
  const SteadyTime next = deps_.loop.Now() + pause_;
  if (next > give_up_) return;
  pause_ = std::min<SteadyClock::duration>(pause_ * 2, kLongestPause);
  deps_.loop.CallAt(next, [self = shared_from_this()] { self->Settle(); });
}

}  // namespace userintent::usecase
