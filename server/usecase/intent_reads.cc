#include "server/usecase/intent_reads.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/random/random.h"
#include "server/usecase/call.h"
#include "server/usecase/retry_policy.h"

namespace userintent::usecase {

// The GETs for one intent. Belongs to the thread of the shard that began it; its callbacks keep it alive.
class IntentReads::ActiveRead final : public std::enable_shared_from_this<ActiveRead> {
 public:
  ActiveRead(IntentReads& reads, const Shard& shard, const Query& query)
      : reads_(reads),
        shard_(shard),
        id_(query.user_intent_id),
        request_id_(query.record ? std::optional(query.record->key.request_id) : std::nullopt) {}

  // Sends a GET, or ends the read where this asker may not have one now.
  void Try(Asker asker) {
    sent_at_ = shard_.loop.Now();
    asker_ = asker;
    if (const absl::Duration wait = MustWait(); wait > absl::ZeroDuration()) {
      reads_.observer_.OnReadHeldBack(asker);
      CallError error = CallError::Of(v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
      error.retry_after = wait;
      error.message = "The gateway has read Astra as often as it may for now. Repeat after the delay.";
      return Fail(error);
    }
    shard_.astra.Get(id_, [self = shared_from_this()](const astra::ReadOutcome& outcome) { self->OnOutcome(outcome); });
  }

 private:
  absl::Duration MustWait() {
    // What Astra's 429 holds back are creations; reads in which nobody waits for the answer are less than those.
    if (asker_ != Asker::kCaller) {
      if (const absl::Duration held = reads_.admission_.Held(sent_at_); held > absl::ZeroDuration()) return held;
    }
    return absl::FromChrono(reads_.budget_.Take(sent_at_, asker_, reads_.ledger_.share().count));
  }

  void OnOutcome(const astra::ReadOutcome& outcome) {
    const SteadyTime now = shard_.loop.Now();
    tries_.Count(outcome);
    reads_.observer_.OnRead(asker_, request_id_, outcome, now - sent_at_);

    const std::optional<SteadyTime> latest = reads_.LatestDeadline(id_);
    RetryFacts facts;
    facts.wanted = latest.has_value() && !reads_.admission_.draining();
    if (latest) {
      facts.longest_wait = LongestWait(now, *latest, reads_.admission_.options().min_deadline);
    }
    facts.new_credentials = ReadRetryPolicy::AsksForCredentials(outcome, tries_) && shard_.astra.RefreshCredentials();
    if (UpstreamBreaker* const breaker = reads_.admission_.breaker()) {
      breaker->OnRead(now, sent_at_, id_, asker_ == Asker::kProbe, outcome);
    }
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
      return Fail(ErrorOf(outcome, *give_up));
    }
    Succeed(outcome);
  }

  void TryIfWanted(const CallError& otherwise) {
    if (!reads_.LatestDeadline(id_) || reads_.admission_.draining()) return Fail(otherwise);
    Try(Asker::kCaller);
  }

  void Fail(const CallError& error) { Tell(reads_.Remove(id_).waiters, error); }

  // Each row and each waiter gets the reading that follows upon what it knew.
  void Succeed(const astra::ReadOutcome& outcome) {
    const absl::Time read_at = reads_.wall_clock_();
    Running ended = reads_.Remove(id_);
    for (const auto& record : ended.records) {
      reads_.ledger_.RecordReading(record->key, ReadingOf(outcome, record.get(), read_at), shard_.loop, nullptr);
    }
    for (Waiter& waiter : ended.waiters) {
      waiter.executor->Post(
          [heard = std::move(waiter.heard), reading = ReadingOf(outcome, waiter.record.get(), read_at)]() mutable {
            heard(std::move(reading));
          });
    }
  }

  static CallError ErrorOf(const astra::ReadOutcome& outcome, const ReadRetryPolicy::GiveUp& give_up) {
    CallError error = CallError::Of(give_up.reason);
    error.retry_after = give_up.retry_after;
    error.http_status = outcome.http_status;
    error.astra_request_id = outcome.astra_request_id;
    if (give_up.reason == v1::ERROR_REASON_UPSTREAM_UNAVAILABLE) error.message = kReadUnavailableMessage;
    return error;
  }

