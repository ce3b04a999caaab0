// A start that brings an older ledger to the present schema, which has no way back, is killed or loses its power at any
// point: the next start finishes it, no row is lost, and the copy that is kept is whole and as the ledger was.
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/ledger/backup.h"
#include "server/ledger/execute.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/old_schemas.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::IsEmpty;

std::string Outcome(int id) { return "intent-" + std::to_string(id); }
Call Numbered(int id) { return {.id = id, .email = std::to_string(id) + "@example.com", .at = id}; }

// The rows have every state, and some have an entry in the audit table.
void Fill(SqliteStore& store, int rows) {
  for (int id = 1; id <= rows;) {
    ASSERT_TRUE(store.Start().ok());
    for (int end = std::min(rows + 1, id + 500); id < end; ++id) {
      const Call call = Numbered(id);
      ASSERT_EQ(Execute(store, call.request())->verdict, BeginVerdict::kGo);
      const FinishRequest outcomes[] = {Succeeded(call.key_of(), Outcome(id)), Failed(call.key_of()),
                                        Unknown(call.key_of()), Released(call.key_of())};
      EXPECT_TRUE(id % 5 == 4 || Execute(store, outcomes[id % 5]).ok());
      EXPECT_TRUE(id % 20 != 2 || Execute(store, AsNotCreated(call.key_of()))->changed);
    }
    ASSERT_TRUE(store.Touch().ok());
    ASSERT_TRUE(store.Commit().ok());
  }
}

// Alone, because memory has no locks.
sqlite3* OpenAlone(const std::string& path, const char* vfs) {
  sqlite3* db = nullptr;
  EXPECT_EQ(sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READWRITE, vfs), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", nullptr, nullptr, nullptr), SQLITE_OK);
  return db;
}

void Tamper(const std::string& path, const char* vfs, const std::string& sql) {
  sqlite3* const db = OpenAlone(path, vfs);
  char* error = nullptr;
  ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  ASSERT_EQ(sqlite3_close(db), SQLITE_OK);
}

// Every row of every table of a schema's own, as text. Of a file with a log, in a copy of both.
std::string Dump(const std::string& path, const char* vfs = nullptr) {
  sqlite3* const db = OpenAlone(path, vfs);
  const auto rows = [db](const std::string& sql) {
    std::vector<std::string> all;
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr), SQLITE_OK)
        << sql << ": " << sqlite3_errmsg(db);
    while (sqlite3_step(statement) == SQLITE_ROW) {
      std::string& row = all.emplace_back();
      for (int column = 0; column < sqlite3_column_count(statement); ++column) {
        const void* const bytes = sqlite3_column_blob(statement, column);
        const auto size = static_cast<size_t>(sqlite3_column_bytes(statement, column));
        row += static_cast<char>('0' + sqlite3_column_type(statement, column));
        row += ':';
        row.append(static_cast<const char*>(bytes), bytes == nullptr ? 0 : size);
        row += '|';
      }
    }
    EXPECT_EQ(sqlite3_finalize(statement), SQLITE_OK) << sql;
    return all;
  };
  std::string text;
  for (const std::string& table : rows("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")) {
    const std::string name = table.substr(2, table.size() - 3);
    text += "\n" + name + "\n";
    for (const std::string& row : rows("SELECT * FROM \"" + name + "\" ORDER BY 1, 2")) text.append(row) += '\n';
  }
  text += rows("PRAGMA user_version").front();
  sqlite3_close(db);
  return text;
}

// ---- the process is killed ----

std::string g_die_at;  // NOLINT: the hook is a plain function

void DieAt(std::string_view point) {
  if (point == g_die_at) ::kill(::getpid(), SIGKILL);
}

