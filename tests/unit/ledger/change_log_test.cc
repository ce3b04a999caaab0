// The change log in a SQLite file: over restarts, forgetting, failing disks, deaths, copies and restores.
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/base/mutex.h"
#include "server/ledger/backup.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/ledger/sqlite_schema.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Listener final : public ChangeListener {
 public:
  void OnChanges(absl::Span<const Change> changes) override {
    const MutexLock lock(mutex_);
    for (const Change& change : changes) heard_.push_back(change.revision);
  }
  std::vector<int64_t> heard() {
    const MutexLock lock(mutex_);
    return heard_;
  }

 private:
  Mutex mutex_;
  std::vector<int64_t> heard_ ABSL_GUARDED_BY(mutex_);
};

class ChangeLogTest : public testing::Test {
 protected:
  ChangeLogTest() {
    FaultVfs::Get().Heal();
    options_.store.path = directory_.File("ledger.db");
    options_.store.merge = EarlyMerges();
    options_.store.key_id = kKey;
    options_.store.vfs = FaultVfs::Get().name();
    options_.unknown_reason = 19;
    options_.retry_first = absl::Milliseconds(5);
    options_.retry_most = absl::Milliseconds(20);
    options_.prune_interval = absl::Milliseconds(1);
  }
  ~ChangeLogTest() override { FaultVfs::Get().Heal(); }