  static ledger::Reading ReadingOf(const astra::ReadOutcome& outcome, const ledger::Record* record,
                                   absl::Time read_at) {
    const ledger::Reading before = record != nullptr ? record->latest : ledger::Reading();
    ledger::Reading reading;
    reading.astra_status = outcome.astra_status;
    reading.user_id = outcome.user_id;
    reading.verification_type = outcome.verification_type != v1::VERIFICATION_TYPE_UNSPECIFIED
                                    ? outcome.verification_type
                                    : before.verification_type;
    reading.read_at = read_at;
    if (record != nullptr) reading.after = before.read_at;
    reading.attempt_id = outcome.attempt_id;
    reading.status_since = record != nullptr ? ledger::StatusSince(before, reading) : read_at;
    return reading;
  }

  IntentReads& reads_;
  const Shard shard_;
  const std::string id_;
  const std::optional<Uuid> request_id_;  // of the row that the read was begun for; for the log
  Asker asker_ = Asker::kCaller;          // of the GET that runs
  ReadRetryPolicy::Tries tries_;
  SteadyTime sent_at_{};
};

IntentReads::IntentReads(ledger::Ledger& ledger, const AdmissionControl& admission, ReadObserver& observer, double rate,
                         absl::Time (*wall_clock)())
    : ledger_(ledger), admission_(admission), observer_(observer), wall_clock_(wall_clock), budget_(rate) {}

IntentReads::Ticket IntentReads::Read(const Shard& shard, const Query& query, Heard heard) {
  Ticket ticket;
  bool joined;
  {
    const MutexLock lock(mutex_);
    ticket = ++last_ticket_;
    const auto [entry, begun] = running_.try_emplace(query.user_intent_id);
    Running& running = entry->second;
    const auto same_row = [&query](const auto& record) { return record->key == query.record->key; };
    if (query.record && std::ranges::none_of(running.records, same_row)) running.records.push_back(query.record);
    running.waiters.push_back({ticket, query.asker, query.deadline, query.record, &shard.loop, std::move(heard)});
    joined = !begun;
  }
  if (!joined) std::make_shared<ActiveRead>(*this, shard, query)->Try(query.asker);
  return ticket;
}

void IntentReads::Leave(const std::string& user_intent_id, Ticket ticket) {
  const MutexLock lock(mutex_);
  const auto running = running_.find(user_intent_id);
  if (running == running_.end()) return;
  std::erase_if(running->second.waiters, [ticket](const Waiter& waiter) { return waiter.ticket == ticket; });
}

std::optional<SteadyTime> IntentReads::LatestDeadline(const std::string& user_intent_id) {
  const MutexLock lock(mutex_);
  std::optional<SteadyTime> latest;
  for (const Waiter& waiter : running_[user_intent_id].waiters) {
    if (waiter.asker == Asker::kCaller) latest = std::max(latest, std::optional(waiter.deadline));
  }
  return latest;
}

IntentReads::Running IntentReads::Remove(const std::string& user_intent_id) {
  const MutexLock lock(mutex_);
  const auto running = running_.find(user_intent_id);
  Running removed = std::move(running->second);
  running_.erase(running);
  return removed;
}

void IntentReads::Tell(std::vector<Waiter> waiters, const CallError& error) {
  for (Waiter& waiter : waiters) {
    waiter.executor->Post([heard = std::move(waiter.heard), told = error]() mutable { heard(std::move(told)); });
  }
}

bool IntentReads::IsBeingRead(const std::string& user_intent_id) const {
  const MutexLock lock(mutex_);
  return running_.contains(user_intent_id);
}

size_t IntentReads::waiting() const {
  const MutexLock lock(mutex_);
  size_t all = 0;
  for (const auto& [id, running] : running_) {
    all += static_cast<size_t>(
        std::ranges::count_if(running.waiters, [](const Waiter& waiter) { return waiter.asker == Asker::kCaller; }));
  }
  return all;
}

void IntentReads::AnswerAll() {
  CallError error = CallError::Of(v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  error.message = kReadUnavailableMessage;
  const MutexLock lock(mutex_);
  for (auto& [id, running] : running_) Tell(std::exchange(running.waiters, {}), error);
}

}  // namespace userintent::usecase
