#include "server/rpc/memory_watch.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace userintent::rpc {
namespace {

constexpr int64_t kMiB = 1 << 20;
const SteadyTime kNow = SteadyTime{} + std::chrono::seconds(1000);

TEST(MemoryWatchTest, WithoutAMarkMemoryIsNeverShort) {
  MemoryWatch watch(0);
  EXPECT_FALSE(watch.on());
  EXPECT_FALSE(watch.Look(kNow));
}

TEST(MemoryWatchTest, ShortIsWhatIsAboveTheMark) {
  MemoryWatch low(1);
  EXPECT_TRUE(low.on());
  EXPECT_TRUE(low.Look(kNow));
  MemoryWatch high(int64_t{1} << 50);
  EXPECT_TRUE(high.on());
  EXPECT_FALSE(high.Look(kNow));
}

TEST(MemoryWatchTest, MemoryThatIsUsedCounts) {
  const std::vector<char> used(256 * kMiB, 'x');
  MemoryWatch watch(static_cast<int64_t>(used.size()) - used[1] % 2);
  EXPECT_TRUE(watch.Look(kNow));
}

TEST(MemoryWatchTest, TheDefaultMarkIsWithinTheContainer) {
  const int64_t mark = DefaultMemoryMark();
  EXPECT_TRUE(mark == 0 || mark > kMiB) << mark;
}

}  // namespace
}  // namespace userintent::rpc