  void Open() {
    ledger_ = std::move(SqliteLedger::Open(options_)).value();
    ledger_->SetListener(&listener_);
  }
  void Reopen() {
    ledger_.reset();
    Open();
  }
  template <typename Answer, typename Call>
  Answer Ask(Call call) {
    std::optional<Answer> answer;
    call([&](Answer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  bool Begin(const Call& call) {
    return Ask<BeginAnswer>([&](auto done) { ledger_->Begin(call.request(), pump_, std::move(done)); }).verdict ==
           BeginVerdict::kGo;
  }
  bool Finish(const FinishRequest& request) {
    return Ask<FinishAnswer>([&](auto done) { ledger_->Finish(request, pump_, std::move(done)); }).committed;
  }
  SettleVerdict Settle(const SettleRequest& request) {
    return Ask<SettleAnswer>([&](auto done) { ledger_->Settle(request, pump_, std::move(done)); }).verdict;
  }
  ChangeFeed::Answer Read(int64_t after, size_t limit = 64) {
    return Ask<ChangeFeed::Answer>([&](auto done) {
      ledger_->ReadChanges({.caller = "one", .after = after, .limit = limit}, pump_, std::move(done));
    });
  }
  // Asks until it is so.
  static void Until(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // A request that ends; its revision is the next one.
  void Run(int id, FinishRequest (*end)(const Key&) = Failed) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    ASSERT_TRUE(Begin(call));
    ASSERT_TRUE(Finish(end(call.key_of())));
  }
  static FinishRequest Lost(const Key& key) { return Unknown(key); }
  // Runs SQL on the closed database and says why it was refused.
  std::string Try(const std::string& sql) {
    ledger_.reset();
    sqlite3* db = nullptr;
    EXPECT_EQ(sqlite3_open(options_.store.path.c_str(), &db), SQLITE_OK);
    char* error = nullptr;
    sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error);
    std::string text = error == nullptr ? "" : error;
    sqlite3_free(error);
    sqlite3_close(db);
    return text;
  }
  std::vector<Conflict> Conflicts(size_t limit = 100) {
    std::vector<Conflict> conflicts;
    EXPECT_TRUE(ledger_
                    ->Administer([&](SqliteStore& store) {
                      conflicts = store.Conflicts(std::nullopt, limit).value();
                      return absl::OkStatus();
                    })
                    .ok());
    return conflicts;
  }

  TemporaryDirectory directory_;
  SqliteLedgerOptions options_;
  Listener listener_;
  Pump pump_;
  std::unique_ptr<SqliteLedger> ledger_;
  const Key key_{"one", Id(1)};
};

TEST_F(ChangeLogTest, RevisionsGoOnAfterARestart) {
  Open();
  EXPECT_EQ(ledger_->ledger_id(), static_cast<uint64_t>(absl::ToUnixMicros(ledger_->made_at())));
  const uint64_t id = ledger_->ledger_id();
  Run(1);
  Run(2);
  Reopen();
  EXPECT_EQ(ledger_->ledger_id(), id);
  EXPECT_EQ(ledger_->revision(), 2);
  Run(3);
  EXPECT_EQ(ledger_->revision(), 3);
  EXPECT_THAT(listener_.heard(), ElementsAre(1, 2, 3));
  const ChangeFeed::Answer answer = Read(1);
  ASSERT_EQ(answer.changed.size(), 2u);
  EXPECT_EQ(answer.changed[0].revision, 2);
  EXPECT_EQ(answer.changed[1].record.key.request_id, Id(3));
  EXPECT_EQ(answer.upto, 3);
}

TEST_F(ChangeLogTest, OldChangesAreForgottenByThemselvesAndNoRevisionIsUsedTwice) {
  options_.watch_history = 3;
  options_.prune_at_once = 2;
  Open();
  for (int id = 1; id <= 10; ++id) Run(id);
  Until([this] { return Read(6).too_old; });
  EXPECT_TRUE(Read(0).too_old);
  ChangeFeed::Answer answer = Read(7);
  EXPECT_FALSE(answer.too_old);
  EXPECT_EQ(answer.changed.size(), 3u);
  Reopen();
  EXPECT_EQ(ledger_->revision(), 10);
  EXPECT_TRUE(Read(6).too_old);
  EXPECT_FALSE(Read(7).too_old);
  EXPECT_FALSE(Read(10).too_old);
  EXPECT_TRUE(Read(11).too_old);  // beyond the end
  options_.watch_history = 0;     // the last one stays all the same
  Reopen();
  Until([this] { return Read(8).too_old; });
  EXPECT_FALSE(Read(9).too_old);
  Reopen();
  EXPECT_EQ(ledger_->revision(), 10);
  Run(11);
  EXPECT_EQ(ledger_->revision(), 11);
}

// A file as the last version before the log left it: nothing is in the log, and every row is found all the same.
TEST_F(ChangeLogTest, AnOlderLedgerBeginsWithAnEmptyLog) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(options_.store.path.c_str(), &db), SQLITE_OK);
  std::string sql;
  for (const Migration& migration : Migrations()) {
    if (migration.version > 5) break;
    sql += migration.sql;
    sql += "INSERT INTO migration VALUES (" + std::to_string(migration.version) + ", 1700000000000000);";
  }
  sql += "PRAGMA application_id = " + std::to_string(kApplicationId) + "; PRAGMA user_version = 5;";
  sql += "INSERT INTO ledger_key VALUES (" + std::to_string(static_cast<int64_t>(kKey)) + ", 1, NULL);";
  sql += "INSERT INTO caller VALUES (1, 'one');";
  const std::vector<std::string> states = {"2", "3", "4", "5"};
  for (size_t i = 0; i < states.size(); ++i) {
    const std::string id = std::to_string(i + 1);
    const bool created = states[i] == "2";
    const bool counts = !created && states[i] != "5";
    sql += "INSERT INTO email (id, digest, confirmed, possible) VALUES (" + id + ", randomblob(32), " +
           (created  ? "1, 0"
            : counts ? "0, 1"
                     : "0, 0") +
           ");";
    absl::StrAppend(
        &sql,
        "INSERT INTO request (caller, request_id, state, sent, reason, http_status, confirmed, user_intent_id, "
        "astra_status, astra_request_id, attempt_id, attempts, created_at, updated_at, key_id, content, person, "
        "email) VALUES (1, x'0000000000004000000000000000000",
        id, "', ", states[i], ", 1, 0, 0, ", created ? "1, 'intent-1', 'pending'" : "0, '', ''",
        ", '', x'00000000000040000000000000000", "10", id, "', 1, 1700000001000000, 1700000001000000, ",
        static_cast<int64_t>(kKey), ", randomblob(32), randomblob(32), ", id, ");");
  }
  char* error = nullptr;
  ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_close(db);
  ASSERT_EQ(::chmod(options_.store.path.c_str(), 0600), 0);

