#include "server/usecase/upstream_breaker.h"

#include <algorithm>

namespace userintent::usecase {
namespace {

using astra::ReadVerdict;
using astra::Verdict;

constexpr absl::Duration kShortest = absl::Milliseconds(100);  // what RetryInfo says, and adds for the probe's answer
constexpr std::chrono::milliseconds kLookDistance{200};        // at the credential files
constexpr std::chrono::seconds kTrialDistance{1};
constexpr std::chrono::seconds kSuspicionDistance{1};

bool IsFailure(int http_status) { return http_status == 0 || http_status >= 500; }

}  // namespace

UpstreamBreaker::Sign UpstreamBreaker::SignOf(const astra::Outcome& outcome) {
  switch (outcome.verdict) {
    case Verdict::kCreated:
    case Verdict::kLimitReached:
    case Verdict::kRejected:
      return Sign::kAccepted;
    case Verdict::kCredentialsRejected:
      return outcome.http_status == 403 && outcome.not_astras ? Sign::kEdge : Sign::kRefused;
    case Verdict::kMisconfigured:
    case Verdict::kRateLimited:
      return Sign::kAnswered;
    case Verdict::kUnavailable:
      return Sign::kFailed;
    case Verdict::kRefused:
      return Sign::kNothing;
    case Verdict::kNotSent:
      return outcome.cancelled || outcome.lease_over ? Sign::kNothing : Sign::kFailed;
    case Verdict::kUnknown:
      break;
  }
  if (outcome.confirmed) return Sign::kAccepted;
  return IsFailure(outcome.http_status) ? Sign::kFailed : Sign::kAnswered;
}

UpstreamBreaker::Sign UpstreamBreaker::SignOf(const astra::ReadOutcome& outcome) {
  switch (outcome.verdict) {
    case ReadVerdict::kRead:
    case ReadVerdict::kNotFound:
      return Sign::kAccepted;
    case ReadVerdict::kCredentialsRejected:
      return outcome.http_status == 403 && outcome.not_astras ? Sign::kEdge : Sign::kRefused;
    case ReadVerdict::kNotSent:
      return Sign::kFailed;
    case ReadVerdict::kUnavailable:
      return IsFailure(outcome.http_status) ? Sign::kFailed : Sign::kAnswered;
    case ReadVerdict::kRateLimited:
    case ReadVerdict::kMisconfigured:
      break;
  }
  return Sign::kAnswered;
}

// ---- creations ask

std::optional<absl::Duration> UpstreamBreaker::Suspended(SteadyTime now) {
  const MutexLock lock(mutex_);
  if (state_ == BreakerState::kClosed) return std::nullopt;
  SteadyTime next = next_probe_.value_or(now);
  if (state_ == BreakerState::kCredentials && Credentials(now, true) != refused_) {
    if (now >= next_trial_) return std::nullopt;
    next = std::min(next, next_trial_);
  }
  return std::max(absl::FromChrono(next - now), absl::ZeroDuration()) + kShortest;
}

void UpstreamBreaker::OnBegins(SteadyTime now) {
  const MutexLock lock(mutex_);
  if (state_ == BreakerState::kCredentials) next_trial_ = now + kTrialDistance;
}

// ---- exchanges end

void UpstreamBreaker::OnPost(SteadyTime now, SteadyTime began, const astra::Outcome& outcome) {
  const MutexLock lock(mutex_);
  if (outcome.verdict == Verdict::kCreated) known_intent_ = outcome.user_intent_id;
  OnExchange(now, began, SignOf(outcome), outcome.credentials);
}

void UpstreamBreaker::OnRead(SteadyTime now, SteadyTime began, const std::string& user_intent_id, bool probe,
                             const astra::ReadOutcome& outcome) {
  const MutexLock lock(mutex_);
  if (outcome.verdict == ReadVerdict::kRead) known_intent_ = user_intent_id;
  if (outcome.verdict == ReadVerdict::kNotFound && known_intent_ == user_intent_id) known_intent_.clear();
  if (probe && probe_began_ == began) return OnProbe(now, SignOf(outcome), outcome.credentials);
  OnExchange(now, began, SignOf(outcome), outcome.credentials);
}

void UpstreamBreaker::OnExchange(SteadyTime now, SteadyTime began, Sign sign, uint64_t credentials) {
  if (sign == Sign::kNothing) return;
  if (sign == Sign::kRefused) return RefuseCredentials(now, credentials);
  if (state_ == BreakerState::kCredentials && sign == Sign::kAccepted) {
    if (credentials > refused_ || (credentials == refused_ && began >= changed_at_)) Close(now);
    return;
  }
  if (state_ != BreakerState::kClosed || began < closed_at_) return;
  // An edge that refuses this one request refuses no GET.
  if (sign == Sign::kEdge && !probe_began_ && now >= next_suspicion_) {
    next_suspicion_ = now + kSuspicionDistance;
    ProbeAt(now);
  }
  Count(now, sign == Sign::kFailed);
}

void UpstreamBreaker::Count(SteadyTime now, bool failed) {
  window_.push_back({now, failed});
  failed_ += failed ? 1 : 0;
  if (window_.size() > kWindow) {
    failed_ -= window_.front().failed ? 1 : 0;
    window_.pop_front();
  }
  // A good answer opens nothing, whatever was before it.
  if (failed && window_.size() == kWindow && window_.front().ended >= now - kWithin && 2 * failed_ > kWindow) {
    Open(now, BreakerCause::kFailures);
  }
}

// ---- probes

void UpstreamBreaker::OnProbe(SteadyTime now, Sign sign, uint64_t credentials) {
  probe_began_.reset();
  const bool refused = sign == Sign::kRefused || sign == Sign::kEdge;
  if (refused) {
    observer_.OnBreakerProbe(ProbeResult::kCredentials);
    return RefuseCredentials(now, credentials);
  }
  const bool ask_credentials = state_ == BreakerState::kCredentials;
  const bool good = sign == Sign::kAccepted || (sign == Sign::kAnswered && !ask_credentials);
  observer_.OnBreakerProbe(good                                              ? ProbeResult::kGood
                           : sign == Sign::kFailed || sign == Sign::kNothing ? ProbeResult::kFailed
                                                                             : ProbeResult::kNothing);
  if (good) return Close(now);
  if (ask_credentials) return ProbeAt(now + absl::ToChronoNanoseconds(Jittered(kLongestWait)));
  if (state_ == BreakerState::kClosed) return;  // of a suspicion
  SetState(BreakerState::kOpen);
  ProbeAt(now + absl::ToChronoNanoseconds(NextWait()));
}

void UpstreamBreaker::OnProbeSilent(SteadyTime now) {
  const MutexLock lock(mutex_);
  if (probe_began_) OnProbe(now, Sign::kFailed, 0);
}

bool UpstreamBreaker::BeginProbe(SteadyTime now) {
  const MutexLock lock(mutex_);
  if (probe_began_ || !next_probe_ || *next_probe_ > now) return false;
  next_probe_.reset();
  probe_began_ = now;
  if (state_ == BreakerState::kOpen) SetState(BreakerState::kHalfOpen);
  return true;
}

void UpstreamBreaker::PutOffProbe(SteadyTime now, absl::Duration wait) {
  const MutexLock lock(mutex_);
  if (!std::exchange(probe_began_, std::nullopt)) return;
  if (state_ == BreakerState::kHalfOpen) SetState(BreakerState::kOpen);
  ProbeAt(now + absl::ToChronoNanoseconds(std::max(wait, kShortest)));
}

std::optional<SteadyTime> UpstreamBreaker::NextProbe() const {
  const MutexLock lock(mutex_);
  return probe_began_ ? std::nullopt : next_probe_;
}

// ---- states

void UpstreamBreaker::Open(SteadyTime now, BreakerCause cause) {
  const bool was_closed = state_ == BreakerState::kClosed;
  if (closed_at_ == SteadyTime::min() || now - closed_at_ >= kForgiven) wait_ = absl::ZeroDuration();
  changed_at_ = now;
  window_.clear();
  failed_ = 0;
  probe_began_.reset();  // what runs was begun in doubt about something else
  SetState(cause == BreakerCause::kFailures ? BreakerState::kOpen : BreakerState::kCredentials);
  const absl::Duration wait = was_closed ? NextWait() : Jittered(kLongestWait);
  observer_.OnBreakerOpened(cause);
  ProbeAt(now + absl::ToChronoNanoseconds(wait));
}

// Those with this number. What they were refused for may have been put right since.
void UpstreamBreaker::RefuseCredentials(SteadyTime now, uint64_t credentials) {
  if (credentials != Credentials(now, false)) {
    // A probe that showed the old ones is over: the next one shows the new ones.
    if (state_ != BreakerState::kClosed && !probe_began_ && !next_probe_) ProbeAt(now);
    return;
  }
  const bool others = credentials != std::exchange(refused_, credentials);
  seen_ = credentials;
  if (state_ != BreakerState::kCredentials) return Open(now, BreakerCause::kCredentials);
  changed_at_ = now;
  // Not by each of those that are refused alike, or the probe would never come.
  if (!probe_began_ && (others || !next_probe_)) ProbeAt(now + absl::ToChronoNanoseconds(Jittered(kLongestWait)));
}

void UpstreamBreaker::Close(SteadyTime now) {
  next_probe_.reset();
  probe_began_.reset();
  const BreakerState was = state_;
  if (was == BreakerState::kClosed) return;  // a suspicion was wrong
  closed_at_ = now;
  SetState(BreakerState::kClosed);
  observer_.OnBreakerClosed(was == BreakerState::kCredentials ? BreakerCause::kCredentials : BreakerCause::kFailures);
}

void UpstreamBreaker::SetState(BreakerState state) {
  state_ = state;
  observer_.OnBreakerState(state);
}

void UpstreamBreaker::ProbeAt(SteadyTime when) {
  next_probe_ = when;
  if (wake_) wake_();
}

void UpstreamBreaker::OnFilesRead(SteadyTime now) {
  const MutexLock lock(mutex_);
  if (state_ == BreakerState::kCredentials) Credentials(now, false);
}

// The number of those in force. Where they are new, a probe tries them without waiting any longer.
uint64_t UpstreamBreaker::Credentials(SteadyTime now, bool look) {
  if (!options_.credentials) return 0;
  look = look && now >= next_look_;
  if (look) next_look_ = now + kLookDistance;
  const uint64_t number = options_.credentials(look);
  if (state_ == BreakerState::kCredentials && number != seen_) {
    seen_ = number;
    next_trial_ = now;
    if (!probe_began_) ProbeAt(now);
  }
  return number;
}

// The waits before probes: 1 s, 2 s ... 30 s.
absl::Duration UpstreamBreaker::NextWait() {
  wait_ = wait_ == absl::ZeroDuration() ? kFirstWait : std::min(2 * wait_, kLongestWait);
  return Jittered(wait_);
}

// Up to a fifth less, so that replicas do not ask at the same moment.
absl::Duration UpstreamBreaker::Jittered(absl::Duration wait) const {
  return options_.random == nullptr ? wait : wait * (1 - 0.2 * options_.random());
}

void UpstreamBreaker::SetProber(std::function<void()> wake) { wake_ = std::move(wake); }

BreakerState UpstreamBreaker::state() const {
  const MutexLock lock(mutex_);
  return state_;
}

std::string UpstreamBreaker::known_intent() const {
  const MutexLock lock(mutex_);
  return known_intent_;
}

}  // namespace userintent::usecase
