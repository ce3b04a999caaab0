// Copies of a ledger: what is in them, what they cost, and that a copy which cannot be made leaves nothing.
#include "server/ledger/backup.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::HasSubstr;
using V = BeginVerdict;

class BackupTest : public testing::Test {
 protected:
  BackupTest() {
    FaultVfs::Get().Heal();
    ledger_options_.store.path = directory_.File("ledger.db");
    ledger_options_.store.merge = EarlyMerges();
    ledger_options_.store.key_id = kKey;
    ledger_options_.unknown_reason = 19;
    ledger_options_.store.long_log_pages = 50;  // so that the log is copied into the database meanwhile, too
    ledger_ = SqliteLedger::Open(ledger_options_).value();
    options_.path = directory_.File("copy.db");
    options_.min_free_bytes = 0;
  }
  ~BackupTest() override { FaultVfs::Get().Heal(); }

  Call CallOf(int id) const { return {.id = id, .email = absl::StrCat(id, "@example.com")}; }
  BeginAnswer Begin(const Call& call) {
    std::optional<BeginAnswer> answer;
    ledger_->Begin(call.request(), pump_, [&](BeginAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }
  void Finish(const FinishRequest& request) {
    bool committed = false;
    ledger_->Finish(request, pump_, [&](FinishAnswer got) { committed = got.committed; });
    pump_.Until([&] { return committed; });
  }
  void Make(int from, int to) {
    for (int id = from; id < to; ++id) {
      ASSERT_EQ(Begin(CallOf(id)).verdict, V::kGo);
      Finish(Succeeded(CallOf(id).key_of(), absl::StrCat("intent-", id)));
    }
  }
  // `meanwhile` runs on the writer's thread before each slice; so it may use the store, and must end its transactions.
  absl::StatusOr<BackupReport> Copy(const std::function<void(SqliteStore&)>& meanwhile = nullptr) {
    return BackUp(
        [&](absl::FunctionRef<absl::Status(SqliteStore&)> work) {
          return ledger_->Between([&](SqliteStore& store) {
            if (meanwhile) meanwhile(store);
            return work(store);
          });
        },
        options_);
  }
  // What is in the directory beside the ledger and its files.
  std::vector<std::string> Others() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.File(""))) {
      const std::string name = entry.path().filename().string();
      if (name.rfind("ledger.db", 0) != 0) names.push_back(name);
    }
    return names;
  }
  std::unique_ptr<SqliteLedger> OpenCopy() {
    SqliteLedgerOptions options = ledger_options_;
    options.store.path = options_.path;
    return SqliteLedger::Open(options).value();
  }

  TemporaryDirectory directory_;
  SqliteLedgerOptions ledger_options_;
  BackupOptions options_;
  Pump pump_;
  std::unique_ptr<SqliteLedger> ledger_;
};

