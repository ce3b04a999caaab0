// The table of followed intents against a model of a few lines, for many random operations; its room; its size.
#include "server/usecase/follow_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using Lane = FollowTable::Lane;

constexpr SteadyTime kEpoch{1h};

ledger::Key KeyOf(int n, const std::string& caller = "local") {
  Uuid id{};
  id[0] = static_cast<uint8_t>(n / 256);
  id[1] = static_cast<uint8_t>(n % 256);
  return {caller, id};
}

TEST(FollowTable, DoesAsAModelDoes) {
  struct Known {
    Lane lane;
    bool in_lane;
    SteadyTime due;
  };
  std::mt19937 random(7);
  FollowTable table(SIZE_MAX, kEpoch);
  std::map<ledger::Key, Known> model;
  const auto first_due = [&](Lane lane) {
    std::optional<SteadyTime> first;
    for (const auto& [key, known] : model) {
      if (known.in_lane && known.lane == lane) first = first ? std::min(*first, known.due) : known.due;
    }
    return first;
  };
  for (int i = 0; i < 20000; ++i) {
    const ledger::Key key = KeyOf(static_cast<int>(random() % 300), random() % 2 == 0 ? "a" : "b");
    const Lane lane = FollowTable::kLanes[random() % 3];
    const SteadyTime due = kEpoch + (random() % 1000) * 100ms;
    const auto slot = table.Find(key);
    ASSERT_EQ(slot.has_value(), model.contains(key));
    if (!slot) {
      const auto added = table.Add(key, lane, due);
      ASSERT_TRUE(added);
      ASSERT_EQ(table.KeyOf(*added), key);
      table.Schedule(*added, lane, due);
      model[key] = {lane, true, due};
    } else {
      switch (random() % 4) {
        case 0:
          table.Remove(*slot);
          model.erase(key);
          break;
        case 1:
          table.TakeOut(*slot);
          model[key].in_lane = false;
          break;
        default:
          table.Schedule(*slot, lane, due);
          model[key] = {lane, true, due};
      }
    }
    ASSERT_EQ(table.size(), model.size());
    if (i % 50 != 0) continue;
    for (const Lane each : FollowTable::kLanes) {
      const auto first = table.First(each);
      const auto wanted = first_due(each);
      ASSERT_EQ(first.has_value(), wanted.has_value());
      ASSERT_TRUE(!first || table.Due(*first) == *wanted);
      ASSERT_EQ(table.in_lane(each), static_cast<size_t>(std::ranges::count_if(model, [&](const auto& one) {
                  return one.second.in_lane && one.second.lane == each;
                })));
    }
  }
  // What is left comes out in order.
  for (const Lane lane : FollowTable::kLanes) {
    SteadyTime last = kEpoch;
    while (const auto first = table.First(lane)) {
      EXPECT_GE(table.Due(*first), last);
      last = table.Due(*first);
      table.Remove(*first);
    }
  }
}

TEST(FollowTable, NothingIsDueBeforeItsTime) {
  FollowTable table(10, kEpoch);
  const auto slot = table.Add(KeyOf(1), Lane::kOther, kEpoch);
  table.Schedule(*slot, Lane::kOther, kEpoch + 1001ms);
  EXPECT_EQ(table.Due(*slot), kEpoch + 1100ms);
  table.Schedule(*slot, Lane::kOther, kEpoch + 1000ms);
  EXPECT_EQ(table.Due(*slot), kEpoch + 1s);
  table.Schedule(*slot, Lane::kOther, kEpoch - 5s);
  EXPECT_EQ(table.Due(*slot), kEpoch);
  table.Schedule(*slot, Lane::kOther, kEpoch + 24h * 3650);
  EXPECT_EQ(table.Due(*slot), kEpoch + 24h * 3650) << "ten years";
}

TEST(FollowTable, AFullTableKeepsTheWatchedAndTheSoonDue) {
  FollowTable table(3, kEpoch);
  const auto add = [&](int n, Lane lane, SteadyTime due) {
    const auto slot = table.Add(KeyOf(n), lane, due);
    if (slot) table.Schedule(*slot, lane, due);
    return slot.has_value();
  };
  EXPECT_TRUE(add(1, Lane::kOther, kEpoch + 10s));
  EXPECT_TRUE(add(2, Lane::kOther, kEpoch + 20s));
  EXPECT_TRUE(add(3, Lane::kAll, kEpoch + 5s));
  EXPECT_EQ(table.left_out(), 0u);
  EXPECT_FALSE(add(4, Lane::kOther, kEpoch + 30s)) << "later than the last";
  EXPECT_TRUE(add(5, Lane::kOther, kEpoch + 15s));
  EXPECT_FALSE(table.Find(KeyOf(2)));
  EXPECT_TRUE(add(6, Lane::kAll, kEpoch + 99s));
  EXPECT_TRUE(add(7, Lane::kAll, kEpoch + 99s));
  EXPECT_FALSE(add(8, Lane::kOther, kEpoch)) << "nothing but watched ones is left";
  EXPECT_FALSE(add(9, Lane::kAll, kEpoch + 99s));
  for (int n = 10; n <= 12; ++n) EXPECT_TRUE(add(n, Lane::kNamed, kEpoch + 99s)) << n;
  EXPECT_FALSE(add(13, Lane::kAll, kEpoch));
  EXPECT_FALSE(add(14, Lane::kNamed, kEpoch + 99s));
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(table.in_lane(Lane::kNamed), 3u);
  EXPECT_EQ(table.left_out(), 11u);
}

TEST(FollowTable, ASlotIsUsedAgainAndKnowsItsCaller) {
  FollowTable table(10, kEpoch);
  const auto first = table.Add(KeyOf(1, "a"), Lane::kOther, kEpoch);
  table.set_step(*first, 5);
  EXPECT_TRUE(table.Holds(*first, "a"));
  table.Remove(*first);
  EXPECT_FALSE(table.Holds(*first, "a"));
  const auto second = table.Add(KeyOf(1, "b"), Lane::kOther, kEpoch);
  EXPECT_EQ(*second, *first);
  EXPECT_EQ(table.step(*second), 0);
  EXPECT_FALSE(table.Find(KeyOf(1, "a")));
  EXPECT_TRUE(table.Holds(*second, "b"));
  EXPECT_EQ(table.slots(), 1u);
}

}  // namespace
}  // namespace userintent::usecase