class MigrationTest : public testing::Test {
 protected:
  MigrationTest() {
    options_.store.path = directory_.File("data/ledger.db");
    options_.store.key_id = kKey;
    options_.store.now = [] { return At(1000); };
    options_.store.vfs = FaultVfs::Get().name();
  }
  // A ledger of an older version, with so many rows; `whole_` is what becomes of it.
  void Make(const std::string& way_back, int rows) {
    {
      const absl::StatusOr<OpenedFiles> files = OpenFiles(options_);
      ASSERT_TRUE(files.ok()) << files.status();
      Fill(*files->store, rows);
    }
    Tamper(path(), nullptr, way_back);
    std::filesystem::remove(MarkPath(path()));
    old_ = Dump(path());
    std::filesystem::copy_file(path(), directory_.File("old.db"));
    ASSERT_EQ(Start(), "");
    whole_ = Dump(path());
    Again();
  }
  // As it was before.
  void Again() {
    std::filesystem::remove_all(directory_.File("data"));
    std::filesystem::create_directory(directory_.File("data"));
    std::filesystem::copy_file(directory_.File("old.db"), path());
  }
  // A start that nobody disturbs, and its end. Empty: all went well.
  std::string Start() {
    const absl::StatusOr<OpenedFiles> files = OpenFiles(options_);
    return std::string(files.status().message());
  }
  // The same in a process of its own, which `disturb` prepares and `meanwhile` is told of. Whether it was killed.
  bool Killed(const std::function<void()>& disturb, const std::function<void(pid_t)>& meanwhile = nullptr) {
    const pid_t child = ::fork();
    if (child == 0) {
      disturb();
      ::_exit(Start().empty() ? 0 : 1);
    }
    if (meanwhile != nullptr) meanwhile(child);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) << status;
    return killed;
  }
  bool KilledAt(const std::string& point) {
    return Killed([&] {
      g_die_at = point;
      options_.store.crash_point = DieAt;
    });
  }
  bool KilledAtWrite(int64_t after) {
    return Killed([after] { FaultVfs::Get().dies = after; });
  }

  // What a kill has left is the old ledger or the new one, and the copy beside the new one is the old one.
  void Look(const std::string& when) {
    const std::string look = directory_.File("look");
    std::filesystem::remove_all(look);
    std::filesystem::create_directory(look);
    for (const char* end : {"", "-wal"}) {
      if (std::filesystem::exists(path() + end)) std::filesystem::copy_file(path() + end, look + "/ledger.db" + end);
    }
    const std::string dump = Dump(look + "/ledger.db");
    EXPECT_TRUE(dump == old_ || dump == whole_) << when;
    const bool kept = std::filesystem::exists(kept_);
    EXPECT_TRUE(kept || dump == old_) << when;
    if (!kept) return;
    const absl::StatusOr<CopyReport> report = CheckCopy(kept_);
    EXPECT_TRUE(report.ok()) << when << ": " << report.status();
    EXPECT_TRUE(Dump(kept_) == old_) << when;
  }
  // The next start finishes it.
  void Finish(const std::string& when) {
    ASSERT_EQ(Start(), "") << when;
    EXPECT_TRUE(Dump(path()) == whole_) << when;
    const absl::StatusOr<CopyReport> report = CheckCopy(path());
    ASSERT_TRUE(report.ok()) << when << ": " << report.status();
    EXPECT_EQ(report->schema_version, SchemaVersion());
    EXPECT_TRUE(std::filesystem::exists(kept_)) << when;
    Look(when);
    std::vector<std::string> others;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.File("data"))) {
      const std::string name = entry.path().filename().string();
      if (name != "ledger.db" && name != "ledger.db.lock" && name != "ledger.db.before-schema-9")
        others.push_back(name);
    }
    EXPECT_THAT(others, IsEmpty()) << when;
  }

  const std::string& path() const { return options_.store.path; }

  TemporaryDirectory directory_;
  OpeningOptions options_;
  const std::string kept_ = CopyBeforeMigrationPath(directory_.File("data/ledger.db"));
  std::string old_;
  std::string whole_;
};

class OldSchemaTest : public MigrationTest, public testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(Migration, OldSchemaTest, testing::ValuesIn(WaysBack()),
                         [](const auto& each) { return std::to_string(each.index + 1) + "_back"; });

