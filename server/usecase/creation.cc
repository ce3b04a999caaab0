#include "server/usecase/creation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/base/crash_point.h"
#include "server/base/time.h"

namespace userintent::usecase {
namespace {

using ledger::BeginVerdict;
using ledger::Sent;
using Verdict = astra::Verdict;

// Backoff between connection attempts: full jitter, base 100 ms, cap 2 s (AWS Builders' Library; gRPC A6 is milder).
constexpr absl::Duration kBackoffBase = absl::Milliseconds(100);
constexpr absl::Duration kBackoffCap = absl::Seconds(2);

// 429 without Retry-After (contract section 4).
constexpr absl::Duration kDefaultRetryAfter = absl::Seconds(1);

ledger::Sent SentOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNotSent:
      return Sent::kNo;
    case Verdict::kUnknown:
      return Sent::kMaybe;
    default:
      return Sent::kYes;
  }
}

absl::CivilDay TodayUtc() { return absl::ToCivilDay(absl::Now(), absl::UTCTimeZone()); }

}  // namespace

std::shared_ptr<Creation> Creation::Start(Services& services, std::string caller, v1::CreateUserIntentRequest request,
                                          SteadyTime deadline, Done done) {
  auto creation =
      std::make_shared<Creation>(Passkey{}, services, std::move(caller), std::move(request), deadline, std::move(done));
  std::vector<intent::Violation> violations = intent::Validate(*creation->request_, services.rules, TodayUtc());
  if (!violations.empty()) {
    Reply reply = Reply::Error(v1::ERROR_REASON_FIELD_INVALID);
    reply.violations = std::move(violations);
    services.loop.Post([creation, reply = std::move(reply)]() mutable {
      creation->state_ = State::kEnded;
      creation->Respond(std::move(reply));
    });
    return creation;
  }
  creation->key_.request_id = *ParseUuid(creation->request_->request_id());
  // A deadline that is nearly here leaves the ledger half of what is left to say that it is too short.
  const SteadyTime now = services.loop.Now();
  creation->answer_timer_ = services.loop.CallAt(std::max(deadline - kAnswerMargin, now + (deadline - now) / 2),
                                                 [creation] { creation->OnAnswerBy(); });
  services.unanswered.insert(creation.get());
  creation->Begin();
  return creation;
}

Creation::Creation(Passkey, Services& services, std::string caller, v1::CreateUserIntentRequest request,
                   SteadyTime deadline, Done done)
    : services_(services),
      request_(std::move(request)),
      validate_only_(request_->validate_only()),
      deadline_(deadline),
      done_(std::move(done)),
      key_{std::move(caller), Uuid{}} {}

void Creation::Begin() {
  asked_at_ = services_.loop.Now();
  CrashPoint("after-admit");

  ledger::BeginRequest begin;
  begin.key = key_;
  begin.current = services_.fingerprinter.Current(*request_);
  begin.older = services_.fingerprinter.Older(*request_);
  begin.attempt_id = attempt_id_ = RandomUuid();
  begin.allow_repeat = request_->allow_repeat();
  if (!request_->supersedes_request_id().empty()) begin.supersedes = ParseUuid(request_->supersedes_request_id());
  begin.attempt_limit = services_.email_attempt_limit;
  begin.may_start = begin.may_join = !validate_only_;
  begin.admission = this;
  begin.now = NowMicros();
  begin_token_ = services_.ledger.Begin(
      std::move(begin), services_.loop,
      [self = shared_from_this()](ledger::BeginAnswer answer) { self->OnBegun(std::move(answer)); });
}

// The place is taken inside the ledger's decision, so that no row ever waits between "reserved" and "sending", and only
// by a call that everything else lets go.
bool Creation::MayStart() {
  refusal_ = services_.gate.Enter(asked_at_, deadline_);
  if (refusal_) return false;
  Place none = Place::kNone;
  if (place_.compare_exchange_strong(none, Place::kTaken)) return true;
  services_.gate.Leave();
  return false;
}

