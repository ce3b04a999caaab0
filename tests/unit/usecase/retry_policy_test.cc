// The two tables of what happens after a try: of a creation, and of a read.
#include "server/usecase/retry_policy.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace userintent::usecase {
namespace {

using astra::ReadVerdict;
using astra::Verdict;
using ledger::State;

constexpr absl::Duration kMinute = absl::Minutes(1);

RetryFacts Facts(absl::Duration longest_wait = kMinute, bool wanted = true, bool new_credentials = false,
                 double random = 0.5) {
  return {.wanted = wanted, .longest_wait = longest_wait, .new_credentials = new_credentials, .random = random};
}

struct Want {
  State ends_as;
  v1::ErrorReason reason;
  std::optional<absl::Duration> again_after;  // nothing: no other try
  bool fresh = false;
};

// After the first try of a call that has a minute left, with jitter half way.
struct Row {
  std::string name;
  astra::Outcome outcome;
  Want want;
};

astra::Outcome Outcome(Verdict verdict, int status = 0, std::optional<absl::Duration> retry_after = std::nullopt) {
  astra::Outcome outcome;
  outcome.verdict = verdict;
  outcome.http_status = status;
  outcome.retry_after = retry_after;
  return outcome;
}

astra::Outcome Pointless() {
  astra::Outcome outcome = Outcome(Verdict::kNotSent);
  outcome.repeat_pointless = true;
  return outcome;
}

astra::Outcome Cancelled() {
  astra::Outcome outcome = Outcome(Verdict::kNotSent);
  outcome.cancelled = true;
  return outcome;
}

astra::Outcome LeaseOver() {
  astra::Outcome outcome = Pointless();
  outcome.lease_over = true;
  return outcome;
}

std::vector<Row> Table() {
  const absl::Duration second = absl::Seconds(1);
  return {
      {"created", Outcome(Verdict::kCreated, 201), {State::kSucceeded, v1::ERROR_REASON_UNSPECIFIED, {}}},
      {"limit", Outcome(Verdict::kLimitReached, 400), {State::kFailed, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED, {}}},
      {"rejected", Outcome(Verdict::kRejected, 422), {State::kFailed, v1::ERROR_REASON_UPSTREAM_REJECTED, {}}},
      {"401",
       Outcome(Verdict::kCredentialsRejected, 401),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED, {}}},
      {"403",
       Outcome(Verdict::kCredentialsRejected, 403),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED, {}}},
      {"misconfigured",
       Outcome(Verdict::kMisconfigured, 404),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_MISCONFIGURED, {}}},
      {"429",
       Outcome(Verdict::kRateLimited, 429),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, second, true}},
      {"429 in 7 s",
       Outcome(Verdict::kRateLimited, 429, absl::Seconds(7)),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, absl::Seconds(7), true}},
      {"503 in 7 s",
       Outcome(Verdict::kUnavailable, 503, absl::Seconds(7)),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, absl::Seconds(7), true}},
      {"refused stream",
       Outcome(Verdict::kRefused),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, absl::Milliseconds(50), true}},
      {"not sent",
       Outcome(Verdict::kNotSent),
       {State::kReleased, v1::ERROR_REASON_UPSTREAM_UNREACHABLE, absl::Milliseconds(100), false}},
      {"untrusted", Pointless(), {State::kReleased, v1::ERROR_REASON_UPSTREAM_UNREACHABLE, {}}},
      {"cancelled", Cancelled(), {State::kReleased, v1::ERROR_REASON_UPSTREAM_UNREACHABLE, {}}},
      {"lease over", LeaseOver(), {State::kReleased, v1::ERROR_REASON_LEDGER_UNAVAILABLE, {}}},
      {"unknown", Outcome(Verdict::kUnknown, 500), {State::kUnknown, v1::ERROR_REASON_OUTCOME_UNKNOWN, {}}},
  };
}

