// The index of keys that is merged late: it answers as a map would, whenever it merges, is rolled back or opened anew;
// and what must not be is noticed. And its filter.
#include <array>
#include <map>
#include <random>
#include <string>
#include <utility>

#include "absl/hash/hash.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/ledger/key_filter.h"
#include "server/ledger/sqlite_merged_index.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::HasSubstr;

// ---- the filter ----

TEST(KeyFilterTest, ForgetsNothingAndMistakesFew) {
  for (const size_t room : {size_t{0}, size_t{400'000}}) {
    KeyFilter filter;
    filter.Reset(room);
    constexpr int kKeys = 400'000;  // more than there is room for at first, in one of the two
    for (int i = 0; i < kKeys; ++i) filter.Add(absl::HashOf(i));
    int mistaken = 0;
    for (int i = 0; i < kKeys; ++i) ASSERT_TRUE(filter.MayHold(absl::HashOf(i))) << i;
    for (int i = kKeys; i < 2 * kKeys; ++i) mistaken += filter.MayHold(absl::HashOf(i)) ? 1 : 0;
    EXPECT_LT(mistaken, kKeys / 200) << room;
    EXPECT_LE(filter.bytes(), size_t{kKeys} * 4) << room;
  }
}

TEST(KeyFilterTest, AnEmptyOneHoldsNothing) {
  KeyFilter filter;
  EXPECT_FALSE(filter.MayHold(absl::HashOf(1)));
  filter.Add(absl::HashOf(1));
  EXPECT_TRUE(filter.MayHold(absl::HashOf(1)));
  filter.Reset(10);
  EXPECT_FALSE(filter.MayHold(absl::HashOf(1)));
}

TEST(KeyFilterTest, HasTheRoomThatWasAskedForAndGrowsInFewSteps) {
  KeyFilter filter;
  int added = 0;
  const auto steps = [&](int keys) {
    int count = 0;
    for (size_t bytes = filter.bytes(); keys > 0; --keys, bytes = filter.bytes()) {
      filter.Add(absl::HashOf(added++));
      count += filter.bytes() != bytes ? 1 : 0;
    }
    return count;
  };
  filter.Reset(0);
  EXPECT_EQ(steps(131'072), 0);
  EXPECT_EQ(steps(1'900'000), 7);  // each is for half as many as there are
  filter.Reset(400'000);
  EXPECT_EQ(filter.bytes(), 8 * (400'000 / 4 + 1));
  EXPECT_EQ(steps(400'000), 0);
  const size_t before = filter.bytes();
  EXPECT_EQ(steps(1), 1);
  EXPECT_EQ(filter.bytes() - before, 8 * (200'000 / 4 + 1)) << "what it held before does not count";
}

// ---- the index ----

class MergedIndexTest : public testing::TestWithParam<std::pair<int, MergeOptions>> {
 protected:
  MergedIndexTest() {
    EXPECT_TRUE(connection_.Open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr).ok());
    EXPECT_TRUE(AddIntentEnding(connection_).ok());
    for (const Migration& migration : Migrations()) EXPECT_TRUE(connection_.Execute(migration.sql).ok());
  }
  void Open(const MergeOptions& options) {
    emails_.reset();
    emails_.emplace(connection_, options);
    ASSERT_TRUE(emails_->Open(Rows()).ok());
  }
  int64_t Rows() { return Number("SELECT count(*) FROM email"); }
  // Random keys, few of them, so that they meet.
  static EmailKey Of(int which) {
    EmailKey key;
    std::mt19937 bytes(static_cast<unsigned>(which) + 1);
    for (uint8_t& byte : key.digest) byte = static_cast<uint8_t>(bytes());
    return key;
  }
  int64_t AddRow(const EmailKey& key) {
    SqliteUse use(connection_, "INSERT INTO email (digest, confirmed, possible) VALUES (?1, 0, 0)");
    EXPECT_TRUE(use.Bind(1, key.digest).Run().ok());
    return sqlite3_last_insert_rowid(connection_.db());
  }
  void Do(const std::string& sql) { ASSERT_TRUE(connection_.Execute(sql.c_str()).ok()) << sql; }
  int64_t Number(const char* sql) { return connection_.Number(sql).value(); }
  // A transaction of nothing, in which what is due is merged.
  absl::Status Turn() {
    Do("BEGIN");
    return End();
  }
  // Until the first merge has ended.
  void MergeAll() {
    for (int turns = 0; emails_->mark() == 0; ++turns) {
      ASSERT_LT(turns, 100);
      ASSERT_TRUE(Turn().ok());
    }
  }
  absl::Status Insert(int which) {
    Do("BEGIN");
    EXPECT_TRUE(emails_->Insert(Of(which), AddRow(Of(which))).ok());
    return End();
  }
  // Of a transaction, as the store ends one.
  absl::Status End() {
    if (absl::Status s = emails_->MergeSome(); !s.ok()) {
      Do("ROLLBACK");
      emails_->RolledBack();
      return s;
    }
    Do("COMMIT");
    emails_->Committed();
    return absl::OkStatus();
  }

  SqliteConnection connection_{":memory:"};
  std::optional<MergedIndex<EmailKey>> emails_;
};

constexpr MergeOptions kNever{.begin_at = 1'000'000, .at_once = 1, .faster = 0};

class RandomIndexTest : public MergedIndexTest {};

TEST_P(RandomIndexTest, AnswersAsAMapWould) {
  const auto& [seed, options] = GetParam();
  constexpr int kKeys = 60;
  std::mt19937 dice(static_cast<unsigned>(seed));
  Open(options);
  std::map<int, int64_t> committed;
  int merges = 0;
  int64_t mark = 0;
  for (int step = 0; step < 1500; ++step) {
    std::map<int, int64_t> known = committed;
    Do("BEGIN");
    for (auto left = dice() % 5; left > 0; --left) {
      const int which = static_cast<int>(dice() % kKeys);
      const auto at = known.find(which);
      const auto other = static_cast<int>(dice() % kKeys);
      if (at == known.end()) {
        known[which] = AddRow(Of(which));
        ASSERT_TRUE(emails_->Insert(Of(which), known[which]).ok());
      } else if (dice() % 3 == 0) {
        Do("DELETE FROM email WHERE id = " + std::to_string(at->second));
        ASSERT_TRUE(emails_->Remove(Of(which), at->second).ok());
        known.erase(at);
      } else if (!known.contains(other)) {  // the row gets another key
        const int64_t row = at->second;
        SqliteUse use(connection_, "UPDATE email SET digest = ?1 WHERE id = ?2");
        const EmailKey to = Of(other);
        ASSERT_TRUE(use.Bind(1, to.digest).Bind(2, row).Run().ok());
        ASSERT_TRUE(emails_->Remove(Of(which), row).ok());
        ASSERT_TRUE(emails_->Insert(to, row).ok());
        known.erase(which);
        known[other] = row;
      }
    }
    const auto look = [&](const std::map<int, int64_t>& wanted, const char* when) {
      for (int which = 0; which < kKeys; ++which) {
        const auto found = emails_->Find(Of(which));
        ASSERT_TRUE(found.ok()) << found.status();
        const auto at = wanted.find(which);
        ASSERT_EQ(*found, at == wanted.end() ? std::nullopt : std::optional(at->second))
            << when << ", step " << step << ", key " << which;
      }
    };
    look(known, "before the end");
    ASSERT_TRUE(emails_->MergeSome().ok());
    if (dice() % 4 == 0) {
      Do("ROLLBACK");
      emails_->RolledBack();
      look(committed, "rolled back");
    } else {
      Do("COMMIT");
      emails_->Committed();
      committed = std::move(known);
      look(committed, "committed");
    }
    merges += emails_->mark() != mark ? 1 : 0;
    mark = emails_->mark();
    if (dice() % 64 == 0) {
      Open(options);
      look(committed, "opened anew");
    }
    if (dice() % 64 == 0) {
      ASSERT_TRUE(emails_->ReadTail().ok());
      look(committed, "read again");
    }
    const absl::Status sound = MergedIndex<EmailKey>::Check(connection_);
    ASSERT_TRUE(sound.ok()) << sound << ", step " << step;
  }
  EXPECT_GT(merges, 10) << "too little happened";
}
std::vector<std::pair<int, MergeOptions>> Ways() {
  std::vector<std::pair<int, MergeOptions>> ways;
  for (int seed = 1; seed <= 4; ++seed) {
    for (const size_t begin_at : {1U, 2U, 7U}) {
      ways.push_back({seed, {begin_at, 1, 0}});
      ways.push_back({seed, {begin_at, 3, 2}});
    }
  }
  return ways;
}
INSTANTIATE_TEST_SUITE_P(MergedIndex, RandomIndexTest, testing::ValuesIn(Ways()));

TEST_F(MergedIndexTest, MergesInSlicesAndForgetsWhatTheTableHas) {
  Open({.begin_at = 10, .at_once = 3, .faster = 0});
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Insert(i).ok());
  EXPECT_EQ(emails_->tail(), 10u);
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 0);
  for (const int64_t in_table : {3, 6, 9}) {
    ASSERT_TRUE(Turn().ok());
    EXPECT_EQ(Number("SELECT count(*) FROM email_key"), in_table);
    EXPECT_EQ(emails_->tail(), static_cast<size_t>(10 - in_table));
    EXPECT_EQ(emails_->mark(), 0) << "only the last slice moves it";
  }
  ASSERT_TRUE(Insert(10).ok());  // of the next merge
  EXPECT_EQ(emails_->mark(), 10);
  EXPECT_EQ(Number("SELECT row FROM merged_to WHERE name = 'email_key'"), 10);
  EXPECT_EQ(emails_->tail(), 1u);
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 10);
}

TEST_F(MergedIndexTest, ManyNewKeysAreMergedFaster) {
  Open({.begin_at = 100, .at_once = 1, .faster = 3});
  size_t most = 0;
  for (int batch = 0; batch < 60; ++batch) {
    Do("BEGIN");
    for (int i = 0; i < 20; ++i) {
      const EmailKey key = Of(100 * batch + i);
      ASSERT_TRUE(emails_->Insert(key, AddRow(key)).ok());
    }
    ASSERT_TRUE(emails_->MergeSome().ok());
    Do("COMMIT");
    emails_->Committed();
    most = std::max(most, emails_->tail());
  }
  EXPECT_GT(emails_->mark(), 900);
  EXPECT_LE(most, 160u);
}

// The table must be written in its order: that is what all of this is for.
TEST_F(MergedIndexTest, MergesInTheOrderOfTheKeys) {
  Open({.begin_at = 64, .at_once = 8, .faster = 0});
  Do("CREATE TEMP TABLE seen (at INTEGER PRIMARY KEY, digest BLOB)");
  Do("CREATE TEMP TRIGGER look AFTER INSERT ON main.email_key "
     "BEGIN INSERT INTO seen (digest) VALUES (NEW.digest); END");
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(Insert(i).ok());
  MergeAll();
  EXPECT_EQ(Number("SELECT count(*) FROM seen"), 64);
  EXPECT_EQ(Number("SELECT count(*) FROM seen a JOIN seen b ON b.at = a.at + 1 WHERE b.digest < a.digest"), 0);
}

TEST_F(MergedIndexTest, ARowOfAMergeThatRunsGoesIntoTheTable) {
  Open({.begin_at = 2, .at_once = 1, .faster = 0});
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(2).ok());
  Do("BEGIN");
  ASSERT_TRUE(emails_->Insert(Of(3), 1).ok());  // row 1 is found by another key, too
  EXPECT_EQ(emails_->tail(), 2u);
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 1);
  Do("ROLLBACK");
  emails_->RolledBack();
}

TEST_F(MergedIndexTest, WhatComesDuringAMergeIsOfTheNextOne) {
  Open({.begin_at = 4, .at_once = 1, .faster = 0});
  for (int i = 1; i <= 8; ++i) ASSERT_TRUE(Insert(i).ok());  // each of the last four merges one
  MergeAll();
  EXPECT_EQ(emails_->mark(), 4);
  EXPECT_EQ(emails_->tail(), 4u);
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 4);
}

TEST_F(MergedIndexTest, WhatWasRolledBackIsOfNoMerge) {
  Open({.begin_at = 3, .at_once = 10, .faster = 0});
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(2).ok());
  Do("BEGIN");
  for (int i = 3; i <= 5; ++i) ASSERT_TRUE(emails_->Insert(Of(i), AddRow(Of(i))).ok());
  Do("ROLLBACK");
  emails_->RolledBack();
  ASSERT_TRUE(Insert(3).ok());
  Do("BEGIN");
  ASSERT_TRUE(emails_->MergeSome().ok());
  EXPECT_TRUE(emails_->merges());
  Do("ROLLBACK");
  emails_->RolledBack();
  EXPECT_FALSE(emails_->merges());
  EXPECT_EQ(emails_->mark(), 0);
  MergeAll();
  EXPECT_EQ(emails_->mark(), 3);
}

TEST_F(MergedIndexTest, AStartWithManyKeysMergesAtOnce) {
  Open(kNever);
  for (int i = 1; i <= 6; ++i) ASSERT_TRUE(Insert(i).ok());
  Open({.begin_at = 6, .at_once = 2, .faster = 0});
  ASSERT_TRUE(Turn().ok());
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 2);
}

// A start in the middle of a merge finds some keys in both places.
TEST_F(MergedIndexTest, AMergeThatWasCutOffBeginsAnew) {
  const MergeOptions options{.begin_at = 6, .at_once = 2, .faster = 0};
  Open(options);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(Insert(i).ok());
  ASSERT_TRUE(Turn().ok());
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 2);
  Open(options);
  EXPECT_EQ(emails_->tail(), 6u);
  MergeAll();
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 6);
  EXPECT_TRUE(MergedIndex<EmailKey>::Check(connection_).ok());
}

