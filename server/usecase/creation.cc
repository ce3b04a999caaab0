#include "server/usecase/creation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/base/crash_point.h"
#include "server/base/time.h"
#include "server/usecase/attempt_id.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {
namespace {

using ledger::BeginVerdict;
using ledger::Sent;
using Verdict = astra::Verdict;

absl::CivilDay TodayUtc() { return absl::ToCivilDay(absl::Now(), absl::UTCTimeZone()); }

}  // namespace

std::shared_ptr<Creation> Creation::Start(Creations& creations, CreateCall&& call) {
  const SteadyTime deadline = call.deadline;
  const Creations::Dependencies& deps = creations.deps_;
  auto creation = std::make_shared<Creation>(Passkey{}, creations, std::move(call));
  std::vector<intent::Violation> violations = intent::Validate(*creation->request_, deps.rules, TodayUtc());
  if (!violations.empty()) {
    deps.loop.Post([creation, violations = std::move(violations)]() mutable {
      creation->state_ = State::kEnded;
      creation->Respond(CallError::Of(std::move(violations)));
    });
    return creation;
  }
  creation->key_.request_id = *ParseUuid(creation->request_->request_id());
  creation->answer_timer_ =
      deps.loop.CallAt(AnswerBy(deps.loop.Now(), deadline), [creation] { creation->OnAnswerBy(); });
  creations.unanswered_.insert(creation.get());
  creation->Begin();
  return creation;
}

Creation::Creation(Passkey, Creations& creations, CreateCall&& call)
    : deps_(creations.deps_),
      creations_(creations),
      request_(std::move(call.request)),
      validate_only_(request_->validate_only()),
      deadline_(call.deadline),
      account_(call.access ? call.access->account : nullptr),
      may_supersede_others_(call.access && call.access->rule != nullptr && call.access->rule->may_supersede_others),
      done_(std::move(call.done)),
      key_{std::move(call.caller), Uuid{}},
      trace_(call.trace) {}

void Creation::Begin() {
  asked_at_ = deps_.loop.Now();
  CrashPoint("after-admit");

  ledger::BeginRequest begin;
  begin.key = key_;
  begin.current = deps_.fingerprinter.Current(*request_);
  begin.older = deps_.fingerprinter.Older(*request_);
  begin.attempt_id = attempt_id_ = NewAttemptId(*request_);
  begin.allow_repeat = request_->allow_repeat();
  if (!request_->supersedes_request_id().empty()) begin.supersedes = ParseUuid(request_->supersedes_request_id());
  begin.may_supersede_others = may_supersede_others_;
  begin.attempt_limit = deps_.email_attempt_limit;
  begin.verification_type = AskedType(request_->verification_type());
  begin.may_start = begin.may_join = !validate_only_;
  begin.admission = this;
  begin.now = NowMicros();
  begin_token_ =
      deps_.ledger.Begin(std::move(begin), deps_.loop,
                         [self = shared_from_this()](ledger::BeginAnswer answer) { self->OnBegun(std::move(answer)); });
}

void Creation::OnBegun(ledger::BeginAnswer answer) {
  begin_token_ = 0;
  trail_.begin = deps_.loop.Now() - asked_at_;
  if (answer.verdict == BeginVerdict::kGo) return OnGo(answer);
  if (answer.verdict == BeginVerdict::kWouldGo && MustWait()) return WaitForSlot();
  GiveBackPlace(false);
  // The call that ran was given up by its caller before anything was sent.
  const bool abandoned_under_join = answer.verdict == BeginVerdict::kRecorded && answer.own &&
                                    answer.own->state == ledger::State::kReleased && answer.own->reason == 0;
  if (abandoned_under_join && done_ && !late_) return TakeOver();
  state_ = State::kEnded;
  if (done_) AnswerFromLedger(answer);
}