void Creation::OnWaiting() {
  services_.loop.Post([self = shared_from_this()] { self->OnJoined(); });
}

void Creation::OnJoined() {
  joined_ = true;
  packed_request_ = request_->SerializeAsString();
  request_.reset();
  if (late_) OnLateBeginning();
}

void Creation::OnBegun(ledger::BeginAnswer answer) {
  begin_token_ = 0;
  if (answer.verdict == BeginVerdict::kGo) {
    if (!done_ || late_) {
      // Nobody waits, or not long enough, and nothing was sent: the row goes back. No reason: whoever joined meanwhile
      // begins anew.
      Finish(ledger::State::kReleased, v1::ERROR_REASON_UNSPECIFIED);
      return;
    }
    // Somebody was created with this address. Were this call a guess at who, then giving up in time would make it a
    // free one: another caller's person is told (PERSON_EXISTS) where a wrong guess is sent, so it must be.
    goes_on_ = answer.budget.used_min > 0;
    Send();
    return;
  }

  LeaveGate();
  const bool abandoned_under_join = answer.verdict == BeginVerdict::kRecorded && answer.own &&
                                    answer.own->state == ledger::State::kReleased && answer.own->reason == 0;
  if (abandoned_under_join && done_ && !late_) {
    // The call that ran was given up by its caller before anything was sent; this one takes its place.
    if (std::exchange(joined_, false)) {
      request_.emplace().ParseFromString(packed_request_);
      packed_request_ = {};
    }
    Begin();
    return;
  }
  state_ = State::kEnded;
  if (!done_) return;

  Reply reply;
  switch (answer.verdict) {
    case BeginVerdict::kGo:
      break;  // above
    case BeginVerdict::kWouldGo:
      WouldGo(answer);
      return;
    case BeginVerdict::kRecorded:
      AnswerFromRow(answer);
      return;
    case BeginVerdict::kInProgress:
      reply = Reply::Error(v1::ERROR_REASON_REQUEST_IN_PROGRESS);
      break;
    case BeginVerdict::kReused:
      // Nothing of *this* content was ever sent under the id: `sent` stays "no" as in the table.
      reply = Reply::Error(v1::ERROR_REASON_REQUEST_ID_REUSED);
      if (answer.content && services_.fingerprinter.DiffersInFormOnly(*request_, *answer.content)) {
        reply.message = kOtherFormMessage;
      }
      Respond(std::move(reply));
      return;
    case BeginVerdict::kPersonExists:
      // A wrong guess would not have been sent any more, so the right one is not told.
      if (answer.existing_intent_id.empty() && late_) return WouldGo(answer);
      reply = Reply::Error(v1::ERROR_REASON_PERSON_EXISTS);
      reply.existing_intent_id = answer.existing_intent_id;
      if (!reply.existing_intent_id.empty()) {
        reply.recovery = Recovery::kUseExisting;
      } else {
        services_.observer.OnPersonToldAcross(key_);
      }
      break;
    case BeginVerdict::kExhausted:
      reply = Reply::Error(v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED);
      break;
    case BeginVerdict::kEmailBusy:
      reply = Reply::Error(v1::ERROR_REASON_EMAIL_BUSY);
      break;
    case BeginVerdict::kEmailUnresolved:
      reply = Reply::Error(v1::ERROR_REASON_EMAIL_UNRESOLVED);
      reply.unresolved_request_id = answer.unresolved;
      break;
    case BeginVerdict::kSupersedesInvalid:
      reply = Reply::Error(v1::ERROR_REASON_SUPERSEDES_INVALID);
      reply.unresolved_request_id = answer.unresolved;
      break;
    case BeginVerdict::kUnavailable:
      reply = Reply::Error(v1::ERROR_REASON_LEDGER_UNAVAILABLE);
      reply.retry_after = absl::Seconds(2);
      Respond(std::move(reply));
      return;
  }
  reply.attempts = answer.budget;
  if (answer.own) reply.sent = std::max(reply.sent, answer.own->sent);
  Respond(std::move(reply));
}

