// Who asks the breaker and who probes for it: the admission control, and the prober on a loop and an Astra of the
// test's own.
#include "server/usecase/upstream_prober.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/memory_ledger.h"
#include "server/usecase/admission_control.h"
#include "tests/unit/usecase/breaker_fixture.h"
#include "tests/unit/usecase/fake_loop.h"
#include "tests/unit/usecase/fake_reads.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using astra::Verdict;
using State = BreakerState;

// ---- the admission control asks it

class SuspendedTest : public BreakerTest {
 protected:
  AdmissionControl Control(int max_in_flight) {
    AdmissionControl::Options options;
    options.max_in_flight = max_in_flight;
    options.breaker = &breaker_;
    return AdmissionControl(options);
  }
  static v1::ErrorReason ReasonOf(const std::optional<AdmissionControl::Refusal>& refusal) {
    return refusal ? refusal->reason : v1::ERROR_REASON_UNSPECIFIED;
  }
};

TEST_F(SuspendedTest, InTheContractsOrder) {
  AdmissionControl control = Control(0);  // overloaded
  control.HoldBack(now_, absl::Seconds(10));
  Open();
  const auto refusal = control.Enter(now_, now_);
  EXPECT_EQ(ReasonOf(refusal), v1::ERROR_REASON_UPSTREAM_SUSPENDED);
  EXPECT_EQ(refusal->retry_after, absl::Milliseconds(1100));
  EXPECT_EQ(ReasonOf(control.Look(now_, now_)), v1::ERROR_REASON_UPSTREAM_SUSPENDED) << "validate_only hears the same";
  policy::Limits limits;
  limits.create = policy::Rate{0.001, 1};
  const auto over = std::make_shared<policy::CallerAccount>(limits);
  over->TakeCreate(now_);
  EXPECT_EQ(ReasonOf(control.Enter(now_, now_, over)), v1::ERROR_REASON_CALLER_RATE_LIMITED);
  control.Drain();
  EXPECT_EQ(ReasonOf(control.Enter(now_, now_)), v1::ERROR_REASON_DRAINING);
}

TEST_F(SuspendedTest, OneCallGetsThroughToTryOtherCredentials) {
  AdmissionControl control = Control(10);
  Exchange(Post(Verdict::kCredentialsRejected, 401));
  on_disk_ = 2;
  EXPECT_FALSE(control.Look(now_, now_ + 30s));
  EXPECT_FALSE(control.Enter(now_, now_ + 30s));
  EXPECT_EQ(ReasonOf(control.Enter(now_, now_ + 30s)), v1::ERROR_REASON_UPSTREAM_SUSPENDED);
  EXPECT_EQ(control.in_flight(), 1);
}

// ---- the prober

class ProberTest : public BreakerTest {
 protected:
  ProberTest() : reads_(ledger_, admission_, observer_, 1), prober_(breaker_, reads_, {loop_, astra_}) {
    prober_.Listen();
  }
  void Fail() {
    for (int i = 0; i < 20; ++i) breaker_.OnPost(loop_.Now(), loop_.Now(), Lost());
    loop_.Settle();
  }
  void Refuse() {
    breaker_.OnPost(loop_.Now(), loop_.Now(), Post(Verdict::kCredentialsRejected, 401));
    loop_.Settle();
  }
  static AdmissionControl::Options Options(UpstreamBreaker& breaker) {
    AdmissionControl::Options options;
    options.breaker = &breaker;
    return options;
  }

  FakeLoop loop_;
  FakeAstraReads astra_;
  ledger::MemoryLedger ledger_;
  AdmissionControl admission_{Options(breaker_)};
  ReadWatcher observer_;
  IntentReads reads_;
  UpstreamProber prober_;
};

TEST_F(ProberTest, SendsAGetWhenItIsTimeAndNoneWhileItIsClosed) {
  loop_.Advance(1h);
  EXPECT_TRUE(astra_.gets.empty());
  Fail();
  loop_.Advance(999ms);
  EXPECT_TRUE(astra_.gets.empty());
  loop_.Advance(1ms);
  ASSERT_EQ(astra_.gets.size(), 1U);
  EXPECT_TRUE(ParseUuid(astra_.gets[0].id)) << "made up";
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  astra_.Answer(ReadVerdict::kNotFound, 404);
  EXPECT_EQ(breaker_.state(), State::kClosed);
  loop_.Advance(1h);
  EXPECT_EQ(astra_.gets.size(), 1U);
  EXPECT_EQ(observer_.askers, std::vector{Asker::kProbe});
  EXPECT_EQ(watcher_.probes, std::vector{ProbeResult::kGood}) << "the time limit went with it";
}