  Open();
  EXPECT_EQ(ledger_->ledger_id(), 1700000000000000u);
  EXPECT_EQ(ledger_->revision(), 0);
  EXPECT_FALSE(Read(0).too_old);
  EXPECT_TRUE(Read(1).too_old);
  for (int id = 1; id <= 4; ++id) {
    const auto found = Ask<TraceAnswer>(
        [&](auto done) { ledger_->Trace({.attempt_id = Id(0x100 + id), .since = At(0)}, pump_, std::move(done)); });
    ASSERT_TRUE(found.by_attempt) << id;
    EXPECT_EQ(found.by_attempt->key.request_id, Id(id));
  }
  EXPECT_EQ(Settle(ProofOf({"one", Id(3)}, "intent-3", 0x103)), SettleVerdict::kSettled);
  EXPECT_EQ(Settle(ProofOf({"one", Id(2)}, "intent-2", 0x102)), SettleVerdict::kConflict);
  EXPECT_THAT(listener_.heard(), ElementsAre(1));
  Reopen();
  EXPECT_EQ(Read(0).changed.size(), 1u);
}

TEST_F(ChangeLogTest, PruningThatIsRolledBackForgetsNothing) {
  Open();
  for (int id = 1; id <= 3; ++id) Run(id);
  EXPECT_FALSE(ledger_
                   ->Administer([](SqliteStore& store) {
                     EXPECT_TRUE(store.PruneLog(1, 100).ok());
                     return absl::CancelledError("no");
                   })
                   .ok());
  EXPECT_EQ(Read(0).changed.size(), 3u);
}

TEST_F(ChangeLogTest, WhatADeadProcessLeftSendingIsAChange) {
  Open();
  ASSERT_TRUE(Begin({}));
  ASSERT_TRUE(Begin({.id = 2, .email = "b@example.com"}));
  Reopen();
  EXPECT_EQ(ledger_->recovered(), 2u);
  EXPECT_EQ(ledger_->revision(), 2);
  const ChangeFeed::Answer answer = Read(0);
  ASSERT_EQ(answer.changed.size(), 2u);
  EXPECT_EQ(answer.changed[0].record.state, State::kUnknown);
}

TEST_F(ChangeLogTest, WhatIsRolledBackWasNeverAChange) {
  Open();
  Run(1, Lost);
  EXPECT_FALSE(ledger_
                   ->Administer([this](SqliteStore& store) {
                     EXPECT_TRUE(Execute(store, AsCreated(key_)).ok());
                     return absl::CancelledError("changed my mind");
                   })
                   .ok());
  EXPECT_EQ(ledger_->revision(), 1);
  EXPECT_EQ(Read(0).changed[0].record.state, State::kUnknown);
  ASSERT_TRUE(
      ledger_->Administer([this](SqliteStore& store) { return Execute(store, AsCreated(key_)).status(); }).ok());
  EXPECT_THAT(listener_.heard(), ElementsAre(1, 2));
  EXPECT_EQ(Read(1).changed[0].record.state, State::kSucceeded);
}

class FailingDiskTest : public ChangeLogTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Disk, FailingDiskTest, testing::Values(SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC));

TEST_P(FailingDiskTest, TellsNothingThatIsNotCommitted) {
  Open();
  Run(1, Lost);
  ASSERT_TRUE(Begin({.id = 2, .email = "b@example.com"}));
  FaultVfs::Get().Fail(GetParam());
  EXPECT_EQ(Settle(ProofOf(key_)), SettleVerdict::kUnavailable);
  EXPECT_FALSE(Finish(Failed({"one", Id(2)})));
  EXPECT_EQ(Settle(ProofOfNone({"one", Id(2)})), SettleVerdict::kStillRuns);
  EXPECT_THAT(listener_.heard(), ElementsAre(1));
  EXPECT_EQ(ledger_->revision(), 1);
  FaultVfs::Get().Heal();
  Until([this] { return Settle(ProofOf(key_)) == SettleVerdict::kSettled; });
  EXPECT_THAT(listener_.heard(), ElementsAre(1, 2, 3));
  const ChangeFeed::Answer answer = Read(1);
  ASSERT_EQ(answer.changed.size(), 2u);
  EXPECT_EQ(answer.changed[0].record.state, State::kFailed);  // what waited for the disk comes first
  EXPECT_EQ(answer.changed[1].record.state, State::kSucceeded);
  Reopen();
  EXPECT_EQ(ledger_->revision(), 3);
}

