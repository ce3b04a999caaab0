// The limit of exchanges: each rule by itself, then a simulated Astra that has room for so many, and random histories.
#include "server/usecase/upstream_limit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <queue>
#include <random>
#include <vector>

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using Sample = UpstreamLimit::Sample;

// Exchanges that begin and end when the test says so.
class Told {
 public:
  explicit Told(int max = 100, int min = 2, SteadyClock::duration timeout = 30s) : limit({min, max, timeout}) {}

  // One after the other, each of which takes so long; `under_way` beside and with it.
  int Each(Sample sample, int times, SteadyClock::duration takes = 100ms, int under_way = 1) {
    for (int i = 0; i < times; ++i) {
      const SteadyTime begun = now += 1us;
      now += takes;
      limit.Tell(sample, begun, now, under_way);
    }
    return limit.limit();
  }
  // All begun together, and ended one by one from the time when they have taken so long; others begin in the place of
  // those that were answered.
  int Together(Sample sample, int count, SteadyClock::duration takes = 100ms) {
    const SteadyTime begun = now += 1us;
    now += takes;
    for (int left = count; left > 0; --left) {
      now += 10us;
      limit.Tell(sample, begun, now, sample == Sample::kAnswer ? count : left);
    }
    return limit.limit();
  }

  UpstreamLimit limit;
  SteadyTime now = SteadyTime(1h);
};

TEST(UpstreamLimit, EveryVerdictIsASampleOrNone) {
  astra::Outcome outcome;
  const std::pair<astra::Verdict, Sample> all[] = {
      {astra::Verdict::kCreated, Sample::kAnswer},       {astra::Verdict::kLimitReached, Sample::kAnswer},
      {astra::Verdict::kRejected, Sample::kAnswer},      {astra::Verdict::kCredentialsRejected, Sample::kAnswer},
      {astra::Verdict::kMisconfigured, Sample::kAnswer}, {astra::Verdict::kRateLimited, Sample::kNotNow},
      {astra::Verdict::kUnavailable, Sample::kNotNow},   {astra::Verdict::kRefused, Sample::kNothing},
      {astra::Verdict::kNotSent, Sample::kNothing},      {astra::Verdict::kUnknown, Sample::kLoss}};
  ASSERT_EQ(std::size(all), std::size(astra::kVerdictNames));
  for (const auto& [verdict, sample] : all) {
    outcome.verdict = verdict;
    EXPECT_EQ(UpstreamLimit::SampleOf(outcome), sample) << astra::kVerdictNames[static_cast<size_t>(verdict)];
  }
}

TEST(UpstreamLimit, BeginsAtTheMostAndStaysThere) {
  Told told(3200);
  EXPECT_EQ(told.limit.limit(), 3200);
  EXPECT_EQ(told.Each(Sample::kAnswer, 1000), 3200);
  EXPECT_EQ(told.Together(Sample::kAnswer, 3200), 3200);
  EXPECT_EQ(told.Each(Sample::kNothing, 100), 3200);
}

TEST(UpstreamLimit, LossesInARowTakeItToTheLeast) {
  Told told;
  EXPECT_EQ(told.Each(Sample::kLoss, 1), 50);
  EXPECT_EQ(told.Each(Sample::kLoss, 1), 25);
  EXPECT_EQ(told.Each(Sample::kLoss, 5), UpstreamLimit::kFew) << "so few are no load";
  EXPECT_EQ(told.Each(Sample::kLoss, 1), 8) << "nothing but losses";
  EXPECT_EQ(told.Each(Sample::kLoss, 20), 2);
}

TEST(UpstreamLimit, LossesBetweenGoodAnswersLeaveAFew) {
  Told told;
  for (int i = 0; i < 200; ++i) {
    told.Each(Sample::kLoss, 3);
    told.Each(Sample::kAnswer, 1);
    ASSERT_GE(told.limit.limit(), UpstreamLimit::kFew);
  }
}

TEST(UpstreamLimit, OneBurstOfLossesIsOneCut) {
  Told told(1000);
  told.now += 1s;
  const SteadyTime begun = told.now;
  told.now += 1s;
  for (int i = 0; i < 90; ++i) told.limit.Tell(Sample::kLoss, begun, told.now + i * 1ms, 400 - i);
  EXPECT_EQ(told.limit.limit(), 500) << "one of several connections broke";
  told.now += 1s;
  EXPECT_EQ(told.Each(Sample::kLoss, 1), 250) << "that is another one";
}

TEST(UpstreamLimit, WhenEverythingIsLostItEndsNearTheLeast) {
  Told told(3200);
  told.Together(Sample::kAnswer, 300);
  EXPECT_LE(told.Together(Sample::kLoss, 300, 30s), 4);
}

