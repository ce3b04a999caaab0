// Token buckets and accounts, on a clock of their own.
#include "server/policy/account.h"

#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "server/policy/token_bucket.h"

namespace userintent::policy {
namespace {

using namespace std::chrono_literals;

SteadyTime At(std::chrono::nanoseconds since) { return SteadyTime(1h + since); }

std::chrono::nanoseconds Nanoseconds(absl::Duration wait) { return absl::ToChronoNanoseconds(wait); }

TEST(TokenBucket, GivesItsBurstThenItsRate) {
  TokenBucket bucket({2, 3});
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(bucket.Take(At(0s))) << i;
  EXPECT_EQ(bucket.Take(At(0s)), absl::Milliseconds(500));
  EXPECT_EQ(bucket.Take(At(200ms)), absl::Milliseconds(300)) << "a refusal takes nothing";
  EXPECT_FALSE(bucket.Take(At(500ms)));
  EXPECT_EQ(bucket.Take(At(500ms)), absl::Milliseconds(500));
  // Never more than the burst, however long nobody comes.
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(bucket.Take(At(1000h))) << i;
  EXPECT_TRUE(bucket.Take(At(1000h)));
}

TEST(TokenBucket, TellsTheVeryNanosecond) {
  for (const Rate rate : {Rate{0.001, 1}, Rate{0.1, 2}, Rate{3, 1}, Rate{7, 5}, Rate{99'999, 40}, Rate{100'000, 1}}) {
    TokenBucket bucket(rate);
    SteadyTime now = At(17ns);
    while (!bucket.Take(now)) {
    }
    for (int i = 0; i < 100; ++i) {
      const std::optional<absl::Duration> wait = bucket.Peek(now);
      ASSERT_TRUE(wait);
      ASSERT_GT(*wait, absl::ZeroDuration());
      ASSERT_TRUE(bucket.Take(now + Nanoseconds(*wait) - 1ns)) << rate.per_second << ", too early by a nanosecond";
      now += Nanoseconds(*wait);
      ASSERT_FALSE(bucket.Take(now)) << rate.per_second << ", as it was told";
    }
  }
}

TEST(TokenBucket, ClocksThatGoBackFindNoNewTokens) {
  TokenBucket bucket({1, 2});
  EXPECT_FALSE(bucket.Take(At(10s)));
  EXPECT_FALSE(bucket.Take(At(9s)));
  EXPECT_EQ(bucket.Take(At(9s)), absl::Seconds(2));
  EXPECT_FALSE(bucket.Take(At(11s)));
}

TEST(TokenBucket, GivesBack) {
  TokenBucket bucket({1, 2});
  EXPECT_FALSE(bucket.Take(At(0s)));
  EXPECT_FALSE(bucket.Take(At(0s)));
  bucket.GiveBack();
  EXPECT_FALSE(bucket.Take(At(0s)));
  EXPECT_TRUE(bucket.Take(At(0s)));
  bucket.GiveBack();
  bucket.GiveBack();
  EXPECT_TRUE(bucket.Full(At(0s)));
  bucket.GiveBack();  // once too often
  EXPECT_FALSE(bucket.Take(At(0s)));
  EXPECT_FALSE(bucket.Take(At(0s)));
  EXPECT_TRUE(bucket.Take(At(0s))) << "more than its burst";
  TokenBucket fresh({1, 1});
  fresh.GiveBack();
  EXPECT_FALSE(fresh.Take(At(0s)));
  EXPECT_TRUE(fresh.Take(At(0s)));
}

TEST(TokenBucket, FullAgainAfterTheTimeOfWhatWasTaken) {
  TokenBucket bucket({4, 8});
  EXPECT_TRUE(bucket.Full(At(0s)));
  bucket.Take(At(0s));
  bucket.Take(At(0s));
  EXPECT_FALSE(bucket.Full(At(499ms)));
  EXPECT_TRUE(bucket.Full(At(500ms)));
}

TEST(TokenBucket, ChangedRatesKeepTheTokens) {
  TokenBucket full({1, 10});
  full.Change({5, 20}, At(0s));
  EXPECT_TRUE(full.Full(At(0s)));
  int taken = 0;
  while (!full.Take(At(0s))) ++taken;
  EXPECT_EQ(taken, 20);

  TokenBucket used({1, 10});
  for (int i = 0; i < 7; ++i) used.Take(At(0s));
  used.Change({2, 20}, At(0s));  // 3 are left
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(used.Take(At(0s))) << i;
  EXPECT_EQ(used.Take(At(0s)), absl::Milliseconds(500)) << "by the new rate";
  EXPECT_FALSE(used.Full(At(9s)));
  EXPECT_TRUE(used.Full(At(10s)));

  TokenBucket smaller({1, 10});
  smaller.Take(At(0s));
  smaller.Change({1, 2}, At(0s));  // 9 do not fit
  EXPECT_FALSE(smaller.Take(At(0s)));
  EXPECT_FALSE(smaller.Take(At(0s)));
  EXPECT_EQ(smaller.Take(At(0s)), absl::Seconds(1));

  TokenBucket empty({0.001, 1});
  empty.Take(At(0s));
  empty.Change({1, 5}, At(0s));
  EXPECT_EQ(empty.Take(At(0s)), absl::Seconds(1)) << "no new burst, and no wait of the old rate";
}

// Over every interval of length t at most burst + per_second * t are given out; and whoever comes when it was told to
// is not refused.
TEST(TokenBucket, NeverGivesMore) {
  std::mt19937_64 random(20261126);
  const auto below = [&random](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  for (int round = 0; round < 60; ++round) {
    const Rate rate{std::pow(10.0, -2 + static_cast<double>(below(500)) / 100.0), 1 + static_cast<int>(below(30))};
    TokenBucket bucket(rate);
    const auto interval = static_cast<int64_t>(1e9 / rate.per_second);
    std::vector<std::chrono::nanoseconds> taken;
    std::chrono::nanoseconds now = 0ns;
    std::chrono::nanoseconds told = 0ns;
    for (int step = 0; step < 400; ++step) {
      const bool patient = below(3) == 0 && told > now;
      now = patient ? told : now + std::chrono::nanoseconds(below(1 + (below(10) == 0 ? 20 : 1) * interval));
      const bool untaken = below(20) == 0;
      const std::optional<absl::Duration> wait = bucket.Take(At(now));
      ASSERT_FALSE(patient && wait) << "came when it was told to";
      if (wait) told = now + Nanoseconds(*wait);
      if (wait) continue;
      if (untaken) {
        bucket.GiveBack();
      } else {
        taken.push_back(now);
      }
    }
    for (size_t from = 0; from < taken.size(); ++from) {
      for (size_t to = from; to < taken.size(); ++to) {
        const double seconds = std::chrono::duration<double>(taken[to] - taken[from]).count();
        ASSERT_LE(static_cast<double>(to - from + 1), rate.burst + rate.per_second * seconds + 1e-6)
            << rate.per_second << " a second, burst " << rate.burst;
      }
    }
  }
}

Rule Limited() {
  Rule rule;
  rule.name = "spiffe://test.example/a";
  rule.create_rate = Rate{1, 2};
  rule.read_rate = Rate{1, 3};
  rule.probe_rate = Rate{1, 1};
  rule.max_in_flight = 2;
  return rule;
}

TEST(CallerAccount, WithoutARuleOnlyProbesAreLimited) {
  CallerAccount account(LimitsOf(nullptr));
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_FALSE(account.TakeCreate(At(0s)));
    ASSERT_FALSE(account.TakeRead(At(0s)));
  }
  EXPECT_TRUE(account.MayEnter());
  for (int i = 0; i < 50; ++i) ASSERT_FALSE(account.TakeProbe(At(0s))) << i;
  EXPECT_EQ(account.TakeProbe(At(0s)), absl::Milliseconds(200));
  EXPECT_EQ(account.LookAtProbe(At(100ms)), absl::Milliseconds(100));
  EXPECT_FALSE(account.LookAtProbe(At(200ms)));
  EXPECT_FALSE(account.TakeProbe(At(200ms)));
}

TEST(CallerAccount, EachLimitIsItsOwn) {
  const Rule rule = Limited();
  OverLimitCounters counters;
  CallerAccount account(LimitsOf(&rule), &counters);
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  EXPECT_FALSE(account.LookAtCreate(At(0s)));
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  EXPECT_EQ(account.TakeCreate(At(0s)), absl::Seconds(1));
  EXPECT_EQ(account.LookAtCreate(At(0s)), absl::Seconds(1));
  account.GiveBackCreate();
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(account.TakeRead(At(0s)));
  EXPECT_TRUE(account.TakeRead(At(0s)));
  EXPECT_FALSE(account.TakeProbe(At(0s)));
  EXPECT_TRUE(account.TakeProbe(At(0s)));
  account.AddInFlight(1);
  EXPECT_TRUE(account.MayEnter());
  account.AddInFlight(1);
  EXPECT_FALSE(account.MayEnter());
  account.AddInFlight(-1);
  EXPECT_TRUE(account.MayEnter());
  const OverLimit over = counters.Read();
  EXPECT_EQ(over.refused, (std::array<uint64_t, kLimitCount>{2, 1, 1, 1}));
  EXPECT_EQ(over.passed, (std::array<uint64_t, kLimitCount>{}));
}

TEST(CallerAccount, WhatIsNotEnforcedPassesAndIsCounted) {
  Rule rule = Limited();
  rule.enforce = false;
  OverLimitCounters counters;
  CallerAccount account(LimitsOf(&rule), &counters);
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(account.LookAtCreate(At(0s)));
    EXPECT_FALSE(account.TakeCreate(At(0s)));
    EXPECT_FALSE(account.TakeRead(At(0s)));
    EXPECT_FALSE(account.LookAtProbe(At(0s)));
    EXPECT_FALSE(account.TakeProbe(At(0s)));
    EXPECT_TRUE(account.MayEnter());
    account.AddInFlight(1);
  }
  const OverLimit over = counters.Read();
  EXPECT_EQ(over.passed, (std::array<uint64_t, kLimitCount>{3, 2, 3, 4})) << "a look is not counted beside its call";
  EXPECT_EQ(over.refused, (std::array<uint64_t, kLimitCount>{}));
}

TEST(CallerAccount, OtherLimitsKeepWhatWasUsed) {
  Rule rule = Limited();
  CallerAccount account(LimitsOf(&rule));
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  rule.create_rate.reset();
  account.SetLimits(LimitsOf(&rule), At(0s));
  EXPECT_FALSE(account.TakeCreate(At(0s)));
  EXPECT_FALSE(account.Idle(At(1s)));
  rule.create_rate = Rate{1, 2};
  account.SetLimits(LimitsOf(&rule), At(0s));
  EXPECT_TRUE(account.TakeCreate(At(0s))) << "a limit that was taken away and came back is no new burst";
  rule.max_in_flight = 1;
  account.AddInFlight(1);
  account.SetLimits(LimitsOf(&rule), At(0s));
  EXPECT_FALSE(account.MayEnter());
}

TEST(Accounts, OneForEachCaller) {
  Accounts accounts;
  const Rule rule = Limited();
  const auto a = accounts.Of("uri:a", &rule, At(0s));
  EXPECT_FALSE(a->TakeProbe(At(0s)));
  EXPECT_EQ(accounts.Of("uri:a", &rule, At(0s)), a);
  EXPECT_NE(accounts.Of("uri:b", &rule, At(0s)), a);
  EXPECT_FALSE(accounts.Of("uri:b", &rule, At(0s))->TakeProbe(At(0s)));
  EXPECT_TRUE(accounts.Of("uri:a", &rule, At(0s))->TakeProbe(At(0s)));
  EXPECT_EQ(accounts.over_limit().refused[static_cast<size_t>(Limit::kProbeRate)], 1u);
  accounts.Of("uri:a", nullptr, At(0s));
  EXPECT_FALSE(a->TakeProbe(At(1s))) << "the limits of who has it already change as well";
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(a->TakeCreate(At(0s)));
  EXPECT_FALSE(a->TakeCreate(At(0s)));
}

// Nobody gets a new burst by being forgotten, and the number stays bounded whoever calls.
TEST(Accounts, OnlyIdleOnesAreDropped) {
  constexpr size_t kMost = 100;
  Accounts accounts(kMost);
  Rule rule = Limited();
  rule.create_rate = Rate{0.1, 2};
  for (size_t i = 0; i < kMost; ++i) {
    const auto account = accounts.Of("uri:" + std::to_string(i), &rule, At(0s));
    if (i % 4 == 0) account->TakeCreate(At(0s));
    if (i % 4 == 1) account->AddInFlight(1);
  }
  const auto held = accounts.Of("uri:3", &rule, At(0s));
  EXPECT_EQ(accounts.size(), kMost);
  accounts.Of("uri:new", &rule, At(1s));
  EXPECT_EQ(accounts.size(), kMost / 2 + 2) << "a quarter used a token, a quarter has calls in flight, one is held";
  EXPECT_EQ(accounts.Of("uri:3", &rule, At(1s)), held);
  EXPECT_FALSE(accounts.Of("uri:0", &rule, At(1s))->TakeCreate(At(1s)));
  EXPECT_TRUE(accounts.Of("uri:0", &rule, At(1s))->TakeCreate(At(1s))) << "it had used one of its two before";
  EXPECT_EQ(accounts.Of("uri:1", &rule, At(1s))->in_flight(), 1);
}

TEST(Accounts, WhoFindsNoRoomSharesOne) {
  constexpr size_t kMost = 10;
  Accounts accounts(kMost);
  const Rule rule = Limited();
  std::vector<std::shared_ptr<CallerAccount>> held;
  for (size_t i = 0; i < kMost; ++i) held.push_back(accounts.Of("uri:" + std::to_string(i), &rule, At(0s)));
  const auto one = accounts.Of("uri:one", &rule, At(1s));
  const auto two = accounts.Of("uri:two", &rule, At(1s));
  const auto none = accounts.Of("uri:three", nullptr, At(1s));
  EXPECT_EQ(one, two);
  EXPECT_NE(one, none);
  for (int i = 0; i < 1000; ++i) accounts.Of("uri:more" + std::to_string(i), &rule, At(1s));
  EXPECT_EQ(accounts.size(), kMost + 2);
  EXPECT_FALSE(one->TakeProbe(At(1s)));
  EXPECT_TRUE(two->TakeProbe(At(1s)));
  held.clear();
  EXPECT_NE(accounts.Of("uri:one", &rule, At(10s)), one) << "there is room again";
  EXPECT_EQ(accounts.size(), 3u) << "those that are held here, and the new one";
}

TEST(Accounts, AnyThread) {
  Accounts accounts(50);
  Rule rule = Limited();
  rule.create_rate = Rate{0.001, 1000};
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&accounts, &rule, &taken, t] {
      for (int i = 0; i < 2000; ++i) {
        const auto account = accounts.Of("uri:shared", &rule, At(0s));
        if (!account->TakeCreate(At(0s))) taken.fetch_add(1);
        accounts.Of("uri:" + std::to_string(t) + "/" + std::to_string(i), nullptr, At(std::chrono::seconds(i)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.load(), 1000);
  EXPECT_LE(accounts.size(), 52u);
}

}  // namespace
}  // namespace userintent::policy