TEST_F(BackupTest, ACopyIsAWholeLedger) {
  Make(1, 200);
  Begin(CallOf(200));  // runs
  const BackupReport report = Copy().value();
  EXPECT_EQ(report.copy.totals.requests[2], 199);
  EXPECT_EQ(report.copy.totals.requests[1], 1);
  EXPECT_EQ(report.copy.totals.addresses, 200);
  EXPECT_EQ(report.copy.key_id, kKey);
  EXPECT_EQ(report.copy.last_change, At(5));
  EXPECT_EQ(report.copy.schema_version, SchemaVersion());
  struct stat status {};
  ASSERT_EQ(::stat(options_.path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_EQ(status.st_size, report.copy.bytes);
  EXPECT_EQ(Others(), std::vector<std::string>{"copy.db"});

  ledger_ = OpenCopy();
  EXPECT_EQ(ledger_->recovered(), 1u);
  EXPECT_EQ(Begin(CallOf(7)).own->answer.user_intent_id, "intent-7");
  EXPECT_EQ(Begin(CallOf(200)).own->state, State::kUnknown);
}

// Rows that are written between two slices, on pages that were copied already and on others.
TEST_F(BackupTest, WhatIsCommittedMeanwhileIsInTheCopy) {
  Make(1, 300);
  options_.slice_pages = 1;
  int id = 1000;
  const auto report = Copy([&](SqliteStore& store) {
    if (id >= 1030) return;
    ASSERT_TRUE(store.Start().ok());
    ASSERT_EQ(Execute(store, CallOf(id).request()).value().verdict, V::kGo);
    ASSERT_TRUE(Execute(store, Succeeded(CallOf(id).key_of())).ok());
    ASSERT_TRUE(store.Commit().ok());
    ++id;
    ASSERT_TRUE(store.CheckpointIfLong().ok());
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(id, 1030);
  EXPECT_EQ(report->copy.totals.requests[2], 299 + 30);
  ledger_ = OpenCopy();  // counters are checked at the start
  for (int one = 1000; one < 1030; ++one) EXPECT_EQ(Begin(CallOf(one)).verdict, V::kRecorded);
}

TEST_F(BackupTest, WhatIsRolledBackMeanwhileIsNotInTheCopy) {
  Make(1, 300);
  options_.slice_pages = 1;
  int id = 1000;
  const auto report = Copy([&](SqliteStore& store) {
    if (id >= 1030) return;
    ASSERT_TRUE(store.Start().ok());
    for (int many = 0; many < 20; ++many) {
      ASSERT_EQ(Execute(store, CallOf(id * 100 + many).request()).value().verdict, V::kGo);
    }
    store.Rollback();
    ++id;
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->copy.totals.requests[2], 299);
  EXPECT_EQ(report->copy.totals.requests[1], 0);
}

TEST_F(BackupTest, CallsAreServedWhileItIsMade) {
  Make(1, 400);
  options_.slice_pages = 1;
  std::atomic<bool> done{false};
  absl::StatusOr<BackupReport> report = absl::UnknownError("");
  std::thread copier([&] {
    report = Copy();
    done = true;
  });
  int id = 1000;
  for (; !done; ++id) Make(id, id + 1);
  copier.join();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GE(report->copy.totals.requests[2], 399);
  EXPECT_LE(report->copy.totals.requests[2], 399 + id - 1000);
  ledger_.reset();
  EXPECT_TRUE(CheckCopy(options_.path).ok());
  ledger_ = SqliteLedger::Open(ledger_options_).value();
  EXPECT_EQ(Begin(CallOf(id - 1)).verdict, V::kRecorded);
}

TEST_F(BackupTest, AnExistingFileIsNotReplaced) {
  std::ofstream(options_.path) << "somebody's";
  EXPECT_THAT(Copy().status().message(), HasSubstr("is there already"));
  std::string text;
  std::ifstream(options_.path) >> text;
  EXPECT_EQ(text, "somebody's");
  ::unlink(options_.path.c_str());
  ASSERT_EQ(::symlink("nowhere", options_.path.c_str()), 0);
  EXPECT_THAT(Copy().status().message(), HasSubstr("is there already"));
  options_.path = ledger_options_.store.path;
  EXPECT_THAT(Copy().status().message(), HasSubstr("is there already"));
  EXPECT_EQ(Begin(CallOf(1)).verdict, V::kGo);
}

// One that comes while the copy is made is not replaced either.
TEST_F(BackupTest, AFileThatComesMeanwhileIsNotReplaced) {
  Make(1, 10);
  bool made = false;
  const auto report = Copy([&](SqliteStore&) {
    if (!std::exchange(made, true)) std::ofstream(options_.path) << "somebody's";
  });
  EXPECT_THAT(report.status().message(), HasSubstr("File exists"));
  std::string text;
  std::ifstream(options_.path) >> text;
  EXPECT_EQ(text, "somebody's");
  EXPECT_EQ(Others(), std::vector<std::string>{"copy.db"});
}

TEST_F(BackupTest, APlaceThatWillNotDoIsRefused) {
  for (const auto& [path, why] :
       std::vector<std::pair<std::string, std::string>>{{"", "absolute"},
                                                        {"copy.db", "absolute"},
                                                        {directory_.File(""), "name a file"},
                                                        {directory_.File("none/copy.db"), "No such file"},
                                                        {directory_.File("ledger.db/copy.db"), "Not a directory"}}) {
    options_.path = path;
    EXPECT_THAT(Copy().status().message(), HasSubstr(why)) << path;
    EXPECT_EQ(std::string(Copy().status().message()).find('\n'), std::string::npos);
  }
  EXPECT_TRUE(Others().empty());
}

TEST_F(BackupTest, ADiskWithoutRoomIsRefusedBeforeItIsFull) {
  Make(1, 10);
  options_.min_free_bytes = int64_t{1} << 60;
  const absl::Status status = Copy().status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(status.message(), HasSubstr("MiB free"));
  EXPECT_TRUE(Others().empty());
}

// The disk of the copy fills or fails, at whichever write: the ledger does not notice.
TEST_F(BackupTest, AFailingDiskOfTheCopyLeavesNothingAndHarmsNobody) {
  Make(1, 1200);
  options_.vfs = FaultVfs::Get().name();
  options_.slice_pages = 8;
  int id = 2000;
  for (const int code : {SQLITE_FULL, SQLITE_IOERR_WRITE}) {
    for (const int after : {0, 1, 3}) {
      FaultVfs::Get().Fail(code, after);
      const absl::Status status = Copy().status();
      FaultVfs::Get().Heal();
      EXPECT_THAT(status.message(), HasSubstr("cannot copy the ledger")) << code << ' ' << after;
      EXPECT_EQ(absl::IsResourceExhausted(status), code == SQLITE_FULL);
      EXPECT_TRUE(Others().empty());
      Make(id, id + 1);
      ++id;
      EXPECT_TRUE(ledger_->Writable());
    }
  }
  EXPECT_TRUE(Copy().ok());
}

TEST_F(BackupTest, ACopyThatIsGivenUpLeavesNothing) {
  Make(1, 100);
  options_.slice_pages = 1;
  int asked = 0;
  options_.cancelled = [&asked] { return ++asked == 5; };
  EXPECT_TRUE(absl::IsCancelled(Copy().status()));
  EXPECT_TRUE(Others().empty());
  options_.cancelled = [] { return false; };
  EXPECT_TRUE(Copy().ok());
}

TEST_F(BackupTest, ADamagedCopyIsFoundOut) {
  Make(1, 400);
  const int64_t bytes = Copy()->copy.bytes;
  ASSERT_TRUE(CheckCopy(options_.path).ok());
  const auto damage = [&](const char* sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
    sqlite3_close(db);
  };
  const std::string keep = directory_.File("keep");
  std::filesystem::copy_file(options_.path, keep);
  const auto again = [&] {
    std::filesystem::copy_file(keep, options_.path, std::filesystem::copy_options::overwrite_existing);
  };
  damage("UPDATE email SET confirmed = 2 WHERE id = 7");
  EXPECT_THAT(CheckCopy(options_.path).status().message(), HasSubstr("an attempt counter"));
  again();
  damage("PRAGMA application_id = 5");
  EXPECT_THAT(CheckCopy(options_.path).status().message(), HasSubstr("some other program's"));
  again();
  damage("PRAGMA user_version = 1000");
  EXPECT_THAT(CheckCopy(options_.path).status().message(), HasSubstr("newer version"));
  // Only an index is wrong: what a start would not look at.
  again();
  damage(
      "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'state = 2', 'state = 3') "
      "WHERE name = 'request_person'");
  EXPECT_FALSE(CheckCopy(options_.path).ok());
  // The same by one entry too many.
  again();
  damage(
      "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'state = 2', 'state = 9') "
      "WHERE name = 'request_person'");
  damage("UPDATE request SET state = 3, confirmed = 0 WHERE id = (SELECT min(id) FROM request WHERE state = 2)");
  damage(
      "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'state = 9', 'state = 2') "
      "WHERE name = 'request_person'");
  EXPECT_FALSE(CheckCopy(options_.path).ok());
  again();
  ASSERT_EQ(::truncate(options_.path.c_str(), bytes - 3 * 4096), 0);
  EXPECT_FALSE(CheckCopy(options_.path).ok());
  again();
  std::fstream(options_.path, std::ios::in | std::ios::out | std::ios::binary).seekp(5 * 4096).write("garbage", 7);
  EXPECT_FALSE(CheckCopy(options_.path).ok());
  std::ofstream(options_.path, std::ios::trunc) << "";
  EXPECT_FALSE(CheckCopy(options_.path).ok());
  ::unlink(options_.path.c_str());
  EXPECT_TRUE(absl::IsNotFound(CheckCopy(options_.path).status()));
}

TEST_F(BackupTest, ALedgerInUseIsNoCopy) {
  Make(1, 10);
  EXPECT_THAT(CheckCopy(ledger_options_.store.path).status().message(), HasSubstr("log beside it"));
}

TEST_F(BackupTest, CheckingWritesNothing) {
  Make(1, 10);
  ASSERT_TRUE(Copy().ok());
  ASSERT_EQ(::chmod(options_.path.c_str(), 0400), 0);
  const auto before = std::filesystem::last_write_time(options_.path);
  EXPECT_TRUE(CheckCopy(options_.path).ok());
  EXPECT_EQ(std::filesystem::last_write_time(options_.path), before);
  EXPECT_EQ(Others(), std::vector<std::string>{"copy.db"});
}

// An upgrade begins with a copy by the new tool, of whatever the old server wrote.
TEST_F(BackupTest, ALedgerOfTheFirstSchema) {
  Make(1, 10);
  ASSERT_TRUE(Copy().ok());
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(options_.path.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(
      sqlite3_exec(db, "DROP TABLE audit; DROP TABLE restored; PRAGMA user_version = 1", nullptr, nullptr, nullptr),
      SQLITE_OK)
      << sqlite3_errmsg(db);
  sqlite3_close(db);
  const absl::StatusOr<CopyReport> report = CheckCopy(options_.path);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->schema_version, 1);
  EXPECT_EQ(report->audit_entries, 0);
  EXPECT_EQ(report->totals.requests[2], 9);
}

TEST_F(BackupTest, ANameThatBeginsWithTwoSlashes) {
  Make(1, 10);
  options_.path = "/" + options_.path;  // in a URI the first part of it would be a host
  ASSERT_TRUE(Copy().ok());
  EXPECT_EQ(CheckCopy(options_.path)->totals.requests[2], 9);
}

TEST_F(BackupTest, ANameWithOddCharacters) {
  Make(1, 10);
  options_.path = directory_.File("a b%20?immutable=0#é'.db");
  EXPECT_TRUE(Copy().ok());
  EXPECT_EQ(CheckCopy(options_.path)->totals.requests[2], 9);
}

}  // namespace
}  // namespace userintent::ledger