// Dies around the commit of a proof; what the listener heard by then is what was written to the pipe.
class SettleDeathTest : public ChangeLogTest, public testing::WithParamInterface<const char*> {
 protected:
  static void DieAt(std::string_view point) {
    if (point == dies_at) ::_exit(9);
  }
  class Teller final : public ChangeListener {
   public:
    explicit Teller(int end) : end_(end) {}
    void OnChanges(absl::Span<const Change> changes) override {
      for (const Change& change : changes) {
        const char byte = static_cast<char>('0' + change.revision);
        if (::write(end_, &byte, 1) != 1) ::_exit(1);
      }
    }

   private:
    const int end_;
  };
  static inline std::string dies_at;  // NOLINT: a crash point is a plain function
};
INSTANTIATE_TEST_SUITE_P(Points, SettleDeathTest, testing::Values("before-settle-commit", "settled-not-notified"),
                         [](const auto& each) {
                           return std::string(each.param).find("before") == 0 ? "before" : "after";
                         });

TEST_P(SettleDeathTest, IsAllOrNothing) {
  int ends[2] = {};
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    dies_at = GetParam();
    options_.store.crash_point = DieAt;
    Open();
    Teller teller(ends[1]);
    ledger_->SetListener(&teller);
    Run(1, Lost);
    Settle(ProofOf(key_));
    ::_exit(2);
  }
  ::close(ends[1]);
  std::string heard(10, '\0');
  const ssize_t bytes = ::read(ends[0], heard.data(), heard.size());
  heard.resize(static_cast<size_t>(std::max<ssize_t>(bytes, 0)));
  ::close(ends[0]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 9) << "the point was not reached";
  EXPECT_EQ(heard, "1");
  Open();
  const bool committed = std::string(GetParam()) == "settled-not-notified";
  EXPECT_EQ(ledger_->revision(), committed ? 2 : 1);
  const ChangeFeed::Answer answer = Read(1);  // who was not told reads it
  EXPECT_EQ(answer.changed.size(), committed ? 1u : 0u);
  EXPECT_EQ(Settle(ProofOf(key_)), committed ? SettleVerdict::kSaysSo : SettleVerdict::kSettled);
  EXPECT_EQ(ledger_->revision(), 2);
}

TEST_F(ChangeLogTest, ACopyIsTheSameLedger) {
  Open();
  Run(1);
  const uint64_t id = ledger_->ledger_id();
  BackupOptions copy;
  copy.path = directory_.File("copy.db");
  copy.min_free_bytes = 0;
  ASSERT_TRUE(ledger_->BackUp(copy).ok());
  Run(2);
  ledger_.reset();
  options_.store.path = copy.path;
  Open();
  EXPECT_EQ(ledger_->ledger_id(), id);
  EXPECT_EQ(ledger_->revision(), 1);
  EXPECT_EQ(Read(0).changed.size(), 1u);
}

TEST_F(ChangeLogTest, WhoFollowedALostLedgerBeginsAnewAtARestoredOne) {
  Open();
  Run(1);
  Run(2);
  ledger_.reset();
  const std::string backup = directory_.File("backup.db");
  std::filesystem::copy_file(options_.store.path, backup);
  Open();
  const uint64_t id = ledger_->ledger_id();
  for (int each = 3; each <= 6; ++each) Run(each);  // somebody stands at 5
  ledger_.reset();
  std::filesystem::copy_file(backup, options_.store.path, std::filesystem::copy_options::overwrite_existing);
  options_.restored = absl::Now();
  Open();
  EXPECT_EQ(ledger_->ledger_id(), id);
  const int64_t begun = ledger_->revision();
  for (int each = 13; each <= 18; ++each) Run(each);
  for (int64_t after = 0; after <= 8; ++after) EXPECT_TRUE(Read(after).too_old) << after;
  EXPECT_EQ(ledger_->revision(), begun + 6);
  EXPECT_EQ(Read(begun).changed.size(), 6u);
  EXPECT_EQ(Read(begun + 4).changed.size(), 2u);
  Reopen();
  EXPECT_EQ(ledger_->revision(), begun + 6);
  EXPECT_EQ(Read(begun).changed.size(), 6u);
}

