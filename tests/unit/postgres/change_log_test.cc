// The change log that replicas share: what is told, in which order, and what is too old.
#include "server/postgres/change_log.h"

#include <gmock/gmock.h>

#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Listener final : public ledger::ChangeListener {
 public:
  void OnChanges(absl::Span<const ledger::Change> changes) override {
    for (const ledger::Change& change : changes) {
      EXPECT_GT(change.revision, last_) << "out of order, or twice";
      last_ = change.revision;
      heard.push_back(absl::StrCat(change.key.caller, " ", change.key.request_id[14] << 8 | change.key.request_id[15]));
    }
  }
  std::vector<std::string> heard;

 private:
  int64_t last_ = 0;
};

class ChangeLogTest : public RigTest {
 protected:
  struct Told {
    std::vector<int> ids;
    std::vector<int64_t> revisions;
    bool too_old = false;
    int64_t upto = 0;
  };
  Told Read(int64_t after, const std::string& caller = "one", size_t limit = 64,
            const absl::flat_hash_set<Uuid>* only = nullptr) {
    const auto slice = ReadLog(*c_, {&caller, only, after, limit});
    EXPECT_TRUE(slice.ok()) << slice.status();
    Told told{{}, {}, slice->too_old, slice->upto};
    for (const auto& entry : slice->entries) {
      EXPECT_EQ(entry.row.record.key.caller, caller);
      EXPECT_EQ(entry.counters, (ledger::Counters{2, 1}));
      told.ids.push_back(entry.row.record.key.request_id[15]);
      told.revisions.push_back(entry.revision);
    }
    return told;
  }
  int64_t Last() { return *LastRevision(*c_); }
  // All that the poller has to tell now.
  void Poll(ChangePoller& poller) {
    now_ += ChangePoller::kQuietPause;
    while (*poller.Turn(*c_, now_) <= now_) {
    }
  }

  BootNanos now_ = 1'000'000'000'000;
};

TEST_F(ChangeLogTest, WhatCommitsLaterWithALowerNumberIsWaitedFor) {
  const int64_t one = PutRow({.id = 1});
  const int64_t two = PutRow({.id = 2});
  ChangePoller poller(Last());
  Listener listener;
  poller.SetListener(&listener);
  const auto slow = Connect();
  Do(*slow, "BEGIN; " + Change(one));  // has a number now
  Do("BEGIN; " + Change(two) + "COMMIT");
  Poll(poller);
  EXPECT_THAT(listener.heard, IsEmpty()) << "the slow one comes before";
  EXPECT_EQ(Last(), 0);
  EXPECT_THAT(Read(0).ids, IsEmpty());
  EXPECT_FALSE(Read(0).too_old);
  Do(*slow, "COMMIT");
  Poll(poller);
  EXPECT_THAT(listener.heard, ElementsAre("one 1", "one 2"));
  EXPECT_EQ(poller.revision(), Last());
  EXPECT_THAT(Read(0).ids, ElementsAre(1, 2));
  EXPECT_EQ(Read(0).upto, Last());
}

TEST_F(ChangeLogTest, AnUndoneTransactionHoldsNothingBack) {
  const int64_t one = PutRow({.id = 1});
  const auto slow = Connect();
  Do(*slow, "BEGIN; " + Change(one));
  Do("BEGIN; " + Change(one) + "COMMIT");
  Do(*slow, "ROLLBACK");
  EXPECT_THAT(Read(0).ids, ElementsAre(1));
}