void Creation::WouldGo(const ledger::BeginAnswer& answer) {
  if (validate_only_) {
    // What the gate would say to the real call.
    refusal_ = services_.gate.Enter(services_.loop.Now(), deadline_);
    if (!refusal_) services_.gate.Leave();
  } else if (!refusal_) {
    refusal_ = AdmissionControl::Refusal{v1::ERROR_REASON_DEADLINE_TOO_SHORT,
                                         absl::ZeroDuration()};  // it came too late to ask
  }
  if (refusal_) return Refuse(*refusal_, answer);
  Reply reply;
  reply.attempts = answer.budget;
  reply.attempt_limit = services_.email_attempt_limit;
  Respond(std::move(reply));
}

void Creation::Refuse(const AdmissionControl::Refusal& refusal, const ledger::BeginAnswer& answer) {
  Reply reply = Reply::Error(refusal.reason);
  // Refused here, whatever the table says of the same reason when it comes from Astra; earlier tries of the id count.
  reply.sent = answer.own ? answer.own->sent : Sent::kNo;
  reply.retry_after = refusal.retry_after;
  reply.attempts = answer.budget;
  Respond(std::move(reply));
}

void Creation::AnswerFromRow(const ledger::BeginAnswer& answer) {
  const ledger::Record& record = *answer.own;
  Reply reply;
  if (record.state == ledger::State::kSucceeded) {
    if (!validate_only_) {
      reply.user_intent = ToUserIntent(record.answer);
      reply.replayed = true;
    }
    reply.astra_request_id = record.answer.astra_request_id;
  } else {
    reply = ErrorFromRecord(record);
    reply.replayed = true;
    if (reply.reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED) {
      reply.retry_after = std::max(services_.gate.Held(services_.loop.Now()), kDefaultRetryAfter);
    }
  }
  reply.attempts = answer.budget;
  reply.attempt_limit = services_.email_attempt_limit;
  Respond(std::move(reply));
}

void Creation::Send() {
  state_ = State::kExchanging;
  ++tries_;
  sent_at_ = services_.loop.Now();
  services_.observer.OnPostBegun();
  call_id_ = services_.astra.Create(*request_, attempt_id_,
                                    [self = shared_from_this()](astra::Outcome outcome) { self->OnOutcome(outcome); });
}

void Creation::OnOutcome(const astra::Outcome& outcome) {
  call_id_ = 0;
  CrashPoint("after-answer-body");
  outcome_ = outcome;
  sent_ = std::max(sent_, SentOf(outcome.verdict));
  services_.observer.OnPost(key_.request_id, attempt_id_, outcome, services_.loop.Now() - sent_at_);

  switch (outcome.verdict) {
    case Verdict::kCreated:
      return Finish(ledger::State::kSucceeded, v1::ERROR_REASON_UNSPECIFIED);
    case Verdict::kLimitReached:
      return Finish(ledger::State::kFailed, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED);
    case Verdict::kRejected:
      return Finish(ledger::State::kFailed, v1::ERROR_REASON_UPSTREAM_REJECTED);
    case Verdict::kCredentialsRejected:
      // Only files that changed since make a second try worth it; a 403 says that these credentials are known.
      if (outcome.http_status == 401 && !retried_credentials_ && services_.astra.RefreshCredentials()) {
        retried_credentials_ = true;
        if (TryAgain(absl::ZeroDuration(), true, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED)) return;
      }
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED);
    case Verdict::kMisconfigured:
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_MISCONFIGURED);
    case Verdict::kRateLimited: {
      const absl::Duration wait = outcome.retry_after.value_or(kDefaultRetryAfter);
      services_.gate.HoldBack(services_.loop.Now(), wait);
      if (!retried_refusal_) {
        retried_refusal_ = true;
        if (TryAgain(wait, true, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED)) return;
      }
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
    }
    case Verdict::kUnavailable:
      if (!retried_refusal_) {
        retried_refusal_ = true;
        if (TryAgain(*outcome.retry_after, true, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE)) return;
      }
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    case Verdict::kRefused:
      // The peer closes this connection or is full for a moment. It is a short wait at first, because the next try goes
      // elsewhere, and never one for which there is no time.
      ++refused_streams_;
      if (TryAgain(std::min(BackoffAfter(refused_streams_ - 1), JitterUpTo(LongestWait())), true,
                   v1::ERROR_REASON_UPSTREAM_UNAVAILABLE)) {
        return;
      }
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    case Verdict::kNotSent: {
      if (outcome.cancelled && caller_left_) return Finish(ledger::State::kReleased, v1::ERROR_REASON_UNSPECIFIED);
      if (!outcome.cancelled && !outcome.repeat_pointless &&
          TryAgain(BackoffAfter(tries_ - refused_streams_), false, v1::ERROR_REASON_UPSTREAM_UNREACHABLE)) {
        return;
      }
      return Finish(ledger::State::kReleased, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
    }
    case Verdict::kUnknown:
      return Finish(ledger::State::kUnknown, v1::ERROR_REASON_OUTCOME_UNKNOWN);
  }
}

