// When the breaker opens because exchanges fail, when it probes, what closes it, and what creations hear meanwhile.
#include "server/usecase/upstream_breaker.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>
#include <vector>

#include "tests/unit/usecase/breaker_fixture.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using astra::Verdict;
using State = BreakerState;

// ---- when it opens

TEST_F(BreakerTest, OpensWhenMoreThanHalfOfTheLastTwentyFailed) {
  Exchange(Good(), 9);
  Exchange(Lost(), 10);
  EXPECT_FALSE(Suspended());
  Exchange(Lost());
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_EQ(Suspended(), absl::Milliseconds(1100));
  EXPECT_EQ(watcher_.opened, std::vector{BreakerCause::kFailures});
  EXPECT_EQ(UntilProbe(), 1s);
}

TEST_F(BreakerTest, HalfIsNotMoreThanHalf) {
  for (int i = 0; i < 200; ++i) Exchange(i % 2 == 0 ? Good() : Lost());
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_FALSE(breaker_.NextProbe());
}

TEST_F(BreakerTest, FewFailuresNeverOpenIt) {
  Exchange(Lost(), 19);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  now_ += 10001ms;
  Exchange(Lost(), 19);  // the older ones are too old
  EXPECT_EQ(breaker_.state(), State::kClosed);
  now_ += 10s;
  Exchange(Lost());
  EXPECT_EQ(breaker_.state(), State::kOpen) << "the other 19 are just young enough";
}

TEST_F(BreakerTest, AGoodAnswerDoesNotOpenIt) {
  Exchange(Lost(), 19);
  Exchange(Good(), 9);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  Exchange(Lost());
  EXPECT_EQ(breaker_.state(), State::kOpen);
}

TEST_F(BreakerTest, WhatCounts) {
  const auto opens = [](const astra::Outcome& outcome) {
    BreakerWatcher watcher;
    UpstreamBreaker breaker({}, watcher);
    for (int i = 0; i < 100; ++i) breaker.OnPost(SteadyTime{1h}, SteadyTime{1h}, outcome);
    return breaker.state() == State::kOpen;
  };
  for (const astra::Outcome& outcome : {Lost(), Post(Verdict::kUnknown, 500), Post(Verdict::kUnknown, 503),
                                        Post(Verdict::kUnavailable, 503), Post(Verdict::kNotSent)}) {
    EXPECT_TRUE(opens(outcome)) << outcome.http_status;
  }
  astra::Outcome cancelled = Post(Verdict::kNotSent);
  cancelled.cancelled = true;
  astra::Outcome lease = Post(Verdict::kNotSent);
  lease.lease_over = true;
  astra::Outcome no_id = Post(Verdict::kUnknown, 201);
  no_id.confirmed = true;
  for (const astra::Outcome& outcome :
       {Good(), no_id, Post(Verdict::kRejected, 422), Post(Verdict::kLimitReached, 400),
        Post(Verdict::kRateLimited, 429), Post(Verdict::kMisconfigured, 404), Post(Verdict::kMisconfigured, 302),
        Post(Verdict::kUnknown, 408), Post(Verdict::kUnknown, 409), Post(Verdict::kRefused), cancelled, lease}) {
    EXPECT_FALSE(opens(outcome)) << outcome.http_status;
  }
}

TEST_F(BreakerTest, WhatDoesNotSpeakOfAstraIsNoExchange) {
  Exchange(Lost(), 10);
  astra::Outcome cancelled = Post(Verdict::kNotSent);
  cancelled.cancelled = true;
  Exchange(cancelled, 50);
  Exchange(Post(Verdict::kRefused), 50);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  Exchange(Good(), 9);
  Exchange(Lost());
  EXPECT_EQ(breaker_.state(), State::kOpen) << "11 of the last 20 that count";
}

TEST_F(BreakerTest, ReadsCountAsWell) {
  for (const ReadVerdict verdict : {ReadVerdict::kUnavailable, ReadVerdict::kNotSent}) {
    for (int i = 0; i < 10; ++i) breaker_.OnRead(now_, now_, "a", false, Get(verdict));
  }
  EXPECT_EQ(breaker_.state(), State::kOpen);
}

TEST_F(BreakerTest, ReadsThatAreAnsweredAreNoFailures) {
  for (const astra::ReadOutcome& outcome :
       {Get(ReadVerdict::kRead, 200), Get(ReadVerdict::kNotFound, 404), Get(ReadVerdict::kRateLimited, 429),
        Get(ReadVerdict::kUnavailable, 408), Get(ReadVerdict::kMisconfigured, 400)}) {
    for (int i = 0; i < 30; ++i) breaker_.OnRead(now_, now_, "a", false, outcome);
    EXPECT_EQ(breaker_.state(), State::kClosed) << outcome.http_status;
  }
}

// ---- while it is open

TEST_F(BreakerTest, TheWaitsGrowToThirtySeconds) {
  Open();
  std::vector<int64_t> waits;
  for (int i = 0; i < 7; ++i) {
    waits.push_back(absl::ToInt64Seconds(absl::FromChrono(UntilProbe())));
    EXPECT_EQ(Suspended(), absl::FromChrono(UntilProbe()) + absl::Milliseconds(100));
    Probe(Get(ReadVerdict::kUnavailable, 500));
    EXPECT_EQ(breaker_.state(), State::kOpen);
  }
  EXPECT_EQ(waits, (std::vector<int64_t>{1, 2, 4, 8, 16, 30, 30}));
  EXPECT_EQ(watcher_.opened.size(), 1U) << "one opening, one line";
  EXPECT_EQ(watcher_.probes, std::vector<ProbeResult>(7, ProbeResult::kFailed));
}