TEST_P(OldSchemaTest, TwoKillsAtTheNamedPoints) {
  Make(GetParam(), 60);
  const char* const points[] = {"migration-begun", "migration-copied", "migration-written", "migration-committed"};
  for (const std::string first : points) {
    for (const std::string second : points) {
      const std::string when = absl::StrCat(first, ", then ", second);
      Again();
      EXPECT_TRUE(KilledAt(first)) << when;
      Look(first);
      EXPECT_EQ(KilledAt(second), first != "migration-committed") << when;
      Look(when);
      Finish(when);
    }
  }
  // Every request is known, and none would be sent again.
  SqliteLedgerOptions options;
  options.store = options_.store;
  const auto ledger = SqliteLedger::Open(options);
  ASSERT_TRUE(ledger.ok()) << ledger.status();
  Pump pump;
  for (int id = 1; id <= 60; ++id) {
    if (id % 5 == 3) continue;  // released: may be sent again
    std::optional<BeginAnswer> answer;
    (*ledger)->Begin(Numbered(id).request(), pump, [&](BeginAnswer got) { answer = std::move(got); });
    pump.Until([&] { return answer.has_value(); });
    EXPECT_EQ(answer->verdict, BeginVerdict::kRecorded) << id;
  }
}

// The log, in the middle of the transaction and at its end, and the file, when the log is copied into it.
TEST_F(MigrationTest, TwoKillsAtAnyWrite) {
  Make(kBackToSchema8, 16'000);  // more than the cache holds, so that much is written before the end
  FaultVfs& vfs = FaultVfs::Get();
  int64_t all = vfs.writes + vfs.syncs;
  ASSERT_EQ(Start(), "");
  all = vfs.writes + vfs.syncs - all;
  ASSERT_GT(all, 3000);
  std::mt19937 random(4712);
  const auto any = [&random](int64_t most) { return static_cast<int64_t>(random() % static_cast<uint64_t>(most)); };
  int committed = 0;
  constexpr int kCuts = 8;
  for (int cut = 0; cut < kCuts; ++cut) {
    Again();
    const int64_t first = all * cut / kCuts + any(all / kCuts);
    const std::string when = "killed at write " + std::to_string(first) + " of " + std::to_string(all);
    EXPECT_TRUE(KilledAtWrite(first)) << when;
    committed += std::filesystem::file_size(path() + "-wal") > 0 ? 1 : 0;
    Look(when);
    const int64_t second = any(all);
    const bool killed = KilledAtWrite(second);  // what is left to do may be less
    Look(when + (killed ? ", then at " : ", then not at ") + std::to_string(second));
    Finish(when);
  }
  EXPECT_GT(committed, 0);
}

// From outside, again and again, until one gets through: the copy, too, is cut off.
TEST_F(MigrationTest, KillsAtAnyTime) {
  Make(kBackToSchema8, 16'000);
  const auto from = std::chrono::steady_clock::now();
  ASSERT_FALSE(Killed([] {}));
  const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - from);
  std::mt19937 random(4713);
  int kills = 0;
  for (int round = 0; round < 2 || kills == 0; ++round) {
    Again();
    for (bool through = false; !through;) {
      const auto wait = std::chrono::microseconds(random() % static_cast<unsigned>(took.count() * 3 / 2));
      through = !Killed([] {},
                        [wait](pid_t child) {
                          std::this_thread::sleep_for(wait);
                          ::kill(child, SIGKILL);
                        });
      kills += through ? 0 : 1;
      Look("killed after " + std::to_string(wait.count()) + " us");
    }
    Finish("round " + std::to_string(round));
  }
}

TEST_F(MigrationTest, WhatIsLeftOfACopyGoesAndNothingElse) {
  Make(kBackToSchema8, 5);
  for (const char* end : {".before-schema-9.partial-01234567", ".before-schema-9.2.partial-01234567",
                          ".partial-01234567", ".before-schema-9.txt"}) {
    std::ofstream(path() + end) << end;
  }
  ASSERT_EQ(Start(), "");
  EXPECT_FALSE(std::filesystem::exists(path() + ".before-schema-9.partial-01234567"));
  EXPECT_FALSE(std::filesystem::exists(path() + ".before-schema-9.2.partial-01234567"));
  EXPECT_TRUE(std::filesystem::exists(path() + ".partial-01234567")) << "an operator's backup";
  EXPECT_TRUE(std::filesystem::exists(path() + ".before-schema-9.txt"));
}

// Schemas before 4 have no revision to tell one from the other by.
TEST_P(OldSchemaTest, AKeptCopyOfAnotherStandingStays) {
  Make(GetParam(), 5);
  ASSERT_EQ(Start(), "");
  {
    const absl::StatusOr<OpenedFiles> files = OpenFiles(options_);
    ASSERT_TRUE(files.ok()) << files.status();
    ASSERT_TRUE(files->store->Start().ok());
    ASSERT_TRUE(Execute(*files->store, Call{.id = 6, .email = "6@example.com", .at = 2000}.request()).ok());
    ASSERT_TRUE(files->store->Touch().ok());
    ASSERT_TRUE(files->store->Commit().ok());
  }
  Tamper(path(), nullptr, GetParam());
  std::filesystem::remove(MarkPath(path()));
  ASSERT_EQ(Start(), "");
  EXPECT_TRUE(Dump(kept_) == old_);
  const absl::StatusOr<CopyReport> second = CheckCopy(kept_ + ".2");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->totals.requests[static_cast<size_t>(State::kSending)], 2);
  EXPECT_FALSE(std::filesystem::exists(kept_ + ".3"));
}