absl::Duration Creation::JitterUpTo(absl::Duration longest) {
  return absl::Uniform(services_.random, 0.0, 1.0) * longest;
}

absl::Duration Creation::BackoffAfter(int tries) {
  return JitterUpTo(std::min(kBackoffBase * (1 << std::min(tries, 5)), kBackoffCap));
}

absl::Duration Creation::LongestWait() const {
  const SteadyTime latest = deadline_ - kAnswerMargin - services_.gate.options().min_deadline;
  return absl::FromChrono(latest - services_.loop.Now());
}

bool Creation::TryAgain(absl::Duration wait, bool new_attempt_id, v1::ErrorReason reason_if_given_up) {
  // A caller that left, or was answered already, gets no further try (contract section 4).
  if (!done_ || wait > LongestWait() || services_.gate.draining()) return false;
  if (tries_ - refused_streams_ >= kMaxTries || tries_ >= kMaxTriesWithRefusals) return false;
  state_ = State::kWaiting;
  services_.waiting.insert(this);
  new_attempt_id_ = new_attempt_id;
  reason_if_given_up_ = reason_if_given_up;
  wait_timer_ = services_.loop.CallAt(services_.loop.Now() + absl::ToChronoNanoseconds(wait),
                                      [self = shared_from_this()] { self->AfterWait(); });
  return true;
}

