#include "src/call.h"

#include "gmock/gmock.h"

namespace userintent {
namespace {

using ::testing::Optional;

absl::Duration now;
double jitter;

absl::Duration TestNow() { return now; }
double TestJitter() { return jitter; }

Error Repeatable(absl::Duration after) {
  Error error;
  error.reason = "OVERLOADED";
  error.retry_after = after;
  return error;
}

class CallTest : public testing::Test {
 protected:
  CallTest() {
    now = absl::Seconds(1000);
    jitter = 0;
  }
  Call NewCall(absl::Duration timeout, int max_tries = 5) {
    return Call("id", timeout, max_tries, &budget_, &TestNow, &TestJitter);
  }

  Budget budget_;
};

TEST_F(CallTest, WaitsForTheDelayAndUpToAQuarterLonger) {
  Call call = NewCall(absl::Seconds(35));
  EXPECT_THAT(call.BeginTry(), Optional(absl::Seconds(35)));
  EXPECT_THAT(call.Failed(Repeatable(absl::Seconds(2))), Optional(absl::Seconds(2)));
  jitter = 1;
  now += absl::Seconds(5);
  EXPECT_THAT(call.BeginTry(), Optional(absl::Seconds(30)));
  EXPECT_THAT(call.Failed(Repeatable(absl::Seconds(2))), Optional(absl::Seconds(2.5)));
}

TEST_F(CallTest, WithoutRetryInfoThereIsNoRepeat) {
  Call call = NewCall(absl::Seconds(35));
  call.BeginTry();
  EXPECT_EQ(call.Failed(Error()), std::nullopt);
  EXPECT_EQ(call.error().request_id, "id");
  EXPECT_EQ(call.error().tries, 1);
}

TEST_F(CallTest, NoWaitThatWouldEndAfterTheDeadline) {
  Call call = NewCall(absl::Seconds(10));
  call.BeginTry();
  now += absl::Seconds(7);
  EXPECT_EQ(call.Failed(Repeatable(absl::Seconds(3))), std::nullopt);
  EXPECT_THAT(call.Failed(Repeatable(absl::Seconds(2.9))), Optional(absl::Seconds(2.9)));
  EXPECT_EQ(call.Failed(Repeatable(absl::InfiniteDuration())), std::nullopt);
}

TEST_F(CallTest, AWaitThatTookTooLongTellsTheErrorBeforeIt) {
  Call call = NewCall(absl::Seconds(10));
  call.BeginTry();
  EXPECT_TRUE(call.Failed(Repeatable(absl::Seconds(1))).has_value());
  now += absl::Seconds(10);
  EXPECT_EQ(call.BeginTry(), std::nullopt);
  EXPECT_EQ(call.error().reason, "OVERLOADED");
  EXPECT_EQ(call.error().tries, 1);
}

TEST_F(CallTest, AnExpiredFirstTryIsMade) {
  Call call = NewCall(-absl::Seconds(1));
  EXPECT_THAT(call.BeginTry(), Optional(-absl::Seconds(1)));
}

TEST_F(CallTest, MaxTries) {
  Call call = NewCall(absl::Seconds(35), 2);
  call.BeginTry();
  EXPECT_TRUE(call.Failed(Repeatable(absl::Milliseconds(1))).has_value());
  call.BeginTry();
  EXPECT_EQ(call.Failed(Repeatable(absl::Milliseconds(1))), std::nullopt);
  EXPECT_EQ(call.error().tries, 2);
  Call less = NewCall(absl::Seconds(35), 0);
  less.BeginTry();
  EXPECT_EQ(less.Failed(Repeatable(absl::Milliseconds(1))), std::nullopt);
}

TEST_F(CallTest, BudgetIsSharedAndRefilledBySuccess) {
  for (int i = 0; i < 10; ++i) {
    Call call = NewCall(absl::Seconds(35));
    call.BeginTry();
    ASSERT_TRUE(call.Failed(Repeatable(absl::Milliseconds(1))).has_value()) << i;
  }
  Call poor = NewCall(absl::Seconds(35));
  poor.BeginTry();
  EXPECT_EQ(poor.Failed(Repeatable(absl::Milliseconds(1))), std::nullopt);
  for (int i = 0; i < 9; ++i) poor.Succeeded();
  EXPECT_EQ(poor.Failed(Repeatable(absl::Milliseconds(1))), std::nullopt);
  poor.Succeeded();
  EXPECT_TRUE(poor.Failed(Repeatable(absl::Milliseconds(1))).has_value());
  EXPECT_EQ(poor.Failed(Repeatable(absl::Milliseconds(1))), std::nullopt);
}

TEST_F(CallTest, BudgetHasALid) {
  for (int i = 0; i < 1000; ++i) budget_.Succeeded();
  int taken = 0;
  while (budget_.Take()) ++taken;
  EXPECT_EQ(taken, 10);
}

TEST_F(CallTest, WhatMayNotBeRepeatedCostsNoBudget) {
  Call call = NewCall(absl::Seconds(1));
  call.BeginTry();
  for (int i = 0; i < 20; ++i) call.Failed(Repeatable(absl::Seconds(2)));
  int taken = 0;
  while (budget_.Take()) ++taken;
  EXPECT_EQ(taken, 10);
}

TEST_F(CallTest, Cancelled) {
  Call call = NewCall(absl::Seconds(35));
  call.BeginTry();
  call.Failed(Repeatable(absl::Seconds(1)));
  call.Cancelled();
  EXPECT_EQ(call.error().code, absl::StatusCode::kCancelled);
  EXPECT_TRUE(call.error().maybe_sent());
  EXPECT_EQ(call.error().request_id, "id");
  EXPECT_EQ(call.error().retry_after, std::nullopt);
}

}  // namespace
}  // namespace userintent