// ---- the power fails ----

TEST(MigrationPowerLossTest, TheNextStartFinishesIt) {
  MemoryVfs& vfs = MemoryVfs::Get();
  vfs.Load({});
  SqliteStoreOptions options;
  options.path = "/ledger.db";
  options.key_id = kKey;
  options.vfs = vfs.name();
  options.now = [] { return At(1000); };
  vfs.set_logging(false);
  Fill(**SqliteStore::Open(options), 300);
  Tamper(options.path, vfs.name(), kBackToSchema8);
  const Disk before = vfs.disk();
  const std::string old = Dump(options.path, vfs.name());
  const auto log_of_a_start = [&](const Disk& disk) {
    vfs.Load(disk);
    vfs.set_logging(true);
    {
      const auto store = SqliteStore::Open(options);
      EXPECT_TRUE(store.ok()) << store.status();
    }
    vfs.set_logging(false);
    return vfs.log();
  };
  // What is on a disk is on it before the log begins.
  const auto standing = [](const Disk& disk) {
    PowerCut cut;
    for (const auto& [name, bytes] : disk) {
      cut.Apply({MemoryVfs::Event::kWrite, name, 0, bytes});
      cut.Apply({MemoryVfs::Event::kSync, name, 1, {}});
    }
    return cut;
  };
  const std::vector<MemoryVfs::Event> log = log_of_a_start(before);
  const std::string whole = Dump(options.path, vfs.name());
  EXPECT_NE(whole, old);
  std::mt19937 random(43);
  std::map<std::string, int> found;
  PowerCut cut = standing(before);
  for (size_t at = 0; at <= log.size(); ++at) {
    if (at > 0) cut.Apply(log[at - 1]);
    for (const bool torn : {false, true}) {
      const Disk left = torn ? cut.Torn(random) : cut.Dropped();
      // Once more, in the middle of what the next start does.
      const std::vector<MemoryVfs::Event> next = log_of_a_start(left);
      PowerCut again = standing(left);
      for (size_t to = random() % (next.size() + 1), i = 0; i < to; ++i) again.Apply(next[i]);
      vfs.Load(torn ? again.Torn(random) : again.Dropped());
      const Disk twice = vfs.disk();
      const std::string then = Dump(options.path, vfs.name());
      EXPECT_TRUE(then == old || then == whole) << at;
      ++found[then == old ? "old" : "whole"];
      log_of_a_start(twice);
      EXPECT_TRUE(Dump(options.path, vfs.name()) == whole) << at;
    }
  }
  EXPECT_GT(found["old"], 10);
  EXPECT_GT(found["whole"], 10);
  std::printf("%zu events, %d cuts\n", log.size(), found["old"] + found["whole"]);
}

}  // namespace
}  // namespace userintent::ledger
