#include "server/usecase/retry_policy.h"

#include <algorithm>

namespace userintent::usecase {
namespace {

using astra::ReadVerdict;
using astra::Verdict;
using ledger::State;

// Between tries: full jitter, base 100 ms, cap 2 s (AWS Builders' Library; gRPC A6 is milder).
absl::Duration Backoff(int tries, double random) {
  constexpr absl::Duration kBase = absl::Milliseconds(100);
  constexpr absl::Duration kCap = absl::Seconds(2);
  return random * std::min(kBase * (1 << std::min(tries, 5)), kCap);
}

}  // namespace

ledger::Sent SentOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNotSent:
      return ledger::Sent::kNo;
    case Verdict::kUnknown:
      return ledger::Sent::kMaybe;
    default:
      return ledger::Sent::kYes;
  }
}

void RetryPolicy::Tries::Count(const astra::Outcome& outcome) {
  ++all;
  not_sent += outcome.verdict == Verdict::kNotSent;
  refused_streams += outcome.verdict == Verdict::kRefused;
  not_now += outcome.verdict == Verdict::kRateLimited || outcome.verdict == Verdict::kUnavailable;
  unauthorized += outcome.verdict == Verdict::kCredentialsRejected && outcome.http_status == 401;
}

// Only files that changed since make a second try worth it; a 403 says that these credentials are known.
bool RetryPolicy::AsksForCredentials(const astra::Outcome& outcome, const Tries& tries) {
  return outcome.verdict == Verdict::kCredentialsRejected && outcome.http_status == 401 && tries.unauthorized == 1;
}

RetryPolicy::Decision RetryPolicy::Next(const astra::Outcome& outcome, const Tries& tries, const RetryFacts& facts) {
  // Released: nothing was created, and a repeat of the id begins anew.
  const auto again_or_release = [&](bool may, absl::Duration wait, bool fresh, v1::ErrorReason reason) -> Decision {
    if (may && facts.wanted && wait <= facts.longest_wait) return TryAgain{wait, fresh, reason};
    return Record{State::kReleased, reason};
  };
  switch (outcome.verdict) {
    case Verdict::kCreated:
      return Record{State::kSucceeded, v1::ERROR_REASON_UNSPECIFIED};
    case Verdict::kLimitReached:
      return Record{State::kFailed, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED};
    case Verdict::kRejected:
      return Record{State::kFailed, v1::ERROR_REASON_UPSTREAM_REJECTED};
    case Verdict::kCredentialsRejected:
      return again_or_release(AsksForCredentials(outcome, tries) && facts.new_credentials, absl::ZeroDuration(), true,
                              v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED);
    case Verdict::kMisconfigured:
      return Record{State::kReleased, v1::ERROR_REASON_UPSTREAM_MISCONFIGURED};
    case Verdict::kRateLimited:
      return again_or_release(tries.not_now == 1, outcome.retry_after.value_or(kDefaultRetryAfter), true,
                              v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
    case Verdict::kUnavailable:
      return again_or_release(tries.not_now == 1, outcome.retry_after.value_or(kDefaultRetryAfter), true,
                              v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    case Verdict::kRefused:
      // The peer closes this connection or is full for a moment. It is a short wait at first, because the next try goes
      // elsewhere, and never one for which there is no time.
      return again_or_release(
          tries.all < kMaxTriesWithRefusals,
          std::min(Backoff(tries.refused_streams - 1, facts.random), facts.random * facts.longest_wait), true,
          v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    case Verdict::kNotSent:
      // The database does not hear this process, which others may take for dead soon: nothing of it leaves any more.
      if (outcome.lease_over) return Record{State::kReleased, v1::ERROR_REASON_LEDGER_UNAVAILABLE};
      return again_or_release(tries.not_sent < kMaxConnects && !outcome.cancelled && !outcome.repeat_pointless,
                              Backoff(tries.not_sent, facts.random), false, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
    case Verdict::kUnknown:
      break;
  }
  return Record{State::kUnknown, v1::ERROR_REASON_OUTCOME_UNKNOWN};
}

RetryPolicy::Record RetryPolicy::WithoutAnotherTry(const astra::Outcome& outcome) {
  RetryFacts facts;
  facts.wanted = false;
  Tries tries;
  tries.Count(outcome);  // the try that this outcome ended
  const Decision decision = Next(outcome, tries, facts);
  return std::get<Record>(decision);
}

void ReadRetryPolicy::Tries::Count(const astra::ReadOutcome& outcome) {
  ++all;
  unauthorized += outcome.verdict == ReadVerdict::kCredentialsRejected && outcome.http_status == 401;
}

bool ReadRetryPolicy::AsksForCredentials(const astra::ReadOutcome& outcome, const Tries& tries) {
  return outcome.verdict == ReadVerdict::kCredentialsRejected && outcome.http_status == 401 &&
         tries.unauthorized == 1 && tries.all < kMaxTries;
}

ReadRetryPolicy::Decision ReadRetryPolicy::Next(const astra::ReadOutcome& outcome, const Tries& tries,
                                                const RetryFacts& facts) {
  const auto again_or = [&](bool may, absl::Duration wait, GiveUp give_up) -> Decision {
    if (may && tries.all < kMaxTries && facts.wanted && wait <= facts.longest_wait) return TryAgain{wait, give_up};
    return give_up;
  };
  const absl::Duration backoff = Backoff(tries.all, facts.random);
  switch (outcome.verdict) {
    case ReadVerdict::kRead:
      return Answered{};
    case ReadVerdict::kNotFound:
      return GiveUp{v1::ERROR_REASON_USER_INTENT_NOT_FOUND};
    case ReadVerdict::kNotSent:
      return again_or(!outcome.repeat_pointless, backoff, {v1::ERROR_REASON_UPSTREAM_UNREACHABLE});
    case ReadVerdict::kUnavailable:
      if (!outcome.retry_after) return again_or(true, backoff, {v1::ERROR_REASON_UPSTREAM_UNAVAILABLE});
      return again_or(true, *outcome.retry_after, {v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, *outcome.retry_after});
    case ReadVerdict::kRateLimited: {
      const absl::Duration wait = outcome.retry_after.value_or(kDefaultRetryAfter);
      return again_or(true, wait, {v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, wait});
    }
    case ReadVerdict::kCredentialsRejected:
      return again_or(AsksForCredentials(outcome, tries) && facts.new_credentials, absl::ZeroDuration(),
                      {v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED});
    case ReadVerdict::kMisconfigured:
      break;
  }
  return GiveUp{v1::ERROR_REASON_UPSTREAM_MISCONFIGURED};
}

}  // namespace userintent::usecase