void Creation::OnGo(const ledger::BeginAnswer& answer) {
  owner_ = answer.owner;
  if (!done_ || late_) {
    // No caller waits, or not long enough, and nothing was sent: the row goes back. Without a reason, so that a call
    // that joined meanwhile begins anew.
    Finish(ledger::State::kReleased, v1::ERROR_REASON_UNSPECIFIED);
    return;
  }
  // A person was created with this address. Were this call a guess at who, then giving up in time would make it a free
  // one: another caller's person is told (PERSON_EXISTS) where a wrong guess is sent, so it must be.
  goes_on_ = answer.budget.used_min > 0;
  Send();
}

void Creation::AnswerFromLedger(const ledger::BeginAnswer& answer) {
  // A wrong guess at another caller's person would not have been sent any more, so the right one is not told.
  const bool untold = answer.verdict == BeginVerdict::kPersonExists && answer.existing_intent_id.empty() && late_;
  if (answer.verdict == BeginVerdict::kWouldGo || untold) return WouldGo(answer);
  if (answer.verdict == BeginVerdict::kRecorded) return AnswerFromRow(answer);
  Refuse(answer);
}

void Creation::WouldGo(const ledger::BeginAnswer& answer) {
  if (validate_only_) {  // what admission would say to the real call
    refusal_ = deps_.admission.Look(deps_.loop.Now(), deadline_, account_);
  } else if (!refusal_ || refusal_->waits) {  // it came too late to ask, or to wait
    refusal_ = AdmissionControl::Refusal{v1::ERROR_REASON_DEADLINE_TOO_SHORT, absl::ZeroDuration()};
  }
  if (!MayTell(answer, !refusal_ && answer.budget.used_max > 0)) return;
  if (!refusal_) return Succeed(nullptr, answer.budget, false);
  // Without the attempts: a caller can bring this about as often as it likes, by a short deadline.
  CallError error = CallError::Of(refusal_->reason);
  // Refused here, whatever the table says of the same reason when it comes from Astra; earlier tries of the id count.
  error.sent = answer.own ? answer.own->sent : Sent::kNo;
  error.retry_after = refusal_->retry_after;
  Respond(std::move(error));
}

void Creation::Send() {
  state_ = State::kExchanging;
  sent_at_ = deps_.loop.Now();
  trail_.OnPostBegun(attempt_id_);
  deps_.observer.OnPostBegun();
  trace_.Begin(deps_.astra);
  call_id_ = deps_.astra.Create(
      *request_, attempt_id_, owner_.lease,
      [self = shared_from_this()](astra::Outcome outcome) { self->OnOutcome(outcome); }, ListenOn());
}

// Who hears the answer to the POST that is about to leave, should it come late; null: nobody.
astra::Client::Done Creation::ListenOn() {
  if (deps_.late_window == SteadyClock::duration::zero()) return nullptr;
  late_answer_ = std::make_shared<LateAnswer>(deps_, key_, attempt_id_);
  return [late = late_answer_](const astra::Outcome& outcome) { late->OnOutcome(outcome); };
}

void Creation::OnOutcome(const astra::Outcome& outcome) {
  call_id_ = 0;
  CrashPoint("after-answer-body");
  const SteadyTime now = deps_.loop.Now();
  outcome_ = outcome;
  tries_.Count(outcome);
  trail_.OnPostEnded(outcome, now - sent_at_);
  sent_ = std::max(sent_, SentOf(outcome.verdict));
  deps_.observer.OnPost(key_.request_id, attempt_id_, outcome, now - sent_at_);
  if (const auto traced = trace_.End(true, outcome, now - sent_at_)) deps_.observer.OnTraced(*traced);
  if (outcome.verdict == Verdict::kRateLimited) {
    deps_.admission.HoldBack(now, outcome.retry_after.value_or(kDefaultRetryAfter));
  }
  // No reason: a call that joined meanwhile begins anew.
  if (outcome.cancelled && caller_left_) return Finish(ledger::State::kReleased, v1::ERROR_REASON_UNSPECIFIED);

  RetryFacts facts;
  // A caller that left, or was answered already, gets no further try (contract section 4).
  facts.wanted = done_ && !deps_.admission.draining();
  facts.longest_wait = LongestWait(now, deadline_, deps_.admission.options().min_deadline);
  facts.new_credentials = RetryPolicy::AsksForCredentials(outcome, tries_) && deps_.astra.RefreshCredentials();
  deps_.admission.OnExchange(outcome, sent_at_, now);
  facts.random = absl::Uniform(creations_.random_, 0.0, 1.0);
  const RetryPolicy::Decision decision = RetryPolicy::Next(outcome, tries_, facts);
  if (const auto* const record = std::get_if<RetryPolicy::Record>(&decision)) {
    return Finish(record->state, record->reason);
  }
  Wait(*std::get_if<RetryPolicy::TryAgain>(&decision));
}

