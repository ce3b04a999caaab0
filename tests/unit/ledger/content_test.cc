// A ledger in a file that was copied elsewhere: its mark, and who heeds it. And that nothing in the file is left out.
#include "server/ledger/content.h"

#include <gmock/gmock.h>
#include <sqlite3.h>

#include <memory>
#include <string>
#include <vector>

#include "server/ledger/ledger_file.h"
#include "server/ledger/look_at.h"
#include "server/ledger/moved.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_content.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/unit/base/temporary_directory.h"

namespace userintent::ledger {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAre;

class ContentTest : public testing::Test {
 protected:
  ContentTest() { options_.path = directory_.Path("ledger.db"); }

  absl::StatusOr<std::unique_ptr<SqliteStore>> Open(bool moved_too = false, bool for_operator = false) {
    options_.key_id = 7;
    options_.moved_too = moved_too;
    options_.for_operator = for_operator;
    return SqliteStore::Open(options_);
  }
  Moved Some(bool done) const {
    Moved moved{"postgresql db/ledger", "123/456", RandomUuid(), absl::FromUnixSeconds(1'800'000'000), std::nullopt};
    if (done) moved.done = absl::FromUnixSeconds(1'800'000'060);
    return moved;
  }
  void Set(const std::optional<Moved>& moved) {
    const auto store = Open(true);
    ASSERT_TRUE(store.ok()) << store.status();
    const absl::Status s = SqliteContent(**store).SetMoved(moved);
    ASSERT_TRUE(s.ok()) << s;
  }
  std::vector<std::string> Names(const char* sql) {
    sqlite3* db = nullptr;
    std::vector<std::string> names;
    EXPECT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
    sqlite3_exec(
        db, sql,
        [](void* into, int, char** values, char**) {
          static_cast<std::vector<std::string>*>(into)->emplace_back(values[0]);
          return 0;
        },
        &names, nullptr);
    sqlite3_close(db);
    return names;
  }

  TemporaryDirectory directory_;
  SqliteStoreOptions options_;
};

TEST_F(ContentTest, AMarkedFileIsRefusedUntilTheMarkIsTakenOff) {
  ASSERT_TRUE(Open().ok());
  for (const bool done : {false, true}) {
    Set(Some(done));
    for (const bool for_operator : {false, true}) {
      const absl::Status refused = Open(false, for_operator).status();
      EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
      EXPECT_THAT(std::string(refused.message()),
                  done ? HasSubstr("was copied to postgresql db/ledger at 2027-01-15T08:01:00Z and is served there")
                       : HasSubstr("a copy to postgresql db/ledger began at 2027-01-15T08:00:00Z and was cut off"));
    }
    EXPECT_THAT(std::string(LookAt(options_.path, {7}, "").message()), HasSubstr("was copied into a database"));
    EXPECT_TRUE(CheckIsLedger(options_.path).ok()) << "the store says more than that";
  }
  Set(std::nullopt);
  EXPECT_TRUE(Open().ok());
  EXPECT_TRUE(LookAt(options_.path, {7}, "").ok());
  EXPECT_THAT(Names("SELECT name FROM sqlite_schema WHERE name = 'moved'"), testing::IsEmpty());
}

TEST_F(ContentTest, TheMarkSaysWhatWasWritten) {
  ASSERT_TRUE(Open().ok());
  const Moved wrote = Some(true);
  Set(Some(false));
  Set(wrote);
  const auto store = Open(true);
  ASSERT_TRUE(store.ok()) << store.status();
  const auto read = SqliteContent(**store).GetMoved();
  ASSERT_TRUE(read.ok() && *read) << read.status();
  EXPECT_EQ((*read)->place, wrote.place);
  EXPECT_EQ((*read)->database, wrote.database);
  EXPECT_EQ((*read)->copy, wrote.copy);
  EXPECT_EQ((*read)->began, wrote.began);
  EXPECT_EQ((*read)->done, wrote.done);
}

// A server from before there was such a mark looks at this number alone, in the head of the file.
TEST_F(ContentTest, OlderServersTakeItForAnotherProgramsDatabase) {
  ASSERT_TRUE(Open().ok());
  EXPECT_THAT(Names("PRAGMA application_id"), UnorderedElementsAre(std::to_string(kApplicationId)));
  const auto store = Open(true);
  ASSERT_TRUE(store.ok());
  const int64_t before = (*store)->revision();
  ASSERT_TRUE(SqliteContent(**store).SetMoved(Some(false)).ok());
  EXPECT_GT((*store)->revision(), before) << "a backup from before is not told from it";
  const std::optional<Standing> without_log = LookWithoutLog(options_.path);
  ASSERT_TRUE(without_log);
  EXPECT_EQ(without_log->revision, (*store)->revision()) << "the mark is in the log only";
}

// A table that is new here must be copied, or named as one that need not be.
TEST_F(ContentTest, EveryTableIsToldOrNeedNotBe) {
  ASSERT_TRUE(Open().ok());
  const std::vector<std::string> told = {"audit",   "caller",      "change",     "conflict",
                                         "email",   "environment", "ledger_key", "receiver_period",
                                         "request", "restored",    "webhook"};
  // What is the file's own: its schema, its proof that it can be written, SQLite's numbers, what its rows are found by.
  const std::vector<std::string> own = {"migration", "probe",      "sqlite_sequence", "request_key",
                                        "email_key", "intent_key", "merged_to"};
  std::vector<std::string> all = told;
  all.insert(all.end(), own.begin(), own.end());
  EXPECT_THAT(Names("SELECT name FROM sqlite_schema WHERE type = 'table'"), testing::UnorderedElementsAreArray(all));
}

}  // namespace
}  // namespace userintent::ledger