// The owner knows neither that it was committed nor that it was not; the index is told neither.
class LostCommitTest : public MergedIndexTest {
 protected:
  void IsReadAnew(bool committed);
};
TEST_F(LostCommitTest, OneThatCameThrough) { IsReadAnew(true); }
TEST_F(LostCommitTest, OneThatDidNot) { IsReadAnew(false); }

void LostCommitTest::IsReadAnew(bool committed) {
  const char* const end = committed ? "COMMIT" : "ROLLBACK";
  // At the beginning of a merge, in its middle, in its last transaction, and while none runs.
  for (int way = 0; way < 15; ++way) {
    const int turns = 1 + way / 3;
    const size_t at_once = std::array<size_t, 3>{1, 2, 10}[static_cast<size_t>(way % 3)];
    Do("DELETE FROM email; DELETE FROM email_key; UPDATE merged_to SET row = 0");
    Open({.begin_at = 3, .at_once = at_once, .faster = 0});
    for (int i = 1; i <= 3; ++i) ASSERT_TRUE(Insert(i).ok());
    for (int i = 1; i < turns; ++i) ASSERT_TRUE(Turn().ok());
    const auto look = [&](const std::map<int, int64_t>& wanted) {
      for (int i = 1; i <= 9; ++i) {
        const auto at = wanted.find(i);
        EXPECT_EQ(emails_->Find(Of(i)).value(), at == wanted.end() ? std::nullopt : std::optional(at->second))
            << "key " << i << ", way " << way;
      }
    };
    std::map<int, int64_t> known{{1, 1}, {2, 2}, {3, 3}};
    look(known);
    Do("BEGIN");
    ASSERT_TRUE(emails_->Insert(Of(4), AddRow(Of(4))).ok());
    Do("DELETE FROM email WHERE id = 2");
    ASSERT_TRUE(emails_->Remove(Of(2), 2).ok());
    ASSERT_TRUE(emails_->MergeSome().ok());
    Do(end);
    if (committed) {
      known.erase(2);
      known[4] = 4;
    }
    ASSERT_TRUE(emails_->ReadTail().ok());
    look(known);
    EXPECT_EQ(emails_->mark(), Number("SELECT row FROM merged_to WHERE name = 'email_key'"));
    EXPECT_FALSE(emails_->merges());
    emails_->RolledBack();  // of a transaction that did nothing
    look(known);
    const bool begins = emails_->tail() >= 3;
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(Turn().ok());
    if (begins) {
      EXPECT_EQ(emails_->mark(), Number("SELECT max(id) FROM email")) << "way " << way;
    }
    for (int i = 5; i <= 7; ++i) {
      ASSERT_TRUE(Insert(i).ok());
      known[i] = Number("SELECT max(id) FROM email");
    }
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(Turn().ok());
    look(known);
    EXPECT_EQ(emails_->mark(), Number("SELECT row FROM merged_to WHERE name = 'email_key'"));
    EXPECT_TRUE(MergedIndex<EmailKey>::Check(connection_).ok());
    Open(kNever);
    look(known);
  }
}

