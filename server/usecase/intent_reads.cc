#include "server/usecase/intent_reads.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/random/random.h"
#include "server/base/time.h"
#include "server/usecase/call.h"
#include "server/usecase/retry_policy.h"

namespace userintent::usecase {

// The GETs for one intent. Belongs to the thread of the shard that began it; its callbacks keep it alive.
class IntentReads::ActiveRead final : public std::enable_shared_from_this<ActiveRead> {
 public:
  ActiveRead(IntentReads& reads, const Shard& shard, std::shared_ptr<const ledger::Record> record)
      : reads_(reads), shard_(shard), record_(std::move(record)) {}

  // Sends a GET, or ends the read where the budget is spent.
  void Try() {
    sent_at_ = shard_.loop.Now();
    if (const SteadyClock::duration wait = reads_.budget_.Take(sent_at_); wait > SteadyClock::duration::zero()) {
      CallError error = CallError::Of(v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
      error.retry_after = absl::FromChrono(wait);
      error.message = "The gateway has read Astra as often as it may for now. Repeat after the delay.";
      return End(std::move(error));
    }
    shard_.astra.Get(record_->answer.user_intent_id,
                     [self = shared_from_this()](astra::ReadOutcome outcome) { self->OnOutcome(std::move(outcome)); });
  }

 private:
  void OnOutcome(astra::ReadOutcome outcome) {
    const SteadyTime now = shard_.loop.Now();
    tries_.Count(outcome);
    reads_.observer_.OnRead(record_->key.request_id, outcome, now - sent_at_);

    const std::optional<SteadyTime> latest = reads_.LatestDeadline(record_->answer.user_intent_id);
    RetryFacts facts;
    facts.wanted = latest.has_value() && !reads_.admission_.draining();
    if (latest) {
      facts.longest_wait = LongestWait(now, *latest, reads_.admission_.options().min_deadline);
    }
    facts.new_credentials = ReadRetryPolicy::AsksForCredentials(outcome, tries_) && shard_.astra.RefreshCredentials();
    facts.random = outcome.verdict == astra::ReadVerdict::kRead ? 0 : absl::Uniform(absl::BitGen(), 0.0, 1.0);
    const ReadRetryPolicy::Decision decision = ReadRetryPolicy::Next(outcome, tries_, facts);
    if (const auto* const again = std::get_if<ReadRetryPolicy::TryAgain>(&decision)) {
      shard_.loop.CallAt(now + absl::ToChronoNanoseconds(again->wait),
                         [self = shared_from_this(), otherwise = ErrorOf(outcome, again->otherwise)] {
                           self->TryIfWanted(otherwise);
                         });
      return;
    }
    if (const auto* const give_up = std::get_if<ReadRetryPolicy::GiveUp>(&decision)) {
      return End(ErrorOf(outcome, *give_up));
    }
    End(Record(std::move(outcome)));
  }

  void TryIfWanted(const CallError& otherwise) {
    if (!reads_.LatestDeadline(record_->answer.user_intent_id) || reads_.admission_.draining()) return End(otherwise);
    Try();
  }

  void End(const Result<ledger::Reading>& result) { reads_.End(record_->answer.user_intent_id, result); }

  static CallError ErrorOf(const astra::ReadOutcome& outcome, const ReadRetryPolicy::GiveUp& give_up) {
    CallError error = CallError::Of(give_up.reason);
    error.retry_after = give_up.retry_after;
    error.http_status = outcome.http_status;
    error.astra_request_id = outcome.astra_request_id;
    if (give_up.reason == v1::ERROR_REASON_UPSTREAM_UNAVAILABLE) error.message = kReadUnavailableMessage;
    return error;
  }

  ledger::Reading Record(astra::ReadOutcome outcome) {
    ledger::Reading reading;
    reading.astra_status = std::move(outcome.astra_status);
    reading.user_id = std::move(outcome.user_id);
    reading.verification_type = outcome.verification_type != v1::VERIFICATION_TYPE_UNSPECIFIED
                                    ? outcome.verification_type
                                    : record_->latest.verification_type;
    reading.read_at = NowMicros();
    reading.status_since = ledger::StatusSince(record_->latest, reading);
    reads_.ledger_.RecordReading(record_->key, reading, shard_.loop, nullptr);
    return reading;
  }

  IntentReads& reads_;
  const Shard shard_;
  const std::shared_ptr<const ledger::Record> record_;  // as it was when the read began
  ReadRetryPolicy::Tries tries_;
  SteadyTime sent_at_{};
};

IntentReads::IntentReads(ledger::Ledger& ledger, const AdmissionControl& admission, ReadObserver& observer, double rate)
    : ledger_(ledger), admission_(admission), observer_(observer), budget_(rate) {}

IntentReads::Ticket IntentReads::Read(const Shard& shard, std::shared_ptr<const ledger::Record> record,
                                      SteadyTime deadline, Heard heard) {
  Ticket ticket;
  bool joined;
  {
    const MutexLock lock(mutex_);
    ticket = ++last_ticket_;
    const auto [running, begun] = running_.try_emplace(record->answer.user_intent_id);
    running->second.push_back({ticket, deadline, &shard.loop, std::move(heard)});
    joined = !begun;
  }
  if (!joined) std::make_shared<ActiveRead>(*this, shard, std::move(record))->Try();
  return ticket;
}

void IntentReads::Leave(const std::string& user_intent_id, Ticket ticket) {
  const MutexLock lock(mutex_);
  const auto running = running_.find(user_intent_id);
  if (running == running_.end()) return;
  std::erase_if(running->second, [ticket](const Waiter& waiter) { return waiter.ticket == ticket; });
}

std::optional<SteadyTime> IntentReads::LatestDeadline(const std::string& user_intent_id) {
  const MutexLock lock(mutex_);
  std::optional<SteadyTime> latest;
  for (const Waiter& waiter : running_[user_intent_id]) latest = std::max(latest, std::optional(waiter.deadline));
  return latest;
}

void IntentReads::End(const std::string& user_intent_id, const Result<ledger::Reading>& result) {
  std::vector<Waiter> told;
  {
    const MutexLock lock(mutex_);
    const auto running = running_.find(user_intent_id);
    told = std::move(running->second);
    running_.erase(running);
  }
  Tell(std::move(told), result);
}

void IntentReads::Tell(std::vector<Waiter> waiters, const Result<ledger::Reading>& result) {
  for (Waiter& waiter : waiters) {
    waiter.executor->Post([heard = std::move(waiter.heard), told = result]() mutable { heard(std::move(told)); });
  }
}

size_t IntentReads::waiting() const {
  const MutexLock lock(mutex_);
  size_t all = 0;
  for (const auto& [id, waiters] : running_) all += waiters.size();
  return all;
}

void IntentReads::AnswerAll() {
  CallError error = CallError::Of(v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  error.message = kReadUnavailableMessage;
  const MutexLock lock(mutex_);
  for (auto& [id, waiters] : running_) Tell(std::exchange(waiters, {}), error);
}

}  // namespace userintent::usecase