void ExpectEnd(const RetryPolicy::Decision& decision, const Want& want) {
  const auto* const record = std::get_if<RetryPolicy::Record>(&decision);
  ASSERT_NE(record, nullptr) << "tries again";
  EXPECT_EQ(record->state, want.ends_as);
  EXPECT_EQ(record->reason, want.reason);
}

RetryPolicy::Tries After(const astra::Outcome& outcome, int times = 1) {
  RetryPolicy::Tries tries;
  for (int i = 0; i < times; ++i) tries.Count(outcome);
  return tries;
}

TEST(RetryPolicyTest, HasARowForEachVerdict) {
  bool seen[std::size(astra::kVerdictNames)] = {};
  for (const Row& row : Table()) seen[static_cast<size_t>(row.outcome.verdict)] = true;
  for (size_t i = 0; i < std::size(seen); ++i) EXPECT_TRUE(seen[i]) << astra::kVerdictNames[i];
}

TEST(RetryPolicyTest, TheFirstTryEndsByTheTable) {
  for (const Row& row : Table()) {
    SCOPED_TRACE(row.name);
    const RetryPolicy::Decision decision = RetryPolicy::Next(row.outcome, After(row.outcome), Facts());
    if (!row.want.again_after) {
      ExpectEnd(decision, row.want);
      continue;
    }
    const auto* const again = std::get_if<RetryPolicy::TryAgain>(&decision);
    ASSERT_NE(again, nullptr) << "gives up";
    EXPECT_EQ(again->wait, *row.want.again_after);
    EXPECT_EQ(again->fresh_attempt_id, row.want.fresh);
    EXPECT_EQ(again->reason_if_given_up, row.want.reason);
  }
}

TEST(RetryPolicyTest, NothingIsTriedAgainForNobodyOrTooLate) {
  for (const Row& row : Table()) {
    SCOPED_TRACE(row.name);
    ExpectEnd(RetryPolicy::Next(row.outcome, After(row.outcome), Facts(kMinute, false, true)), row.want);
    ExpectEnd(RetryPolicy::Next(row.outcome, After(row.outcome), Facts(absl::Nanoseconds(-1), true, true)), row.want);
    if (row.want.again_after && row.outcome.verdict != Verdict::kRefused) {  // its wait fits what is left
      const absl::Duration wait = *row.want.again_after;
      ExpectEnd(RetryPolicy::Next(row.outcome, After(row.outcome), Facts(wait - absl::Nanoseconds(1))), row.want);
      EXPECT_EQ(RetryPolicy::Next(row.outcome, After(row.outcome), Facts(wait)).index(), 1u) << "a wait that just fits";
    }
  }
}

TEST(RetryPolicyTest, TriesAreCounted) {
  const auto most = [](const astra::Outcome& outcome) {
    int tries = 1;
    while (RetryPolicy::Next(outcome, After(outcome, tries), Facts(kMinute, true, true)).index() == 1) ++tries;
    return tries;
  };
  EXPECT_EQ(most(Outcome(Verdict::kNotSent)), 3);
  EXPECT_EQ(most(Outcome(Verdict::kRefused)), 6);
  EXPECT_EQ(most(Outcome(Verdict::kRateLimited, 429)), 2);
  EXPECT_EQ(most(Outcome(Verdict::kUnavailable, 503, absl::Seconds(1))), 2);
  EXPECT_EQ(most(Outcome(Verdict::kCredentialsRejected, 401)), 2);
  EXPECT_EQ(most(Outcome(Verdict::kCredentialsRejected, 403)), 1);
  EXPECT_EQ(most(Outcome(Verdict::kUnknown)), 1);
}

TEST(RetryPolicyTest, RefusedStreamsDoNotCountAmongTheThree) {
  RetryPolicy::Tries tries = After(Outcome(Verdict::kRefused), 2);
  for (const bool again : {true, true, false}) {
    tries.Count(Outcome(Verdict::kNotSent));
    EXPECT_EQ(RetryPolicy::Next(Outcome(Verdict::kNotSent), tries, Facts()).index() == 1, again) << tries.all;
  }
}