void Creation::Wait(const RetryPolicy::TryAgain& again) {
  state_ = State::kWaiting;
  creations_.waiting_.insert(this);
  fresh_attempt_id_ = again.fresh_attempt_id;
  reason_if_given_up_ = again.reason_if_given_up;
  WaitFor(again.wait);
}

void Creation::WaitFor(absl::Duration wait) {
  wait_timer_ = deps_.loop.CallAt(deps_.loop.Now() + absl::ToChronoNanoseconds(wait),
                                  [self = shared_from_this()] { self->AfterWait(); });
}

void Creation::AfterWait() {
  wait_timer_ = 0;
  if (state_ != State::kWaiting) return;
  // What holds back everybody's requests holds back this one. It waits on while there is time; but not to find nobody
  // there once more, as many others did.
  const SteadyTime now = deps_.loop.Now();
  if (const auto refusal = deps_.admission.BeforeTry(now)) {
    const bool waits = fresh_attempt_id_ || refusal->reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED;
    if (waits && refusal->retry_after <= LongestWait(now, deadline_, deps_.admission.options().min_deadline)) {
      return WaitFor(refusal->retry_after);
    }
    outcome_.retry_after = std::max(outcome_.retry_after.value_or(absl::ZeroDuration()), refusal->retry_after);
    return Finish(ledger::State::kReleased, reason_if_given_up_);
  }
  creations_.waiting_.erase(this);
  if (!fresh_attempt_id_) return Send();
  // Another POST gets another id, which is on disk before it leaves, as the first one was.
  state_ = State::kRecording;
  attempt_id_ = NewAttemptId(*request_);
  deps_.ledger.NextAttempt(key_, attempt_id_, sent_, NowMicros(), deps_.loop,
                           [self = shared_from_this()](bool committed) {
                             if (!committed || !self->done_) {
                               self->Finish(ledger::State::kReleased, self->reason_if_given_up_);
                               return;
                             }
                             self->Send();
                           });
}

void Creation::Finish(ledger::State state, v1::ErrorReason reason) {
  state_ = State::kRecording;
  creations_.waiting_.erase(this);
  deps_.loop.CancelTimer(std::exchange(wait_timer_, 0));
  finishing_at_ = deps_.loop.Now();
  ledger::FinishRequest finish;
  finish.key = key_;
  finish.owner = owner_.epoch;
  finish.state = state;
  finish.sent = sent_;
  finish.reason = reason;
  finish.now = NowMicros();
  finish.answer = ToAnswer(outcome_, finish.now);
  finish.retry_after = outcome_.retry_after;
  deps_.ledger.Finish(std::move(finish), deps_.loop, [self = shared_from_this()](ledger::FinishAnswer answer) {
    self->OnRecorded(std::move(answer));
  });
}

void Creation::OnRecorded(ledger::FinishAnswer answer) {
  state_ = State::kEnded;
  GiveBackPlace(true);
  trail_.finish = deps_.loop.Now() - finishing_at_;
  deps_.observer.OnRecorded({answer.record, trail_, answer.committed, static_cast<bool>(done_)});
  if (late_answer_ && outcome_.verdict == Verdict::kUnknown) late_answer_->OnRecorded();
  late_answer_.reset();
  if (!done_) return;

  if (answer.committed && answer.record.state == ledger::State::kSucceeded) {
    return Succeed(&answer.record, answer.budget, false);
  }
  // Not committed: the outcome is known here but not on disk; a crash now would lose it, so it is told as unknown.
  CallError error =
      answer.committed ? CallError::FromRecord(answer.record) : CallError::Of(v1::ERROR_REASON_OUTCOME_UNKNOWN);
  if (answer.committed && outcome_.retry_after) error.retry_after = *outcome_.retry_after;
  error.attempts = answer.budget;
  Respond(std::move(error));
}