TEST_F(ProberTest, ReadsAnIntentThatExistsUnlessItIsBeingRead) {
  breaker_.OnPost(loop_.Now(), loop_.Now(), Good());
  reads_.Read({loop_, astra_}, {Asker::kFollowUp, "intent-1"}, [](const Result<ledger::Reading>&) {});
  Fail();
  loop_.Advance(1s);
  ASSERT_EQ(astra_.gets.size(), 2U);
  EXPECT_NE(astra_.gets[1].id, "intent-1");
  astra_.Answer(ReadVerdict::kUnavailable, 500);
  std::exchange(astra_.gets[0].done, nullptr)(Get(ReadVerdict::kRead, 200));
  EXPECT_EQ(breaker_.state(), State::kOpen);
  loop_.Advance(2s);
  ASSERT_EQ(astra_.gets.size(), 3U);
  EXPECT_EQ(astra_.gets[2].id, "intent-1");
}

TEST_F(ProberTest, WaitsFiveSecondsForAnAnswer) {
  Fail();
  loop_.Advance(1s);
  loop_.Advance(4999ms);
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  loop_.Advance(1ms);
  EXPECT_EQ(breaker_.state(), State::kOpen);
  loop_.Advance(2s);
  ASSERT_EQ(astra_.gets.size(), 2U);
  std::exchange(astra_.gets[0].done, nullptr)(Get(ReadVerdict::kRead, 200));  // of the first one
  loop_.Settle();
  EXPECT_EQ(breaker_.state(), State::kHalfOpen);
  loop_.Advance(5s);
  EXPECT_EQ(watcher_.probes, std::vector(2, ProbeResult::kFailed));
}

TEST_F(ProberTest, TakesATokenButWaitsForNone) {
  for (int i = 0; i < 10; ++i) {
    reads_.Read({loop_, astra_}, {Asker::kCaller, "x" + std::to_string(i)}, [](const Result<ledger::Reading>&) {});
  }
  ASSERT_EQ(astra_.gets.size(), 2U) << "the budget is spent";
  Fail();
  loop_.Advance(1s);  // brings one token
  ASSERT_EQ(astra_.gets.size(), 3U);
  reads_.Read({loop_, astra_}, {Asker::kCaller, "y"}, [](const Result<ledger::Reading>&) {});
  EXPECT_EQ(astra_.gets.size(), 3U) << "the probe had it";
}

TEST_F(ProberTest, LeavesAstraAloneWhileItAsksForThat) {
  admission_.HoldBack(loop_.Now(), absl::Seconds(10));
  Fail();
  loop_.Advance(9s);
  EXPECT_TRUE(astra_.gets.empty());
  EXPECT_EQ(breaker_.state(), State::kOpen);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.gets.size(), 1U);
}

TEST_F(ProberTest, TriesNewCredentialsAtOnce) {
  Refuse();
  loop_.Advance(1s);
  ASSERT_EQ(astra_.gets.size(), 1U);
  astra_.Answer(Get(ReadVerdict::kCredentialsRejected, 401));
  loop_.Advance(29s);
  EXPECT_EQ(astra_.gets.size(), 1U);
  credentials_ = on_disk_ = 2;
  breaker_.OnFilesRead(loop_.Now());
  loop_.Advance(0s);
  ASSERT_EQ(astra_.gets.size(), 2U);
  astra_.Answer(Get(ReadVerdict::kNotFound, 404, 2));
  EXPECT_EQ(breaker_.state(), State::kClosed);
}

TEST_F(ProberTest, StopsForGood) {
  Fail();
  prober_.Stop();
  loop_.Advance(1h);
  EXPECT_TRUE(astra_.gets.empty());
  EXPECT_EQ(loop_.timers(), 0U);
}

}  // namespace
}  // namespace userintent::usecase