TEST_F(ChangeLogTest, ManyChangesOfOthersAreReadInSlices) {
  Open();
  constexpr int kOthers = 2500;
  int answers = 0;
  for (int id = 1; id <= kOthers; ++id) {
    const Call call{.caller = "two", .id = id, .email = std::to_string(id) + "@example.com"};
    ledger_->Begin(call.request(), pump_, [&, key = call.key_of()](const BeginAnswer&) {
      ledger_->Finish(Failed(key), pump_, [&](const FinishAnswer&) { ++answers; });
    });
  }
  pump_.Until([&] { return answers == kOthers; });
  const Call mine{.id = 1, .email = "mine@example.com"};
  ASSERT_TRUE(Begin(mine));
  ASSERT_TRUE(Finish(Failed(mine.key_of())));
  const ChangeFeed::Answer first = Read(0);
  EXPECT_THAT(first.changed, IsEmpty());
  EXPECT_GT(first.upto, 0);
  EXPECT_LT(first.upto, kOthers);
  const ChangeFeed::Answer second = Read(first.upto);
  EXPECT_EQ(second.changed.size(), 1u);
  EXPECT_EQ(second.upto, kOthers + 1);
}

TEST_F(ChangeLogTest, AConflictIsMarkedOnceForEachClaimAndForEver) {
  Open();
  Run(1, [](const Key& key) { return Succeeded(key); });
  SettleRequest proof = ProofOf(key_, "intent-2");
  proof.action = "settle by webhook";
  proof.evidence = "webhook 1";
  EXPECT_EQ(Settle(proof), SettleVerdict::kConflict);
  proof.evidence = "webhook 2";
  EXPECT_EQ(Settle(proof), SettleVerdict::kConflict);  // the same claim
  EXPECT_EQ(Settle(ProofOf(key_, "intent-3")), SettleVerdict::kConflict);
  EXPECT_EQ(Settle(ProofOfNone(key_)), SettleVerdict::kConflict);
  Reopen();
  const std::vector<Conflict> conflicts = Conflicts();
  ASSERT_EQ(conflicts.size(), 3u);
  EXPECT_EQ(conflicts[0].claimed, State::kFailed);  // the newest first
  EXPECT_EQ(conflicts[0].claimed_intent, "");
  EXPECT_EQ(conflicts[1].claimed_intent, "intent-3");
  const Conflict& first = conflicts[2];
  EXPECT_EQ(first.key, key_);
  EXPECT_EQ(first.attempt_id, Id(1000));
  EXPECT_EQ(first.at, At(20));
  EXPECT_EQ(first.recorded, State::kSucceeded);
  EXPECT_EQ(first.recorded_intent, "intent-1");
  EXPECT_EQ(first.claimed, State::kSucceeded);
  EXPECT_EQ(first.claimed_intent, "intent-2");
  EXPECT_EQ(first.action, "settle by webhook");
  EXPECT_EQ(first.evidence, "webhook 1");
  EXPECT_EQ(Conflicts(1).size(), 1u);
  for (const char* sql : {"UPDATE conflict SET evidence = 'none'", "DELETE FROM conflict",
                          "REPLACE INTO conflict SELECT seq, at, caller, request_id, attempt_id, recorded_state, "
                          "recorded_intent, claimed_state, 'other', action, evidence FROM conflict"}) {
    EXPECT_THAT(Try(sql), HasSubstr("append-only")) << sql;
  }
  EXPECT_EQ(Try("REPLACE INTO conflict SELECT NULL, at, caller, request_id, attempt_id, recorded_state, "
                "recorded_intent, claimed_state, claimed_intent, action, 'other' FROM conflict"),
            "");
  Open();
  EXPECT_EQ(Conflicts().size(), 3u);
  for (const Conflict& conflict : Conflicts()) EXPECT_NE(conflict.evidence, "other");
}