TEST_F(ChangeLogTest, WhoOnlyReadsHoldsNothingBack) {
  const int64_t one = PutRow({.id = 1});
  const auto reader = Connect();
  Do(*reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM request");
  Do("BEGIN; " + Change(one) + "COMMIT");
  EXPECT_THAT(Read(0).ids, ElementsAre(1));
}

TEST_F(ChangeLogTest, APollerTellsEachChangeOnceOfWhicheverReplica) {
  const int64_t one = PutRow({.id = 1});
  const int64_t other = PutRow({.id = 1, .caller = "two"});
  Do("BEGIN; " + Change(one) + "COMMIT");
  ChangePoller poller(Last());
  EXPECT_EQ(poller.revision(), Last());
  Listener listener;
  poller.SetListener(&listener);
  Poll(poller);
  EXPECT_THAT(listener.heard, IsEmpty()) << "that was before";
  const auto replica = Connect();
  Do(*replica, "BEGIN; " + Change(other) + Change(one, 1) + "COMMIT");
  Do("BEGIN; " + Change(one) + "COMMIT");
  Poll(poller);
  Poll(poller);
  EXPECT_THAT(listener.heard, ElementsAre("two 1", "one 1", "one 1"));
}

TEST_F(ChangeLogTest, APollerGoesThroughMoreThanOneTurnCanTake) {
  const int64_t one = PutRow({.id = 1});
  ChangePoller poller(0);
  Listener listener;
  poller.SetListener(&listener);
  Do(absl::StrCat("INSERT INTO change SELECT (pg_current_xact_id()::text::bigint << 20) + n, ", one,
                  ", 1 FROM generate_series(0, 2499) n"));
  Poll(poller);
  EXPECT_EQ(listener.heard.size(), 2500U);
  EXPECT_EQ(poller.revision(), Last());
}

TEST_F(ChangeLogTest, ChangesOfForgottenRowsArePassedOver) {
  const int64_t one = PutRow({.id = 1});
  const int64_t two = PutRow({.id = 2});
  ChangePoller poller(0);
  Listener listener;
  poller.SetListener(&listener);
  Do("BEGIN; " + Change(one) + Change(two, 1) + "COMMIT");
  Do("BEGIN; " + Change(one) + "COMMIT");
  Do(absl::StrCat("DELETE FROM request WHERE id = ", one));
  Poll(poller);
  EXPECT_THAT(listener.heard, ElementsAre("one 2"));
  EXPECT_EQ(poller.revision(), Last()) << "or it would ask for it for ever";
  EXPECT_THAT(Read(0).ids, ElementsAre(2));
  EXPECT_EQ(Read(0).upto, Last());
}

TEST_F(ChangeLogTest, APollerIsQuickWhileThereIsNews) {
  const int64_t one = PutRow({.id = 1});
  ChangePoller poller(0);
  constexpr BootNanos kStart = 1'000'000'000'000;
  BootNanos now = kStart;
  EXPECT_EQ(*poller.Turn(*c_, now), now + ChangePoller::kQuietPause);
  Do("BEGIN; " + Change(one) + "COMMIT");
  EXPECT_EQ(*poller.Turn(*c_, now + 1), now + ChangePoller::kQuietPause) << "not asked before it is due";
  EXPECT_EQ(poller.revision(), 0);
  now += ChangePoller::kQuietPause;
  EXPECT_EQ(*poller.Turn(*c_, now), now + ChangePoller::kBusyPause);
  EXPECT_EQ(poller.revision(), Last());
  const BootNanos soon = now + ChangePoller::kBusyPause;
  EXPECT_EQ(*poller.Turn(*c_, soon), soon + ChangePoller::kBusyPause);
  const BootNanos later = now + ChangePoller::kBusyFor;
  EXPECT_EQ(*poller.Turn(*c_, later), later + ChangePoller::kQuietPause);
}

TEST_F(ChangeLogTest, ASliceEndsWhereMoreWouldBeTooMuch) {
  std::vector<int64_t> rows;
  for (int n = 1; n <= 4; ++n) rows.push_back(PutRow({.id = n}));
  const int64_t foreign = PutRow({.id = 9, .caller = "two"});
  std::string all;
  for (int place = 0; const int64_t row : {rows[0], foreign, rows[1], rows[0], rows[2], rows[3]}) {
    all += Change(row, place++);
  }
  Do("BEGIN; " + all + "COMMIT");
  const int64_t base = Last() - 5;
  Told told = Read(0, "one", 2);
  EXPECT_THAT(told.ids, ElementsAre(2, 1)) << "a row once, at its last change";
  EXPECT_THAT(told.revisions, ElementsAre(base + 2, base + 3));
  EXPECT_EQ(told.upto, base + 3);
  told = Read(told.upto, "one", 2);
  EXPECT_THAT(told.ids, ElementsAre(3, 4));
  EXPECT_EQ(told.upto, Last());
  told = Read(told.upto, "one", 2);
  EXPECT_THAT(told.ids, IsEmpty());
  EXPECT_EQ(told.upto, Last());
  const absl::flat_hash_set<Uuid> only = {Id(2), Id(4), Id(9)};
  told = Read(0, "one", 64, &only);
  EXPECT_THAT(told.ids, ElementsAre(2, 4));
  EXPECT_EQ(told.upto, Last());
  EXPECT_THAT(Read(0, "two").ids, ElementsAre(9));
  EXPECT_THAT(Read(0, "nobody").ids, IsEmpty());
  EXPECT_EQ(Read(0, "nobody").upto, Last());
}

TEST_F(ChangeLogTest, WhatNobodyToldOrIsNotKeptIsTooOld) {
  const int64_t one = PutRow({.id = 1});
  std::vector<int64_t> told;
  for (int n = 0; n < 10; ++n) {
    Do("BEGIN; " + Change(one) + "COMMIT");
    told.push_back(Last());
  }
  EXPECT_FALSE(Read(told.back()).too_old);
  EXPECT_TRUE(Read(told.back() + 1).too_old);
  EXPECT_FALSE(Read(0).too_old);
  EXPECT_EQ(*PruneLog(*c_, 4, 100), 6);
  EXPECT_EQ(*PruneLog(*c_, 4, 100), 0);
  EXPECT_TRUE(Read(0).too_old);
  EXPECT_TRUE(Read(told[4]).too_old);
  EXPECT_FALSE(Read(told[5]).too_old) << "what comes after it is all there";
  EXPECT_THAT(Read(told[5]).revisions, ElementsAre(told[9]));
  EXPECT_EQ(*PruneLog(*c_, 0, 2), 2) << "a slice at a time";
  EXPECT_EQ(*PruneLog(*c_, 0, 2), 1);
  EXPECT_EQ(*PruneLog(*c_, 0, 2), 0) << "the last one stays";
  EXPECT_FALSE(Read(told[8]).too_old);
  EXPECT_TRUE(Read(told[7]).too_old);
  EXPECT_EQ(Last(), told.back());
}

}  // namespace
}  // namespace userintent::postgres
