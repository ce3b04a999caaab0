// The breaker's state `credentials`: what opens it, who may try other ones and when, and what closes it.
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "server/usecase/upstream_breaker.h"
#include "tests/unit/usecase/breaker_fixture.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using astra::Verdict;
using State = BreakerState;

TEST_F(BreakerTest, OneRefusalOfTheCredentialsIsEnough) {
  for (const int status : {401, 403}) {
    now_ += 2min;
    Exchange(Post(Verdict::kCredentialsRejected, status));
    EXPECT_EQ(breaker_.state(), State::kCredentials);
    EXPECT_EQ(Suspended(), absl::Milliseconds(1100));
    EXPECT_EQ(watcher_.opened.back(), BreakerCause::kCredentials);
    Probe(Get(ReadVerdict::kNotFound, 404));
    EXPECT_EQ(breaker_.state(), State::kClosed) << "they are taken again";
    EXPECT_EQ(watcher_.closed.back(), BreakerCause::kCredentials);
  }
  breaker_.OnRead(now_, now_, "a", false, Get(ReadVerdict::kCredentialsRejected, 401));
  EXPECT_EQ(breaker_.state(), State::kCredentials) << "a read says it as well";
}

TEST_F(BreakerTest, WrongCredentialsAreProbedEveryThirtySeconds) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  EXPECT_EQ(UntilProbe(), 1s);
  for (int i = 0; i < 3; ++i) {
    Probe(Get(ReadVerdict::kCredentialsRejected, 401));
    EXPECT_EQ(UntilProbe(), 30s);
    EXPECT_EQ(Suspended(), absl::Seconds(30) + absl::Milliseconds(100));
  }
  // What does not say whether the credentials are right closes nothing, and what fails does not open another state.
  for (const astra::ReadOutcome& outcome : {Get(ReadVerdict::kRateLimited, 429), Get(ReadVerdict::kUnavailable, 500),
                                            Get(ReadVerdict::kMisconfigured, 302)}) {
    Probe(outcome);
    EXPECT_EQ(breaker_.state(), State::kCredentials);
    EXPECT_EQ(UntilProbe(), 30s);
  }
  Exchange(Lost(), 50);
  EXPECT_EQ(breaker_.state(), State::kCredentials);
  EXPECT_EQ(watcher_.opened.size(), 1U);
}

TEST_F(BreakerTest, CallsThatAreRefusedAlikeDoNotPutTheProbeOff) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  now_ += 500ms;
  Exchange(Post(Verdict::kCredentialsRejected, 401), 10);
  EXPECT_EQ(UntilProbe(), 500ms);
}

TEST_F(BreakerTest, RefusedByTheProbeOfAnOpenBreaker) {
  Open();
  Probe(Get(ReadVerdict::kCredentialsRejected, 403));
  EXPECT_EQ(breaker_.state(), State::kCredentials);
  EXPECT_EQ(watcher_.opened, (std::vector{BreakerCause::kFailures, BreakerCause::kCredentials}));
  EXPECT_EQ(UntilProbe(), 30s);
}

TEST_F(BreakerTest, ACallTriesOtherCredentialsAtOnce) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  Probe(Get(ReadVerdict::kCredentialsRejected, 401));
  EXPECT_TRUE(Suspended());
  on_disk_ = 2;
  now_ += 200ms;  // the files are not looked at more often
  EXPECT_FALSE(Suspended());
  EXPECT_FALSE(Suspended()) << "asking takes nothing";
  EXPECT_EQ(UntilProbe(), 0s) << "so does a probe";
  breaker_.OnBegins(now_);
  EXPECT_TRUE(Suspended()) << "one at a time";
  EXPECT_LE(*Suspended(), absl::Milliseconds(1100));
  const SteadyTime began = now_ - 1s;  // a loop's clock may stand still
  now_ += 10ms;
  breaker_.OnPost(now_, began, Good(2));
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_FALSE(Suspended());
  EXPECT_FALSE(breaker_.NextProbe());
}

TEST_F(BreakerTest, OtherCredentialsThatAreWrongToo) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  on_disk_ = 2;
  EXPECT_FALSE(Suspended());
  breaker_.OnBegins(now_);
  Exchange(Post(Verdict::kCredentialsRejected, 401, 2));
  now_ += 5s;
  EXPECT_TRUE(Suspended()) << "no further trial of these";
  EXPECT_EQ(watcher_.opened.size(), 1U);
  on_disk_ = 3;
  now_ += 5s;
  EXPECT_FALSE(Suspended());
}

TEST_F(BreakerTest, ATrialThatSaysNothingIsFollowedByAnother) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  on_disk_ = 2;
  EXPECT_FALSE(Suspended());
  breaker_.OnBegins(now_);
  Exchange(Post(Verdict::kUnknown, 0, 2));
  EXPECT_EQ(breaker_.state(), State::kCredentials);
  now_ += 1s;
  EXPECT_FALSE(Suspended());
}