TEST(UpstreamLimit, ItComesBackQuicklyAfterALossOfEverything) {
  Told told(3200);
  told.Together(Sample::kLoss, 300, 1s);
  ASSERT_LE(told.limit.limit(), 4);
  int rounds = 0;
  for (; told.limit.limit() < 75 && rounds < 100; ++rounds) {
    told.Together(Sample::kAnswer, told.limit.limit());
  }
  EXPECT_LE(rounds, 7) << "doubles up to where it was";
  for (; told.limit.limit() < 300 && rounds < 1000; ++rounds) told.Together(Sample::kAnswer, told.limit.limit());
  EXPECT_GT(rounds, 12) << "and is careful from there on";
  EXPECT_LT(rounds, 80);
}

TEST(UpstreamLimit, WhatWasLearnedIsForgotten) {
  Told told(3200);
  told.Each(Sample::kLoss, 20);
  ASSERT_EQ(told.limit.limit(), 2);
  told.now += 2min;
  int rounds = 0;
  for (; told.limit.limit() < 1600 && rounds < 100; ++rounds) told.Together(Sample::kAnswer, told.limit.limit());
  EXPECT_LE(rounds, 11) << "doubles";
}

TEST(UpstreamLimit, GrowsOnlyAsFarAsItIsUsed) {
  Told told;
  told.Each(Sample::kLoss, 20);
  EXPECT_EQ(told.Each(Sample::kAnswer, 500), UpstreamLimit::kFew) << "one at a time";
  EXPECT_GT(told.Each(Sample::kAnswer, 500, 100ms, 8), UpstreamLimit::kFew);
}

TEST(UpstreamLimit, AnswersOfBeforeACutRaiseNothing) {
  Told told;
  const SteadyTime begun = told.now;
  told.now += 1s;
  told.limit.Tell(Sample::kLoss, begun, told.now, 60);
  for (int i = 0; i < 59; ++i) told.limit.Tell(Sample::kAnswer, begun, told.now, 59 - i);
  EXPECT_EQ(told.limit.limit(), 50);
}

TEST(UpstreamLimit, NotNowHalvesIt) {
  Told told;
  EXPECT_EQ(told.Together(Sample::kNotNow, 80), 50) << "however many say so";
  EXPECT_EQ(told.Together(Sample::kNotNow, 80), 25);
}

TEST(UpstreamLimit, SlowAnswersLowerItWhereItIsInUse) {
  Told told;
  told.Each(Sample::kAnswer, 50, 500ms, 20);
  const int unused = told.Each(Sample::kAnswer, 50, 1500ms, 20);
  EXPECT_EQ(unused, 100) << "20 of 100 are not the reason";
  for (int i = 0; i < 3; ++i) told.Together(Sample::kAnswer, 90, 2s);
  EXPECT_LT(told.limit.limit(), 100);
}

TEST(UpstreamLimit, AnswersFarFromTheTimeoutEndangerNothing) {
  Told told;
  told.Each(Sample::kAnswer, 50, 10ms, 20);
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(told.Together(Sample::kAnswer, 90, 900ms), 100)
        << "90 times slower, and less than a thirtieth of the time that they have";
  }
}

TEST(UpstreamLimit, NearTheTimeoutItIsLoweredUnusedAsWell) {
  Told told(3200);
  told.Each(Sample::kAnswer, 50, 1s, 20);
  for (int i = 0; i < 3; ++i) told.Together(Sample::kAnswer, 200, 10s);
  EXPECT_LE(told.limit.limit(), 400);
}

// Astra is slower by itself, whatever the load: lowering the limit would help nobody.
TEST(UpstreamLimit, AConstantJumpIsLearned) {
  Told told;
  for (int i = 0; i < 20; ++i) told.Together(Sample::kAnswer, told.limit.limit(), 500ms);
  int least = 100;
  for (int i = 0; i < 30; ++i) least = std::min(least, told.Together(Sample::kAnswer, told.limit.limit(), 2s));
  EXPECT_LT(least, 100);
  EXPECT_GE(least, 20);
  EXPECT_EQ(told.limit.limit(), 100);
  EXPECT_NEAR(told.limit.baseline(), 2, 0.1);
  for (int i = 0; i < 20; ++i) told.Together(Sample::kAnswer, told.limit.limit(), 500ms);
  EXPECT_NEAR(told.limit.baseline(), 0.5, 0.1) << "falls quickly";
}

// ---- a simulated Astra

// So many are worked on at once, 100 ms each; the others wait for their turn. It goes on with what nobody waits for any
// more. Calls come at random, so many a second; what finds no room is refused.
struct World {
  int capacity;
  double per_second;
  SteadyClock::duration timeout = 10s;
  double least_loss = 0;  // of answers, at random

  int answered = 0, lost = 0, refused = 0;
  int most_under_way = 0;