TEST_F(BreakerTest, NothingButAProbeClosesIt) {
  Open();
  const SteadyTime before = now_ - 1s;
  now_ += 500ms;
  breaker_.OnPost(now_, before, Good());  // late
  Exchange(Good(), 50);
  breaker_.OnRead(now_, now_, "intent-1", false, Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_FALSE(breaker_.BeginProbe(now_)) << "it is not time yet";
  Begin();
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  EXPECT_EQ(Suspended(), absl::Milliseconds(100));
  EXPECT_FALSE(breaker_.BeginProbe(now_ + 1h)) << "one at a time";
  EXPECT_FALSE(breaker_.NextProbe());
  breaker_.OnRead(now_, now_, "intent-1", true, Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_FALSE(Suspended());
  EXPECT_EQ(watcher_.states, (std::vector{State::kOpen, State::kHalfOpen, State::kClosed}));
  EXPECT_EQ(watcher_.closed, std::vector{BreakerCause::kFailures});
}

TEST_F(BreakerTest, EveryStatusLineBelow500IsAGoodAnswerToAProbe) {
  for (const astra::ReadOutcome& outcome :
       {Get(ReadVerdict::kRead, 200), Get(ReadVerdict::kNotFound, 404), Get(ReadVerdict::kRateLimited, 429),
        Get(ReadVerdict::kMisconfigured, 400)}) {
    Open();
    Probe(outcome);
    EXPECT_EQ(breaker_.state(), State::kClosed) << outcome.http_status;
  }
}

TEST_F(BreakerTest, WhatBeganBeforeItClosedSaysNothing) {
  Open();
  const SteadyTime before = now_;
  Probe(Get(ReadVerdict::kNotFound, 404));
  for (int i = 0; i < 100; ++i) breaker_.OnPost(now_, before, Lost());
  EXPECT_EQ(breaker_.state(), State::kClosed);
  Exchange(Lost(), 19);
  EXPECT_EQ(breaker_.state(), State::kClosed) << "the window is empty after a closing";
  Exchange(Lost());
  EXPECT_EQ(breaker_.state(), State::kOpen);
}

TEST_F(BreakerTest, OpenedAgainSoonItWaitsLonger) {
  Open();
  Probe(Get(ReadVerdict::kRead, 200));
  now_ += 59s;
  Open();
  EXPECT_EQ(UntilProbe(), 2s);
  Probe(Get(ReadVerdict::kRead, 200));
  now_ += 60s;
  Open();
  EXPECT_EQ(UntilProbe(), 1s);
}

TEST_F(BreakerTest, AProbeThatIsSilentHasFailed) {
  Open();
  Begin();
  const SteadyTime began = now_;
  now_ += UpstreamBreaker::kProbeLimit;
  breaker_.OnProbeSilent(now_);
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_EQ(UntilProbe(), 2s);
  // Its answer, later, is one of any read.
  breaker_.OnRead(now_, began, "intent-1", true, Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  breaker_.OnProbeSilent(now_);
  EXPECT_EQ(watcher_.probes, std::vector{ProbeResult::kFailed});
}

TEST_F(BreakerTest, AProbeThatCouldNotBeSentIsNone) {
  Open();
  Begin();
  breaker_.PutOffProbe(now_, absl::Seconds(3));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  EXPECT_EQ(UntilProbe(), 3s);
  EXPECT_TRUE(watcher_.probes.empty());
  breaker_.PutOffProbe(now_, absl::Seconds(9));  // none runs
  EXPECT_EQ(UntilProbe(), 3s);
  Probe(Get(ReadVerdict::kUnavailable));
  EXPECT_EQ(UntilProbe(), 2s);
}

TEST_F(BreakerTest, TheJitterMakesAWaitShorterByAFifthAtMost) {
  BreakerWatcher watcher;
  UpstreamBreaker breaker({nullptr, [] { return 0.999999; }}, watcher);
  for (int i = 0; i < 20; ++i) breaker.OnPost(now_, now_, Lost());
  ASSERT_TRUE(breaker.NextProbe());
  EXPECT_GE(*breaker.NextProbe() - now_, 800ms);
  EXPECT_LT(*breaker.NextProbe() - now_, 810ms);
}

TEST_F(BreakerTest, KnowsAnIntentThatExists) {
  EXPECT_EQ(breaker_.known_intent(), "");
  Exchange(Good());
  EXPECT_EQ(breaker_.known_intent(), "intent-1");
  breaker_.OnRead(now_, now_, "intent-2", false, Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.known_intent(), "intent-2");
  breaker_.OnRead(now_, now_, "intent-1", false, Get(ReadVerdict::kNotFound, 404));
  EXPECT_EQ(breaker_.known_intent(), "intent-2");
  breaker_.OnRead(now_, now_, "intent-2", false, Get(ReadVerdict::kNotFound, 404));
  EXPECT_EQ(breaker_.known_intent(), "");
}

}  // namespace
}  // namespace userintent::usecase