TEST_F(BreakerTest, ARefusalOfOlderCredentialsSaysNothing) {
  credentials_ = on_disk_ = 2;
  Exchange(Post(Verdict::kCredentialsRejected, 401, 1), 50);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  // Nor does an acceptance of older ones.
  Exchange(Post(Verdict::kCredentialsRejected, 401, 2));
  Exchange(Good(1));
  EXPECT_EQ(breaker_.state(), State::kCredentials);
  const SteadyTime before = now_ - 1s;
  breaker_.OnPost(now_, before, Good(2));
  EXPECT_EQ(breaker_.state(), State::kCredentials) << "it began before the refusal";
  now_ += 1s;
  breaker_.OnPost(now_, now_, Good(2));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(BreakerTest, FilesThatAreReadElsewhereArePutToTheTest) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  Probe(Get(ReadVerdict::kCredentialsRejected, 401));
  breaker_.OnFilesRead(now_);
  EXPECT_EQ(UntilProbe(), 30s) << "nothing new";
  credentials_ = on_disk_ = 2;
  breaker_.OnFilesRead(now_);
  EXPECT_EQ(UntilProbe(), 0s);
  Probe(Get(ReadVerdict::kRead, 200, 2));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(BreakerTest, AProbeWithOldCredentialsIsFollowedAtOnceByOneWithTheNewOnes) {
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  Begin();
  credentials_ = on_disk_ = 2;
  breaker_.OnFilesRead(now_);
  breaker_.OnRead(now_, now_, "a", true, Get(ReadVerdict::kCredentialsRejected, 401, 1));
  EXPECT_EQ(UntilProbe(), 0s);
  Probe(Get(ReadVerdict::kCredentialsRejected, 401, 2));
  EXPECT_EQ(UntilProbe(), 30s);
}

TEST_F(BreakerTest, TheFilesAreLookedAtFiveTimesASecondAtMostAndOnlyInThatState) {
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(Suspended());
  EXPECT_EQ(looks_, 0);
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  for (int i = 0; i < 1000; ++i) {
    breaker_.Suspended(now_);
    now_ += 1ms;
  }
  EXPECT_EQ(looks_, 5);
}

TEST_F(BreakerTest, A403OfAnEdgeHasAProbeSentWhichDecides) {
  astra::Outcome edge = Post(Verdict::kCredentialsRejected, 403);
  edge.not_astras = true;
  Exchange(edge, 50);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_FALSE(Suspended());
  EXPECT_EQ(UntilProbe(), 0s);
  Probe(Get(ReadVerdict::kRead, 200));  // it meant these requests
  EXPECT_EQ(breaker_.state(), State::kClosed);
  EXPECT_TRUE(watcher_.states.empty());
  EXPECT_FALSE(breaker_.NextProbe());
  Exchange(edge, 50);
  EXPECT_FALSE(breaker_.NextProbe()) << "one a second will do";
  now_ += 1s;
  Exchange(edge);
  astra::ReadOutcome refused = Get(ReadVerdict::kCredentialsRejected, 403);
  refused.not_astras = true;
  Probe(refused);  // it means us
  EXPECT_EQ(breaker_.state(), State::kCredentials);
  astra::Outcome unnamed = Post(Verdict::kCredentialsRejected, 401);
  unnamed.not_astras = true;
  Probe(Get(ReadVerdict::kNotFound, 404));
  EXPECT_EQ(breaker_.state(), State::kClosed);
  Exchange(unnamed);
  EXPECT_EQ(breaker_.state(), State::kCredentials) << "a 401 speaks of credentials whoever says it";
}

TEST_F(BreakerTest, AnythingAtAnyTimeFromAnyThread) {
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < 4; ++n) {
    threads.emplace_back([this, n] {
      unsigned dice = n + 1;
      for (int i = 0; i < 20000; ++i) {
        dice = dice * 1664525 + 1013904223;
        const SteadyTime now = SteadyTime{1h} + i * 1ms;
        switch (dice >> 29) {
          case 0:
            breaker_.OnPost(now, now, Lost());
            break;
          case 1:
            breaker_.OnPost(now, now, Good());
            break;
          case 2:
            breaker_.OnPost(now, now, Post(Verdict::kCredentialsRejected, 401));
            break;
          case 3:
            breaker_.BeginProbe(now);
            break;
          case 4:
            breaker_.OnRead(now, now, "a", true, Get(ReadVerdict::kUnavailable));
            break;
          case 5:
            breaker_.OnProbeSilent(now);
            break;
          case 6:
            breaker_.OnBegins(now);
            break;
          default:
            breaker_.Suspended(now);
            break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Whatever it was, a way leads out.
  now_ += 1h;
  breaker_.OnProbeSilent(now_);
  if (breaker_.state() != State::kClosed) Probe(Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

}  // namespace
}  // namespace userintent::usecase