// ---- what must not be ----

TEST_F(MergedIndexTest, AForgottenKeyIsNoticed) {
  Open(kNever);
  Do("INSERT INTO email_key SELECT randomblob(32), 77");
  EmailKey key;
  {
    SqliteUse use(connection_, "SELECT digest FROM email_key");
    ASSERT_TRUE(use.Step().value());
    ASSERT_TRUE(use.Bytes(0, key.digest));
  }
  absl::Status said;
  int asked = 0;
  for (; said.ok() && asked < 1001; ++asked) said = emails_->Find(key).status();
  EXPECT_TRUE(absl::IsDataLoss(said)) << said;
  EXPECT_THAT(std::string(said.message()), HasSubstr("a key was forgotten"));
  EXPECT_EQ(asked, 1000);
  EXPECT_THAT(emails_->broken(), HasSubstr("email_key"));
}

TEST_F(MergedIndexTest, TwoRowsWithOneKeyEndAMerge) {
  Open({.begin_at = 3, .at_once = 10, .faster = 0});
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(2).ok());
  const absl::Status s = Turn();
  EXPECT_TRUE(absl::IsDataLoss(s)) << s;
  EXPECT_THAT(emails_->broken(), HasSubstr("an address is known twice"));
  EXPECT_EQ(Number("SELECT count(*) FROM email_key"), 0) << "nothing of it was committed";
}

