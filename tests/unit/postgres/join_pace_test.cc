// When replicas ask how others' requests ended, with a clock of the test's own.
#include <gtest/gtest.h>

#include <vector>

#include "server/postgres/foreign_joins.h"

namespace userintent::postgres {
namespace {

constexpr BootNanos kMilli = 1'000'000;

ledger::Key KeyOf(uint8_t n) {
  Uuid id{};
  id[15] = n;
  return {"local", id};
}

// Looks each millisecond, and returns when it asked.
std::vector<int> AskedAt(JoinPace& pace, const std::vector<ledger::Key>& keys, int from, int until) {
  std::vector<int> asked;
  for (int at = from; at < until; ++at) {
    if (pace.IsDue(keys, at * kMilli)) asked.push_back(at);
  }
  return asked;
}

TEST(JoinPaceTest, DistancesDoubleUpToTheLongest) {
  JoinPace pace;
  EXPECT_EQ(AskedAt(pace, {KeyOf(1)}, 1000, 2300), (std::vector<int>{1020, 1060, 1140, 1300, 1550, 1800, 2050}));
}

TEST(JoinPaceTest, SomebodyNewIsNotPutOffByOthers) {
  JoinPace pace;
  AskedAt(pace, {KeyOf(1)}, 1000, 2060);
  EXPECT_EQ(AskedAt(pace, {KeyOf(1), KeyOf(2)}, 2060, 2200), (std::vector<int>{2080, 2120}));
}

TEST(JoinPaceTest, SomebodyNewPutsNobodyOff) {
  JoinPace pace;
  std::vector<ledger::Key> keys = {KeyOf(0)};
  int asked = 0;
  for (int at = 1000; at < 1200; ++at) {
    if (at % 10 == 0) keys.push_back(KeyOf(static_cast<uint8_t>(at / 10)));
    asked += pace.IsDue(keys, at * kMilli) ? 1 : 0;
  }
  EXPECT_GE(asked, 5);
}

TEST(JoinPaceTest, NobodyWaits) {
  JoinPace pace;
  EXPECT_EQ(AskedAt(pace, {}, 1000, 3000), std::vector<int>());
  AskedAt(pace, {KeyOf(1)}, 3000, 5000);
  EXPECT_EQ(AskedAt(pace, {}, 5000, 5010), std::vector<int>());
  EXPECT_EQ(AskedAt(pace, {KeyOf(1)}, 5010, 5040), std::vector<int>{5030}) << "as at the beginning";
}

}  // namespace
}  // namespace userintent::postgres