TEST_F(ChangeLogTest, ATraceGoesBackInSlices) {
  Open();
  constexpr int kRows = 2300;
  int answers = 0;
  for (int id = 1; id <= kRows; ++id) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com", .attempt = 10'000 + id, .at = id};
    ledger_->Begin(call.request(), pump_, [&, key = call.key_of(), id](const BeginAnswer&) {
      ledger_->Finish(Succeeded(key, "intent-" + std::to_string(id)), pump_, [&](const FinishAnswer&) { ++answers; });
    });
  }
  pump_.Until([&] { return answers == kRows; });
  const auto trace = [this](int attempt, int64_t since) {
    TraceRequest request{.attempt_id = Id(attempt), .since = At(since)};
    std::pair<TraceAnswer, int> found;
    do {
      found.first = Ask<TraceAnswer>([&](auto done) { ledger_->Trace(request, pump_, std::move(done)); });
      request.cursor = found.first.cursor;
      ++found.second;
    } while (found.first.more);
    return found;
  };
  EXPECT_EQ(trace(10'000 + kRows, 0).second, 1);
  const auto [oldest, slices] = trace(10'001, 0);
  ASSERT_TRUE(oldest.by_attempt);
  EXPECT_EQ(oldest.by_attempt->key.request_id, Id(1));
  EXPECT_EQ(slices, 3);
  const auto [none, until] = trace(10'001, 1500);
  EXPECT_FALSE(none.by_attempt);
  EXPECT_EQ(until, 1);
  EXPECT_FALSE(trace(1, 0).first.by_attempt);

  SucceededRequest request{.since = At(2000)};
  size_t listed = 0;
  int asked = 0;
  for (bool more = true; more; ++asked) {
    const auto answer =
        Ask<SucceededAnswer>([&](auto done) { ledger_->ListSucceeded(request, pump_, std::move(done)); });
    for (const Record& record : answer.records) EXPECT_GE(record.created, At(2000));
    listed += answer.records.size();
    request.cursor = answer.cursor;
    more = answer.more;
  }
  EXPECT_EQ(listed, 301u);
  EXPECT_EQ(asked, 1);  // those that are too old were skipped, not read
}

TEST_F(ChangeLogTest, QuestionsUseAnIndexAndTheUsualWayTouchesNone) {
  Open();
  Run(1, Lost);
  ledger_.reset();
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(options_.store.path.c_str(), &db), SQLITE_OK);
  const auto plan = [db](const std::string& sql) {
    std::string text;
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(db, ("EXPLAIN QUERY PLAN " + sql).c_str(), -1, &statement, nullptr), SQLITE_OK) << sql;
    while (sqlite3_step(statement) == SQLITE_ROW) {
      text += std::string(reinterpret_cast<const char*>(sqlite3_column_text(statement, 3))) + "\n";
    }
    sqlite3_finalize(statement);
    return text;
  };
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"SELECT r.state FROM request r JOIN email e ON e.id = r.email WHERE r.attempt_id = ?1 AND r.state >= 3 "
       "ORDER BY r.id DESC LIMIT 1",
       "USING INDEX request_attempt (attempt_id=?)"},
      {"SELECT r.state FROM request r JOIN email e ON e.id = r.email WHERE r.state IN (1, 4) AND r.state = 1 AND "
       "r.attempt_id = ?1 LIMIT 1",
       "USING INDEX request_open"},
      {"SELECT row FROM intent_key WHERE ending = ?1", "USING PRIMARY KEY (ending=?)"},
      {"SELECT id, created_at, state = 2 AND attempt_id = ?3 FROM request WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
       "USING INTEGER PRIMARY KEY (rowid<?)"},
      {"SELECT id, created_at FROM request WHERE id >= ?1 ORDER BY id LIMIT 1", "USING INTEGER PRIMARY KEY (rowid>?)"},
      {"SELECT revision, request, caller FROM change WHERE revision > ?1 ORDER BY revision LIMIT ?2",
       "USING INTEGER PRIMARY KEY (rowid>?)"},
      {"DELETE FROM change WHERE revision < ?1", "USING INTEGER PRIMARY KEY (rowid<?)"},
  };
  for (const auto& [sql, want] : expected) EXPECT_THAT(plan(sql), HasSubstr(want)) << sql;
  // UNKNOWN has its entry; neither SENDING nor SUCCEEDED has one.
  const auto entries = [db] {
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(db,
                                 "SELECT count(*) FROM request INDEXED BY request_attempt "
                                 "WHERE attempt_id > x'' AND state >= 3",
                                 -1, &statement, nullptr),
              SQLITE_OK);
    EXPECT_EQ(sqlite3_step(statement), SQLITE_ROW);
    const int count = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return count;
  };
  EXPECT_EQ(entries(), 1);
  EXPECT_EQ(sqlite3_exec(db, "UPDATE request SET state = 2", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_EQ(entries(), 0);
  sqlite3_close(db);
}

}  // namespace
}  // namespace userintent::ledger