TEST_F(MergedIndexTest, TwoRowsWithOneKeyEndAStart) {
  Open({.begin_at = 2, .at_once = 10, .faster = 0});
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(2).ok());
  ASSERT_TRUE(Turn().ok());
  EXPECT_EQ(emails_->mark(), 2);
  AddRow(Of(3));
  const int64_t twice = AddRow(Of(3));  // both above the mark
  MergedIndex<EmailKey> in_tail(connection_, kNever);
  EXPECT_TRUE(absl::IsDataLoss(in_tail.Open(Rows())));
  Do("DELETE FROM email WHERE id = " + std::to_string(twice));
  AddRow(Of(1));  // one above and one below
  MergedIndex<EmailKey> in_table(connection_, kNever);
  EXPECT_TRUE(absl::IsDataLoss(in_table.Open(Rows())));
}

TEST_F(MergedIndexTest, AnIndexThatDoesNotFitItsRowsIsFound) {
  Open({.begin_at = 2, .at_once = 10, .faster = 0});
  ASSERT_TRUE(Insert(1).ok());
  ASSERT_TRUE(Insert(2).ok());
  ASSERT_TRUE(Turn().ok());
  const auto check = [this] { return MergedIndex<EmailKey>::Check(connection_); };
  EXPECT_TRUE(check().ok());
  for (const char* const sql : {"DELETE FROM email_key WHERE row = 1", "UPDATE email_key SET row = 3 - row",
                                "INSERT INTO email_key VALUES (randomblob(32), 9)", "DELETE FROM email WHERE id = 2",
                                "UPDATE email SET digest = randomblob(32) WHERE id = 1"}) {
    Do("SAVEPOINT s");
    Do(sql);
    EXPECT_TRUE(absl::IsDataLoss(check())) << sql;
    Do("ROLLBACK TO s; RELEASE s");
  }
}

