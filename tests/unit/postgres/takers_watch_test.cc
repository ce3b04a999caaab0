// When a replica is taken for dead and when its rows are swept, with clocks of the test's own.
#include "server/postgres/takers_watch.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <random>
#include <vector>

namespace userintent::postgres {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr BootNanos kSecond = 1'000'000'000;
constexpr TakersWatch::Limits kLimits = {10 * kSecond, 35 * kSecond};
constexpr int64_t kMine = 5;

class TakersWatchTest : public testing::Test {
 protected:
  // A look at this second; the answer took no time.
  TakersWatch::Verdict Look(BootNanos second) { return watch_.Look(all_, kMine, second * kSecond, second * kSecond); }
  // Looks each second, from the one after the last look up to this one, while `beats` beat.
  TakersWatch::Verdict LookUntil(BootNanos second, const std::vector<int64_t>& beats = {}) {
    TakersWatch::Verdict verdict;
    while (now_ < second) {
      for (TakersWatch::Replica& one : all_) one.beat += std::ranges::find(beats, one.epoch) != beats.end() ? 1 : 0;
      verdict = Look(++now_);
    }
    return verdict;
  }
  static std::vector<int64_t> Fenced(const TakersWatch::Verdict& verdict) {
    std::vector<int64_t> epochs;
    for (const TakersWatch::Replica& one : verdict.fence) epochs.push_back(one.epoch);
    return epochs;
  }

  std::vector<TakersWatch::Replica> all_ = {{3, 100, false}, {kMine, 7, false}, {9, 50, false}};
  TakersWatch watch_{kLimits};
  BootNanos now_ = 1000;
};

TEST_F(TakersWatchTest, TheSameBeatForTheWholeFenceTime) {
  EXPECT_THAT(Fenced(LookUntil(1011, {9})), IsEmpty()) << "first seen at 1001, so not longer than 10 s";
  const TakersWatch::Verdict verdict = LookUntil(1012, {9});
  EXPECT_THAT(Fenced(verdict), ElementsAre(3));
  EXPECT_EQ(verdict.fence[0].beat, 100) << "by the beat that was seen";
}

TEST_F(TakersWatchTest, NeverItself) { EXPECT_THAT(Fenced(LookUntil(1100, {3, 9})), IsEmpty()); }

TEST_F(TakersWatchTest, OneBeatBeginsAnew) {
  LookUntil(1010, {9});
  LookUntil(1011, {3, 9});
  EXPECT_THAT(Fenced(LookUntil(1021, {9})), IsEmpty());
  EXPECT_THAT(Fenced(LookUntil(1022, {9})), ElementsAre(3));
}

TEST_F(TakersWatchTest, AGapInTheLookingBeginsAnewForAll) {
  LookUntil(1010);
  now_ += 3;  // it was frozen, or the database was away
  EXPECT_THAT(Fenced(LookUntil(1024)), IsEmpty());
  EXPECT_THAT(Fenced(LookUntil(1025)), ElementsAre(3, 9));
}

TEST_F(TakersWatchTest, ASlowAnswerSparesAndNeverHurries) {
  LookUntil(1001);
  // Asked at 1011.5, answered at 1013: the beat in the answer may be as old as the question.
  const TakersWatch::Verdict late = watch_.Look(all_, kMine, 1002 * kSecond, 1003 * kSecond);
  EXPECT_THAT(Fenced(late), IsEmpty());
  all_[0].beat = 101;
  TakersWatch::Verdict verdict;
  for (BootNanos asked = 1004; asked <= 1014; ++asked) {
    verdict = watch_.Look(all_, kMine, asked * kSecond, (asked + 1) * kSecond);
  }
  EXPECT_THAT(Fenced(verdict), ElementsAre(9)) << "3 was first seen when the answer came at 1005";
}

TEST_F(TakersWatchTest, TheEndedAreSweptAfterTheQuietTime) {
  all_[0].ended = true;
  EXPECT_THAT(LookUntil(1036, {9}).sweep, IsEmpty());
  EXPECT_THAT(LookUntil(1037, {9}).sweep, ElementsAre(3));
  EXPECT_THAT(LookUntil(1060, {9}).sweep, ElementsAre(3)) << "until it is marked";
  EXPECT_EQ(Look(1061).ended, 1);
  all_.erase(all_.begin());
  EXPECT_THAT(LookUntil(1100, {9}).sweep, IsEmpty());
}

TEST_F(TakersWatchTest, AGapPutsNoSweepOff) {
  all_[0].ended = true;
  LookUntil(1010, {9});
  now_ += 20;
  EXPECT_THAT(LookUntil(1037, {9}).sweep, ElementsAre(3)) << "ended is ended, looked at or not";
}

TEST_F(TakersWatchTest, EachHasItsRankAmongTheLiving) {
  TakersWatch::Verdict verdict = Look(1001);
  EXPECT_EQ(verdict.alive, 3);
  EXPECT_EQ(verdict.rank, 1);
  all_[0].ended = true;
  verdict = Look(1002);
  EXPECT_EQ(verdict.alive, 2);
  EXPECT_EQ(verdict.rank, 0);
}

// Whatever the delays: nobody is fenced while a lease that counts from before its beat was sent still holds, and
// nothing that began within a lease lives when its rows are swept.
TEST_F(TakersWatchTest, NoLeaseOutlivesTheFence) {
  constexpr BootNanos kLease = 5 * kSecond;
  constexpr BootNanos kLongest = 30 * kSecond;  // exchange
  std::mt19937_64 dice(3);
  const auto up_to = [&dice](BootNanos most) { return static_cast<BootNanos>(dice() % static_cast<uint64_t>(most)); };
  int fenced = 0;
  int swept = 0;
  for (int round = 0; round < 300; ++round) {
    TakersWatch watch(kLimits);
    std::vector<TakersWatch::Replica> all = {{3, 1, false}, {kMine, 1, false}};
    BootNanos now = 1000 * kSecond;
    BootNanos lease = 0;
    BootNanos beats_until = now + up_to(30 * kSecond);
    for (BootNanos beat_at = now; swept + fenced < 100'000 && now < 1200 * kSecond;) {
      if (now >= beat_at && now < beats_until) {
        lease = now + kLease;           // from before it was sent
        now += up_to(2 * kSecond) / 2;  // until it was committed
        ++all[0].beat;
        beat_at = now + kSecond;
      }
      const BootNanos asked = now;
      now += up_to(kSecond);
      const TakersWatch::Verdict verdict = watch.Look(all, kMine, asked, now);
      if (!verdict.fence.empty()) {
        ++fenced;
        ASSERT_GT(now, lease) << "round " << round;
        all[0].ended = true;
      }
      if (!verdict.sweep.empty()) {
        ++swept;
        ASSERT_GT(now, lease + kLongest) << "round " << round;
        break;
      }
      now += up_to(kSecond);
    }
  }
  EXPECT_GT(fenced, 200);
  EXPECT_GT(swept, 200);
}

}  // namespace
}  // namespace userintent::postgres
