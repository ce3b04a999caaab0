#include "server/base/time.h"

#include <vector>

#include "gtest/gtest.h"

namespace userintent {
namespace {

// Stands for google.protobuf.Timestamp and Duration, which base does not link.
struct Proto {
  int64_t seconds = -7;
  int32_t nanos = -7;
  void set_seconds(int64_t value) { seconds = value; }
  void set_nanos(int32_t value) { nanos = value; }
};

TEST(Time, TimestampsAreWholeMicrosecondsThatCountForwards) {
  struct Case {
    absl::Time time;
    int64_t seconds;
    int32_t nanos;
  };
  const std::vector<Case> cases = {
      {absl::UnixEpoch(), 0, 0},
      {absl::FromUnixMicros(1), 0, 1000},
      {absl::FromUnixNanos(1'999), 0, 1000},
      {absl::FromUnixMicros(1'700'000'000'999'999), 1'700'000'000, 999'999'000},
      {absl::FromUnixMicros(-1), -1, 999'999'000},
      {absl::FromUnixSeconds(-1), -1, 0},
      {absl::InfinitePast(), 0, 0},
  };
  for (const Case& c : cases) {
    Proto proto;
    SetTimestamp(c.time, &proto);
    EXPECT_EQ(proto.seconds, c.seconds) << c.time;
    EXPECT_EQ(proto.nanos, c.nanos) << c.time;
  }
}

TEST(Time, DurationsAreExact) {
  Proto proto;
  SetDuration(absl::Milliseconds(90'001) + absl::Nanoseconds(3), &proto);
  EXPECT_EQ(proto.seconds, 90);
  EXPECT_EQ(proto.nanos, 1'000'003);
  SetDuration(absl::ZeroDuration(), &proto);
  EXPECT_EQ(proto.seconds, 0);
  EXPECT_EQ(proto.nanos, 0);
  SetDuration(-absl::Milliseconds(1500), &proto);  // both parts have the sign
  EXPECT_EQ(proto.seconds, -1);
  EXPECT_EQ(proto.nanos, -500'000'000);
}

TEST(Time, MicrosecondsAreWhatALedgerReadsBack) {
  EXPECT_EQ(ToMicros(absl::FromUnixNanos(1'999)), absl::FromUnixMicros(1));
  EXPECT_EQ(ToMicros(absl::FromUnixNanos(-1)), absl::FromUnixMicros(-1));
  const absl::Time now = NowMicros();
  EXPECT_EQ(ToMicros(now), now);
}

}  // namespace
}  // namespace userintent