// Where there are too many rows to look for the entry of each.
TEST_F(MergedIndexTest, AnIndexWithAnotherNumberOfEntriesEndsAStart) {
  const MergeOptions options{.begin_at = 4, .at_once = 1, .faster = 0};
  Open(options);
  for (int i = 1; i <= 4; ++i) ASSERT_TRUE(Insert(i).ok());
  MergeAll();
  for (int i = 5; i <= 8; ++i) ASSERT_TRUE(Insert(i).ok());
  ASSERT_TRUE(Turn().ok());
  Open(options);  // in the middle of a merge
  ASSERT_EQ(emails_->mark(), 4);
  ASSERT_EQ(Number("SELECT count(*) FROM email_key"), 5);
  const char* const harms[] = {"DELETE FROM email_key WHERE row = 1",
                               "INSERT INTO email_key VALUES (randomblob(32), 3)",
                               "INSERT INTO email_key VALUES (randomblob(32), 6)",
                               "INSERT INTO email_key VALUES (randomblob(32), 9)",
                               "UPDATE email_key SET row = 9 WHERE row = 4",
                               "UPDATE email_key SET digest = randomblob(32) WHERE row > 4",
                               "DELETE FROM email WHERE id = 2",
                               "INSERT INTO email (id, digest, confirmed, possible) VALUES (0, randomblob(32), 0, 0)",
                               "UPDATE merged_to SET row = 5 WHERE name = 'email_key' AND NOT EXISTS "
                               "(SELECT 1 FROM email_key WHERE row = 5)",
                               "UPDATE merged_to SET row = 6 WHERE name = 'email_key'",
                               "UPDATE merged_to SET row = 3 WHERE name = 'email_key'; DELETE FROM email WHERE id = 4"};
  for (const char* const harm : harms) {
    Do("SAVEPOINT s");
    Do(harm);
    if (sqlite3_changes(connection_.db()) != 0) {
      MergedIndex<EmailKey> index(connection_, options);
      const absl::Status said = index.Open(Rows());
      EXPECT_TRUE(absl::IsDataLoss(said)) << harm;
      EXPECT_THAT(std::string(said.message()), HasSubstr("the index email_key does not fit its rows")) << harm;
    }
    Do("ROLLBACK TO s; RELEASE s");
  }
}