void Creation::AfterWait() {
  wait_timer_ = 0;
  services_.waiting.erase(this);
  if (state_ != State::kWaiting) return;
  if (!new_attempt_id_) return Send();
  // Another POST gets another id, which is on disk before it leaves, as the first one was.
  state_ = State::kRecording;
  attempt_id_ = RandomUuid();
  services_.ledger.NextAttempt(key_, attempt_id_, sent_, NowMicros(), services_.loop,
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
  services_.waiting.erase(this);
  services_.loop.CancelTimer(std::exchange(wait_timer_, 0));
  ledger::FinishRequest finish;
  finish.key = key_;
  finish.state = state;
  finish.sent = sent_;
  finish.reason = reason;
  finish.answer.http_status = outcome_.http_status;
  finish.answer.confirmed = outcome_.confirmed;
  finish.answer.user_intent_id = outcome_.user_intent_id;
  finish.answer.astra_status = outcome_.astra_status;
  finish.answer.astra_request_id = outcome_.astra_request_id;
  finish.now = finish.answer.at = NowMicros();
  services_.ledger.Finish(std::move(finish), services_.loop, [self = shared_from_this()](ledger::FinishAnswer answer) {
    self->OnRecorded(std::move(answer));
  });
}

void Creation::OnRecorded(ledger::FinishAnswer answer) {
  state_ = State::kEnded;
  LeaveGate();
  services_.observer.OnRecorded(answer.record, answer.committed);
  if (!done_) return;

  Reply reply;
  if (!answer.committed) {
    // The outcome is known here but not on disk; a crash now would lose it, so nobody may build on it.
    reply = Reply::Error(v1::ERROR_REASON_OUTCOME_UNKNOWN);
  } else if (answer.record.state == ledger::State::kSucceeded) {
    reply.user_intent = ToUserIntent(answer.record.answer);
    reply.astra_request_id = answer.record.answer.astra_request_id;
  } else {
    reply = ErrorFromRecord(answer.record);
    if (outcome_.retry_after) reply.retry_after = *outcome_.retry_after;
  }
  reply.attempts = answer.budget;
  reply.attempt_limit = services_.email_attempt_limit;
  Respond(std::move(reply));
}

void Creation::OnAnswerBy(bool stopping) {
  answer_timer_ = 0;
  if (!done_) return;
  switch (state_) {
    case State::kBeginning:
      return OnLateBeginning();
    case State::kExchanging:
      // Nothing has left yet: then it is not sent at all, and the outcome says so.
      if ((stopping || !goes_on_) && services_.astra.CancelUnsent(call_id_)) return;
      break;
    case State::kWaiting:
      return Finish(ledger::State::kReleased, reason_if_given_up_);
    case State::kRecording:
      break;
    case State::kEnded:
      return;
  }
  Respond(Reply::Error(v1::ERROR_REASON_REQUEST_IN_PROGRESS));
}

// Time to answer, and the ledger has not decided. A join is told that the request runs. Otherwise nobody knows yet
// whether there is a row: this call starts nothing any more, and hears the ledger's answer, which takes milliseconds.
void Creation::OnLateBeginning() {
  late_ = true;
  CloseGate();
  if (joined_) {
    services_.ledger.Forget(std::exchange(begin_token_, 0));
    return Respond(Reply::Error(v1::ERROR_REASON_REQUEST_IN_PROGRESS));
  }
  if (services_.loop.Now() - asked_at_ < kLedgerSilent) return;
  Reply reply = Reply::Error(v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  reply.retry_after = absl::Seconds(2);
  Respond(std::move(reply));
}

void Creation::CallerLeft() {
  if (caller_left_) return;
  caller_left_ = true;
  done_ = nullptr;
  services_.unanswered.erase(this);
  services_.loop.CancelTimer(std::exchange(answer_timer_, 0));
  switch (state_) {
    case State::kBeginning:
      services_.ledger.Forget(std::exchange(begin_token_, 0));
      CloseGate();  // a join that is forgotten is never answered
      break;
    case State::kExchanging:
      if (!goes_on_) services_.astra.CancelUnsent(call_id_);
      break;
    case State::kWaiting:
      Finish(ledger::State::kReleased, reason_if_given_up_);
      break;
    case State::kRecording:
    case State::kEnded:
      break;
  }
}

void Creation::GiveUpWaiting(Services& services) {
  for (Creation* creation : std::exchange(services.waiting, {})) {
    creation->Finish(ledger::State::kReleased, creation->reason_if_given_up_);
  }
}

void Creation::AnswerAll(Services& services) {
  std::vector<std::shared_ptr<Creation>> all;
  for (Creation* creation : services.unanswered) all.push_back(creation->shared_from_this());
  for (const std::shared_ptr<Creation>& creation : all) {
    services.loop.CancelTimer(std::exchange(creation->answer_timer_, 0));
    creation->OnAnswerBy(true);
  }
}

void Creation::Respond(Reply reply) {
  services_.loop.CancelTimer(std::exchange(answer_timer_, 0));
  if (!done_) return;
  services_.unanswered.erase(this);
  // May end the caller's side of this object; nothing here is touched after it.
  std::exchange(done_, nullptr)(std::move(reply));
}

void Creation::LeaveGate() {
  Place taken = Place::kTaken;
  if (place_.compare_exchange_strong(taken, Place::kNone)) services_.gate.Leave();
}

void Creation::CloseGate() {
  if (place_.exchange(Place::kClosed) == Place::kTaken) services_.gate.Leave();
}

}  // namespace userintent::usecase
