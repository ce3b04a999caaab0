// A breaker with a clock of the test's own, which hears of exchanges and probes as the test says; and an observer that
// keeps what it is told.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

#include "server/usecase/upstream_breaker.h"

namespace userintent::usecase {

class BreakerWatcher final : public BreakerObserver {
 public:
  void OnBreakerState(BreakerState state) override { states.push_back(state); }
  void OnBreakerOpened(BreakerCause cause) override { opened.push_back(cause); }
  void OnBreakerClosed(BreakerCause cause) override { closed.push_back(cause); }
  void OnBreakerProbe(ProbeResult result) override { probes.push_back(result); }

  std::vector<BreakerState> states;
  std::vector<BreakerCause> opened, closed;
  std::vector<ProbeResult> probes;
};

inline astra::Outcome Post(astra::Verdict verdict, int status = 0, uint64_t credentials = 1) {
  astra::Outcome outcome;
  outcome.verdict = verdict;
  outcome.http_status = status;
  outcome.credentials = credentials;
  if (verdict == astra::Verdict::kCreated) {
    outcome.confirmed = true;
    outcome.user_intent_id = "intent-1";
  }
  return outcome;
}
inline astra::Outcome Good(uint64_t credentials = 1) { return Post(astra::Verdict::kCreated, 201, credentials); }
inline astra::Outcome Lost() { return Post(astra::Verdict::kUnknown); }

inline astra::ReadOutcome Get(astra::ReadVerdict verdict, int status = 0, uint64_t credentials = 1) {
  astra::ReadOutcome outcome;
  outcome.verdict = verdict;
  outcome.http_status = status;
  outcome.credentials = credentials;
  return outcome;
}

class BreakerTest : public testing::Test {
 protected:
  BreakerTest()
      : breaker_({[this](bool look) {
                    if (look) {
                      ++looks_;
                      credentials_ = on_disk_;
                    }
                    return credentials_;
                  },
                  nullptr},
                 watcher_) {}

  void Exchange(const astra::Outcome& outcome, int times = 1) {
    for (int i = 0; i < times; ++i) breaker_.OnPost(now_, now_, outcome);
  }
  void Open() {
    Exchange(Lost(), 20);
    ASSERT_EQ(breaker_.state(), BreakerState::kOpen);
  }
  // A probe that begins as soon as it may.
  void Begin() {
    ASSERT_TRUE(breaker_.NextProbe());
    now_ = std::max(now_, *breaker_.NextProbe());
    ASSERT_TRUE(breaker_.BeginProbe(now_));
  }
  void Probe(const astra::ReadOutcome& outcome) {
    Begin();
    const SteadyTime began = now_;
    now_ += std::chrono::milliseconds(10);
    breaker_.OnRead(now_, began, "intent-1", true, outcome);
  }
  std::optional<absl::Duration> Suspended() { return breaker_.Suspended(now_); }
  SteadyClock::duration UntilProbe() const { return breaker_.NextProbe().value_or(SteadyTime::max()) - now_; }

  SteadyTime now_{std::chrono::hours(1)};
  uint64_t credentials_ = 1;  // in force
  uint64_t on_disk_ = 1;
  int looks_ = 0;
  BreakerWatcher watcher_;
  UpstreamBreaker breaker_;
};

}  // namespace userintent::usecase
