#include "server/base/duration.h"

#include <gtest/gtest.h>

#include <utility>

namespace userintent {
namespace {

TEST(Duration, DaysAreKnown) {
  const std::pair<const char*, absl::Duration> cases[] = {
      {"7d", absl::Hours(168)},
      {"396d", absl::Hours(9504)},
      {"1.5d", absl::Hours(36)},
      {"1d12h", absl::Hours(36)},
      {"-1d12h", -absl::Hours(36)},
      {"0d", absl::ZeroDuration()},
      {"1d1ms", absl::Hours(24) + absl::Milliseconds(1)},
      {"36h", absl::Hours(36)},
      {"500ms", absl::Milliseconds(500)},
      {"0", absl::ZeroDuration()},
      {"999999999999999999d", absl::InfiniteDuration()},
  };
  for (const auto& [text, expected] : cases) {
    absl::Duration duration;
    EXPECT_TRUE(ReadDuration(text, &duration)) << text;
    EXPECT_EQ(duration, expected) << text;
  }
}

TEST(Duration, NothingElseParses) {
  for (const char* text :
       {"", "d", "7", "7 d", "7days", "7dd", "1d2d", "1h1d", "1d-1h", "1d+1h", "x7d", "7D", "+-1d"}) {
    absl::Duration duration = absl::Seconds(42);
    EXPECT_FALSE(ReadDuration(text, &duration)) << text;
    EXPECT_EQ(duration, absl::Seconds(42)) << text;
  }
}

}  // namespace
}  // namespace userintent