void Creation::OnAnswerBy(bool stopping) {
  answer_timer_ = 0;
  if (!done_) return;
  switch (state_) {
    case State::kBeginning:
      return OnLateBeginning();
    case State::kQueued:
      LeaveQueue(QueueEnd::kExpired);
      return OnLateBeginning();
    case State::kExchanging:
      // Nothing has left yet: then it is not sent at all, and the outcome says so.
      if ((stopping || !goes_on_) && deps_.astra.CancelUnsent(call_id_)) return;
      break;
    case State::kWaiting:
      return Finish(ledger::State::kReleased, reason_if_given_up_);
    case State::kRecording:
      break;
    case State::kEnded:
      return;
  }
  Respond(CallError::Of(v1::ERROR_REASON_REQUEST_IN_PROGRESS));
}

// Time to answer, and the ledger has not decided. A join is told that the request runs. Otherwise it is
// open whether there is a row: this call starts nothing any more, and hears the ledger's answer, which takes
// milliseconds.
void Creation::OnLateBeginning() {
  late_ = true;
  ClosePlace();
  if (joined_) {
    deps_.ledger.Forget(std::exchange(begin_token_, 0));
    return Respond(CallError::Of(v1::ERROR_REASON_REQUEST_IN_PROGRESS));
  }
  if (deps_.loop.Now() - asked_at_ < kLedgerSilent) return;
  Respond(CallError::FromLedger({}));  // kUnavailable
}

Trail Creation::CallerLeft() {
  if (std::exchange(caller_left_, true)) return TrailSoFar();
  done_ = nullptr;
  creations_.unanswered_.erase(this);
  deps_.loop.CancelTimer(std::exchange(answer_timer_, 0));
  Trail trail = TrailSoFar();
  trail.sent = sent_;
  switch (state_) {
    case State::kBeginning:
      deps_.ledger.Forget(std::exchange(begin_token_, 0));
      ClosePlace();  // a join that is forgotten is never answered
      trail.sent.reset();
      break;
    case State::kQueued:
      LeaveQueue(QueueEnd::kLeft);
      trail.sent.reset();
      break;
    case State::kExchanging:
      if (goes_on_ || !deps_.astra.CancelUnsent(call_id_)) trail.sent = std::max(sent_, Sent::kMaybe);
      break;
    case State::kWaiting:
      Finish(ledger::State::kReleased, reason_if_given_up_);
      break;
    case State::kRecording:
    case State::kEnded:
      break;
  }
  return trail;
}

void Creation::GiveUpWaiting() { Finish(ledger::State::kReleased, reason_if_given_up_); }

void Creation::AnswerNow() {
  deps_.loop.CancelTimer(std::exchange(answer_timer_, 0));
  OnAnswerBy(true);
}

Trail Creation::TrailSoFar() const {
  Trail trail = trail_;
  if (state_ == State::kExchanging) trail.upstream += deps_.loop.Now() - sent_at_;
  return trail;
}

void Creation::Respond(Result<v1::CreateUserIntentResponse> result) {
  deps_.loop.CancelTimer(std::exchange(answer_timer_, 0));
  if (!done_) return;
  creations_.unanswered_.erase(this);
  // Of one that goes on, what is recorded in the end has its line, too.
  result.set_trail(state_ == State::kEnded ? std::move(trail_) : TrailSoFar());
  // May end the caller's side of this object; nothing here is touched after it.
  std::exchange(done_, nullptr)(std::move(result));
}

}  // namespace userintent::usecase