// ---- intents: several rows may have one key ----

TEST_F(MergedIndexTest, AllRowsOfAnIntentAreFound) {
  MergedIndex<IntentKey> intents(connection_, {.begin_at = 2, .at_once = 1, .faster = 0});
  ASSERT_TRUE(intents.Open(0).ok());
  const IntentKey key = IntentKeyOf("usr_int_12345678");
  EXPECT_EQ(key, IntentKeyOf("another_12345678"));
  EXPECT_NE(key, IntentKeyOf("12345679"));
  EXPECT_NE(IntentKeyOf("a"), IntentKeyOf(""));
  for (const int64_t row : {5, 3, 9}) {
    Do("BEGIN");
    ASSERT_TRUE(intents.Insert(key, row).ok());
    ASSERT_TRUE(intents.Insert(key, row).ok());  // once
    ASSERT_TRUE(intents.MergeSome().ok());
    Do("COMMIT");
    intents.Committed();
    std::vector<int64_t> found = intents.FindAll(key).value();
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, row == 5   ? (std::vector<int64_t>{5})
                     : row == 3 ? (std::vector<int64_t>{3, 5})
                                : (std::vector<int64_t>{3, 5, 9}));
  }
  EXPECT_TRUE(intents.FindAll(IntentKeyOf("nobody")).value().empty());
}

}  // namespace
}  // namespace userintent::ledger
