#include "src/call.h"

#include "gmock/gmock.h"
#include "userintent/v1/user_intent_service.pb.h"

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

TEST_F(CallTest, AnExpiredFirstTryIsNotMade) {
  for (const absl::Duration timeout : {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
    Call call = NewCall(timeout);
    EXPECT_EQ(call.BeginTry(), std::nullopt);
    EXPECT_EQ(call.error().code, absl::StatusCode::kDeadlineExceeded);
    EXPECT_FALSE(call.error().maybe_sent());
    EXPECT_EQ(call.error().sent, sent::kNo);
    EXPECT_EQ(call.error().tries, 0);
    EXPECT_EQ(call.error().request_id, "id");
  }
}

TEST_F(CallTest, CancelledBeforeTheFirstTryIsNotSent) {
  Call call = NewCall(absl::Seconds(35));
  call.Cancelled();
  EXPECT_EQ(call.error().code, absl::StatusCode::kCancelled);
  EXPECT_FALSE(call.error().maybe_sent());
  EXPECT_EQ(call.error().recovery, recovery::kRetrySameId);
}

TEST_F(CallTest, TextThatIsNotUtf8IsRefused) {
  const auto accepts = [this](const std::string& text) {
    v1::CreateUserIntentRequest request;
    (*request.mutable_metadata())["key"] = text;
    Call call = NewCall(absl::Seconds(35));
    const bool accepted = call.Accepts(request);
    if (!accepted) {
      EXPECT_EQ(call.error().reason, "MALFORMED_REQUEST");
      EXPECT_FALSE(call.error().maybe_sent());
    }
    return accepted;
  };
  for (const char* good : {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xf0\x9f\x98\x80z"}) {
    EXPECT_TRUE(accepts(good)) << testing::PrintToString(good);
  }
  for (const char* bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
        "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x9f\x98", "\xff", "A\xffz"}) {
    EXPECT_FALSE(accepts(bad)) << testing::PrintToString(bad);
  }
  EXPECT_TRUE(accepts(std::string("\0", 1)));
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