TEST(RetryPolicyTest, OneOf429And503IsTriedAgainOnce) {
  RetryPolicy::Tries tries = After(Outcome(Verdict::kRateLimited, 429));
  const astra::Outcome busy = Outcome(Verdict::kUnavailable, 503, absl::Seconds(1));
  tries.Count(busy);
  EXPECT_EQ(RetryPolicy::Next(busy, tries, Facts()).index(), 0u);
}

// Connections that failed before use up nothing of what an answer of Astra allows, nor the other way round.
TEST(RetryPolicyTest, EachLimitIsOfItsOwnKind) {
  for (const astra::Outcome& told :
       {Outcome(Verdict::kRateLimited, 429), Outcome(Verdict::kUnavailable, 503, absl::Seconds(1)),
        Outcome(Verdict::kCredentialsRejected, 401)}) {
    RetryPolicy::Tries tries = After(Outcome(Verdict::kNotSent), 2);
    tries.Count(told);
    EXPECT_EQ(RetryPolicy::Next(told, tries, Facts(kMinute, true, true)).index(), 1u) << told.http_status;
    tries.Count(Outcome(Verdict::kNotSent));
    EXPECT_EQ(RetryPolicy::Next(Outcome(Verdict::kNotSent), tries, Facts()).index(), 0u) << "the third connection";

    tries = After(told);
    for (const bool again : {true, true, false}) {
      tries.Count(Outcome(Verdict::kNotSent));
      EXPECT_EQ(RetryPolicy::Next(Outcome(Verdict::kNotSent), tries, Facts()).index() == 1, again) << tries.all;
    }
  }
}

TEST(RetryPolicyTest, A401IsTriedAgainWithOtherCredentialsOnly) {
  const astra::Outcome outcome = Outcome(Verdict::kCredentialsRejected, 401);
  EXPECT_TRUE(RetryPolicy::AsksForCredentials(outcome, After(outcome)));
  EXPECT_FALSE(RetryPolicy::AsksForCredentials(outcome, After(outcome, 2)));
  EXPECT_FALSE(RetryPolicy::AsksForCredentials(Outcome(Verdict::kCredentialsRejected, 403),
                                               After(Outcome(Verdict::kCredentialsRejected, 403))));
  const RetryPolicy::Decision decision = RetryPolicy::Next(outcome, After(outcome), Facts(kMinute, true, true));
  const auto* const again = std::get_if<RetryPolicy::TryAgain>(&decision);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->wait, absl::ZeroDuration());
  EXPECT_TRUE(again->fresh_attempt_id);
}

TEST(RetryPolicyTest, Only401Counts) {
  RetryPolicy::Tries tries = After(Outcome(Verdict::kCredentialsRejected, 403));
  const astra::Outcome outcome = Outcome(Verdict::kCredentialsRejected, 401);
  tries.Count(outcome);
  EXPECT_TRUE(RetryPolicy::AsksForCredentials(outcome, tries));
}

TEST(RetryPolicyTest, TheBackoffBetweenConnectionsLeavesRefusedStreamsOut) {
  RetryPolicy::Tries tries = After(Outcome(Verdict::kRefused), 2);
  tries.Count(Outcome(Verdict::kNotSent));
  const RetryPolicy::Decision decision = RetryPolicy::Next(Outcome(Verdict::kNotSent), tries, Facts());
  EXPECT_EQ(std::get<RetryPolicy::TryAgain>(decision).wait, absl::Milliseconds(100));
}