  void Run(UpstreamLimit& limit, SteadyTime& now, SteadyClock::duration lasts, uint32_t seed) {
    struct End {
      SteadyTime at, begun;
      bool lost;
      bool operator>(const End& other) const { return at > other.at; }
    };
    std::mt19937 dice(seed);
    std::exponential_distribution<double> gap(per_second);
    std::uniform_real_distribution<double> part(0, 1);
    std::priority_queue<End, std::vector<End>, std::greater<>> ends;
    const SteadyTime over = now + lasts;
    const auto end_until = [&](SteadyTime t) {
      while (!ends.empty() && ends.top().at <= t) {
        const End end = ends.top();
        limit.Tell(end.lost ? Sample::kLoss : Sample::kAnswer, end.begun, end.at, static_cast<int>(ends.size()));
        ends.pop();
        ++(end.lost ? lost : answered);
      }
    };
    while (now < over) {
      now += std::chrono::nanoseconds(static_cast<int64_t>(gap(dice) * 1e9));
      end_until(now);
      if (static_cast<int>(ends.size()) >= limit.limit()) {
        ++refused;
        continue;
      }
      // The server that is free first.
      std::pop_heap(free_.begin(), free_.end(), std::greater<>());
      free_.back() = std::max(free_.back(), now) + std::chrono::milliseconds(70 + dice() % 60);
      const SteadyTime done = free_.back();
      std::push_heap(free_.begin(), free_.end(), std::greater<>());
      const bool late = done - now > timeout || part(dice) < least_loss;
      ends.push({late ? now + timeout : done, now, late});
      most_under_way = std::max(most_under_way, static_cast<int>(ends.size()));
    }
    end_until(now + timeout);
  }
  std::vector<SteadyTime> free_ = std::vector<SteadyTime>(static_cast<size_t>(capacity));
};

TEST(UpstreamLimit, AnAstraWithRoomIsNotHeldBack) {
  UpstreamLimit limit({2, 3200, 10s});
  SteadyTime now(1h);
  World world{.capacity = 1000, .per_second = 2000};
  world.Run(limit, now, 60s, 1);
  EXPECT_EQ(world.lost, 0);
  EXPECT_EQ(world.refused, 0);
  EXPECT_EQ(limit.limit(), 3200);
}

// Five times what Astra can do. Without a limit nearly everything would be lost; so it is at first, while the limit is
// still at its most, and hardly ever again.
TEST(UpstreamLimit, AnOverloadedAstraLosesLittle) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    UpstreamLimit limit({2, 3200, 10s});
    SteadyTime now(1h);
    World world{.capacity = 20, .per_second = 1000};
    world.Run(limit, now, 60s, seed);
    const int lost_at_first = world.lost;
    World later{.capacity = 20, .per_second = 1000};
    later.Run(limit, now, 300s, seed + 10);
    EXPECT_LT(lost_at_first, 6000) << "without a limit some 50000";
    EXPECT_LE(later.lost, later.answered / 1000);
    EXPECT_GT(later.answered, 300 * 200 * 9 / 10) << "and it works as fast as it can";
    EXPECT_LT(limit.limit(), 1500);
  }
}

TEST(UpstreamLimit, WhenTheLoadGoesTheLimitIsLearnedAnew) {
  UpstreamLimit limit({2, 3200, 10s});
  SteadyTime now(1h);
  World{.capacity = 20, .per_second = 1000}.Run(limit, now, 120s, 1);
  World calm{.capacity = 2000, .per_second = 3000};
  calm.Run(limit, now, 60s, 2);
  World after{.capacity = 2000, .per_second = 3000};
  after.Run(limit, now, 60s, 3);
  EXPECT_EQ(after.lost, 0);
  EXPECT_EQ(after.refused, 0);
}

TEST(UpstreamLimit, RandomHistoriesKeepTheBounds) {
  std::mt19937 dice(7);
  for (int round = 0; round < 200; ++round) {
    const int min = 1 + static_cast<int>(dice() % 20);
    const int max = min + static_cast<int>(dice() % 500);
    UpstreamLimit limit({min, max, std::chrono::seconds(1 + dice() % 30)});
    SteadyTime now(1h);
    for (int i = 0; i < 2000; ++i) {
      now += std::chrono::microseconds(dice() % 100'000);
      const SteadyTime begun = now - std::chrono::milliseconds(dice() % 40'000);
      limit.Tell(static_cast<Sample>(dice() % 4), begun, now, 1 + static_cast<int>(dice() % 1000));
      ASSERT_GE(limit.limit(), min);
      ASSERT_LE(limit.limit(), max);
    }
    for (int i = 0; i < 40; ++i) {
      now += 1s;
      limit.Tell(Sample::kLoss, now, now + 1ms, 1);
    }
    EXPECT_EQ(limit.limit(), min);
  }
}

}  // namespace
}  // namespace userintent::usecase