TEST(RetryPolicyTest, TheBackoffGrowsToTwoSeconds) {
  const auto longest = [](int tries) {
    RetryPolicy::Tries counted = After(Outcome(Verdict::kRefused), tries);
    const auto decision = RetryPolicy::Next(Outcome(Verdict::kRefused), counted, Facts(kMinute, true, false, 1));
    const auto* const again = std::get_if<RetryPolicy::TryAgain>(&decision);
    return again != nullptr ? again->wait : -absl::InfiniteDuration();
  };
  EXPECT_EQ(longest(1), absl::Milliseconds(100));
  EXPECT_EQ(longest(2), absl::Milliseconds(200));
  EXPECT_EQ(longest(5), absl::Milliseconds(1600));
  const auto none =
      RetryPolicy::Next(Outcome(Verdict::kNotSent), After(Outcome(Verdict::kNotSent)), Facts(kMinute, true, false, 0));
  EXPECT_EQ(std::get<RetryPolicy::TryAgain>(none).wait, absl::ZeroDuration()) << "full jitter begins at zero";
}

// A row of the table of reads, after the first GET of a call with a minute left.
struct ReadRow {
  std::string name;
  astra::ReadOutcome outcome;
  v1::ErrorReason reason;                                    // UNSPECIFIED: answered
  std::optional<absl::Duration> again_after = std::nullopt;  // no other GET
  absl::Duration retry_after = absl::Seconds(1);
  int most = 1;  // GETs, when each ends like this
};

astra::ReadOutcome Read(ReadVerdict verdict, int status = 0, std::optional<absl::Duration> retry_after = std::nullopt) {
  astra::ReadOutcome outcome;
  outcome.verdict = verdict;
  outcome.http_status = status;
  outcome.retry_after = retry_after;
  return outcome;
}

std::vector<ReadRow> ReadTable() {
  const absl::Duration backoff = absl::Milliseconds(100);
  astra::ReadOutcome untrusted = Read(ReadVerdict::kNotSent);
  untrusted.repeat_pointless = true;
  return {
      {.name = "read", .outcome = Read(ReadVerdict::kRead, 200), .reason = v1::ERROR_REASON_UNSPECIFIED},
      {.name = "404", .outcome = Read(ReadVerdict::kNotFound, 404), .reason = v1::ERROR_REASON_USER_INTENT_NOT_FOUND},
      {.name = "not sent",
       .outcome = Read(ReadVerdict::kNotSent),
       .reason = v1::ERROR_REASON_UPSTREAM_UNREACHABLE,
       .again_after = backoff,
       .most = 3},
      {.name = "untrusted", .outcome = untrusted, .reason = v1::ERROR_REASON_UPSTREAM_UNREACHABLE},
      {.name = "lost",
       .outcome = Read(ReadVerdict::kUnavailable),
       .reason = v1::ERROR_REASON_UPSTREAM_UNAVAILABLE,
       .again_after = backoff,
       .most = 3},
      {.name = "503 in 7 s",
       .outcome = Read(ReadVerdict::kUnavailable, 503, absl::Seconds(7)),
       .reason = v1::ERROR_REASON_UPSTREAM_UNAVAILABLE,
       .again_after = absl::Seconds(7),
       .retry_after = absl::Seconds(7),
       .most = 3},
      {.name = "429",
       .outcome = Read(ReadVerdict::kRateLimited, 429),
       .reason = v1::ERROR_REASON_UPSTREAM_RATE_LIMITED,
       .again_after = absl::Seconds(1),
       .most = 3},
      {.name = "429 in 7 s",
       .outcome = Read(ReadVerdict::kRateLimited, 429, absl::Seconds(7)),
       .reason = v1::ERROR_REASON_UPSTREAM_RATE_LIMITED,
       .again_after = absl::Seconds(7),
       .retry_after = absl::Seconds(7),
       .most = 3},
      {.name = "401",
       .outcome = Read(ReadVerdict::kCredentialsRejected, 401),
       .reason = v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED,
       .most = 2},
      {.name = "403",
       .outcome = Read(ReadVerdict::kCredentialsRejected, 403),
       .reason = v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED},
      {.name = "misconfigured",
       .outcome = Read(ReadVerdict::kMisconfigured, 418),
       .reason = v1::ERROR_REASON_UPSTREAM_MISCONFIGURED},
  };
}

ReadRetryPolicy::Tries After(const astra::ReadOutcome& outcome, int times = 1) {
  ReadRetryPolicy::Tries tries;
  for (int i = 0; i < times; ++i) tries.Count(outcome);
  return tries;
}

void ExpectEnd(const ReadRetryPolicy::Decision& decision, const ReadRow& row) {
  if (row.reason == v1::ERROR_REASON_UNSPECIFIED) {
    EXPECT_NE(std::get_if<ReadRetryPolicy::Answered>(&decision), nullptr);
    return;
  }
  const auto* const give_up = std::get_if<ReadRetryPolicy::GiveUp>(&decision);
  ASSERT_NE(give_up, nullptr);
  EXPECT_EQ(give_up->reason, row.reason);
  EXPECT_EQ(give_up->retry_after, row.retry_after);
}

TEST(ReadRetryPolicyTest, HasARowForEachVerdict) {
  bool seen[std::size(astra::kReadVerdictNames)] = {};
  for (const ReadRow& row : ReadTable()) seen[static_cast<size_t>(row.outcome.verdict)] = true;
  for (size_t i = 0; i < std::size(seen); ++i) EXPECT_TRUE(seen[i]) << astra::kReadVerdictNames[i];
}

TEST(ReadRetryPolicyTest, TheFirstGetEndsByTheTable) {
  for (const ReadRow& row : ReadTable()) {
    SCOPED_TRACE(row.name);
    const ReadRetryPolicy::Decision decision = ReadRetryPolicy::Next(row.outcome, After(row.outcome), Facts());
    if (!row.again_after) {
      ExpectEnd(decision, row);
      continue;
    }
    const auto* const again = std::get_if<ReadRetryPolicy::TryAgain>(&decision);
    ASSERT_NE(again, nullptr) << "gives up";
    EXPECT_EQ(again->wait, *row.again_after);
    ExpectEnd(again->otherwise, row);
  }
}

TEST(ReadRetryPolicyTest, NothingIsReadAgainForNobodyOrTooLate) {
  for (const ReadRow& row : ReadTable()) {
    SCOPED_TRACE(row.name);
    ExpectEnd(ReadRetryPolicy::Next(row.outcome, After(row.outcome), Facts(kMinute, false, true)), row);
    ExpectEnd(ReadRetryPolicy::Next(row.outcome, After(row.outcome), Facts(absl::Nanoseconds(-1), true, true)), row);
    if (!row.again_after) continue;
    ExpectEnd(ReadRetryPolicy::Next(row.outcome, After(row.outcome), Facts(*row.again_after - absl::Nanoseconds(1))),
              row);
    EXPECT_EQ(ReadRetryPolicy::Next(row.outcome, After(row.outcome), Facts(*row.again_after)).index(), 2u)
        << "a wait that just fits";
  }
}

TEST(ReadRetryPolicyTest, AtMostThreeGets) {
  for (const ReadRow& row : ReadTable()) {
    SCOPED_TRACE(row.name);
    int gets = 1;
    while (ReadRetryPolicy::Next(row.outcome, After(row.outcome, gets), Facts(kMinute, true, true)).index() == 2)
      ++gets;
    EXPECT_EQ(gets, row.most);
  }
}

TEST(ReadRetryPolicyTest, Only401Counts) {
  ReadRetryPolicy::Tries tries = After(Read(ReadVerdict::kCredentialsRejected, 403));
  const astra::ReadOutcome outcome = Read(ReadVerdict::kCredentialsRejected, 401);
  tries.Count(outcome);
  EXPECT_TRUE(ReadRetryPolicy::AsksForCredentials(outcome, tries));
}

TEST(ReadRetryPolicyTest, FilesAreNotReadForA401AfterTheLastGet) {
  ReadRetryPolicy::Tries tries = After(Read(ReadVerdict::kUnavailable), 2);
  const astra::ReadOutcome outcome = Read(ReadVerdict::kCredentialsRejected, 401);
  tries.Count(outcome);
  EXPECT_FALSE(ReadRetryPolicy::AsksForCredentials(outcome, tries));
}

}  // namespace
}  // namespace userintent::usecase
