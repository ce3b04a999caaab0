// The SQLite ledger's own: files and modes, who is refused, restarts, a failing disk, and dying at every crash point.
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/look_at.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_ledger.h"
#include "tests/unit/ledger/fault_vfs.h"
#include "tests/unit/ledger/old_schemas.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using V = BeginVerdict;

constexpr int kUnknownReason = 19;

class SqliteTest : public testing::Test {
 protected:
  SqliteTest() {
    options_.store.path = directory_.File("data/deep/ledger.db");
    options_.store.key_id = kKey;
    options_.store.merge = EarlyMerges();
    options_.unknown_reason = kUnknownReason;
    options_.retry_first = absl::Milliseconds(5);
    options_.retry_most = absl::Milliseconds(20);
    options_.warn = [this](const std::string& line) {
      const std::lock_guard<std::mutex> lock(lines_mutex_);
      lines_.push_back(line);
    };
  }

  void Open() { ledger_ = Must(SqliteLedger::Open(options_)); }
  void Reopen() {
    ledger_.reset();
    Open();
  }
  std::string Refusal() {
    const auto ledger = SqliteLedger::Open(options_);
    EXPECT_FALSE(ledger.ok());
    const std::string text(ledger.status().message());
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_EQ(text.rfind("ledger ", 0), 0u) << text;
    return text;
  }
  static std::unique_ptr<SqliteLedger> Must(absl::StatusOr<std::unique_ptr<SqliteLedger>> ledger) {
    EXPECT_TRUE(ledger.ok()) << ledger.status();
    return ledger.ok() ? *std::move(ledger) : nullptr;
  }

  BeginAnswer Begin(const Call& call) {
    std::optional<BeginAnswer> answer;
    ledger_->Begin(call.request(), pump_, [&](BeginAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  FinishAnswer Finish(const FinishRequest& request) {
    std::optional<FinishAnswer> answer;
    ledger_->Finish(request, pump_, [&](FinishAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  GetAnswer Get(const Key& key) {
    std::optional<GetAnswer> answer;
    ledger_->Get(key, pump_, [&](GetAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  void UntilWritable(bool writable) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (ledger_->Writable() != writable) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // Changes the closed database behind the ledger's back.
  void Tamper(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(options_.store.path.c_str(), &db), SQLITE_OK);
    char* error = nullptr;
    ASSERT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_close(db);
  }
  static mode_t Mode(const std::string& path) {
    struct stat status {};
    EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
    return status.st_mode & 07777;
  }

  TemporaryDirectory directory_;
  SqliteLedgerOptions options_;
  std::mutex lines_mutex_;
  std::vector<std::string> lines_;
  Pump pump_;
  std::unique_ptr<SqliteLedger> ledger_;
  const Key key_{"one", Id(1)};
};

TEST_F(SqliteTest, FilesArePrivate) {
  const mode_t old = ::umask(0);
  Open();
  Begin({});
  ::umask(old);
  EXPECT_EQ(Mode(directory_.File("data")), 0700u);
  EXPECT_EQ(Mode(directory_.File("data/deep")), 0700u);
  for (const char* end : {"", "-wal", ".lock"}) EXPECT_EQ(Mode(options_.store.path + end), 0600u) << end;
  EXPECT_FALSE(std::filesystem::exists(options_.store.path + "-shm"));
}

TEST_F(SqliteTest, AWiderFileIsMadePrivate) {
  Open();
  ledger_.reset();
  ASSERT_EQ(::chmod(options_.store.path.c_str(), 0644), 0);
  Open();
  EXPECT_EQ(Mode(options_.store.path), 0600u);
}

TEST_F(SqliteTest, SqliteKeepsNoAccountOfItsMemory) {
  Open();
  Begin({});
  EXPECT_EQ(sqlite3_memory_used(), 0) << "it takes a lock for each piece";
}

TEST_F(SqliteTest, NoFieldOfARequestIsInTheFiles) {
  Open();
  Begin({.email = "canary-mail@example.com", .person = "canary-person", .ip = "203.0.113.77"});
  Finish(Unknown(key_));
  std::string all;
  for (const char* end : {"", "-wal"}) {
    std::ifstream in(options_.store.path + end, std::ios::binary);
    all.append(std::istreambuf_iterator<char>(in), {});
  }
  EXPECT_GT(all.size(), 4096u);
  EXPECT_EQ(all.find("canary"), std::string::npos);
  EXPECT_EQ(all.find("203.0.113.77"), std::string::npos);
}

TEST_F(SqliteTest, RowsSurviveARestart) {
  Open();
  Begin({.attempt = 42});
  Finish(Succeeded(key_));
  Begin({.caller = "two", .id = 2, .email = "b@example.com"});
  Begin({.id = 3, .email = "c@example.com"});
  Finish(Released({"one", Id(3)}));
  Reopen();
  EXPECT_EQ(ledger_->recovered(), 1u);
  const BeginAnswer replay = Begin({});
  EXPECT_EQ(replay.verdict, V::kRecorded);
  EXPECT_EQ(replay.own->answer.user_intent_id, "intent-1");
  EXPECT_EQ(replay.own->attempt_id, Id(42));
  const BeginAnswer lost = Begin({.caller = "two", .id = 2, .email = "b@example.com"});
  EXPECT_EQ(lost.verdict, V::kRecorded);
  EXPECT_EQ(lost.own->state, State::kUnknown);
  EXPECT_EQ(lost.own->reason, kUnknownReason);
  EXPECT_EQ(lost.own->sent, Sent::kMaybe);
  EXPECT_EQ(lost.budget.used_max, 1);
  EXPECT_EQ(Begin({.id = 3, .email = "c@example.com"}).verdict, V::kGo);
  Reopen();
  EXPECT_EQ(ledger_->recovered(), 1u);
}

// A repeat, even after a restart, says what the first answer said: to the microsecond, and nothing below it.
TEST_F(SqliteTest, TimesAreToldAsTheyAreKept) {
  Open();
  BeginRequest request = Call{}.request();
  request.now = At(1) + absl::Nanoseconds(1);
  bool begun = false;
  ledger_->Begin(request, pump_, [&](const BeginAnswer&) { begun = true; });
  pump_.Until([&] { return begun; });
  EXPECT_EQ(Get(key_).record->created, At(1));
  ledger_->NextAttempt(key_, Id(2), Sent::kNo, At(2) + absl::Nanoseconds(1), pump_, [&](bool) { begun = false; });
  pump_.Until([&] { return !begun; });
  EXPECT_EQ(Get(key_).record->updated, At(2));
  const FinishAnswer end = Finish(Succeeded(key_));
  EXPECT_EQ(end.record.created, At(1));
  EXPECT_EQ(Get(key_).record->created, At(1));
}

TEST_F(SqliteTest, ASecondLedgerOnTheSameFileIsRefused) {
  Open();
  EXPECT_THAT(Refusal(), HasSubstr("another process uses it"));
  EXPECT_EQ(Begin({}).verdict, V::kGo);  // and the first is not disturbed
  // Also one that does not know of the lock file.
  EXPECT_THAT(std::string(SqliteStore::Open(options_.store).status().message()), HasSubstr("another process uses it"));
  ledger_.reset();
  Open();
}

TEST_F(SqliteTest, ASecondProcessIsRefused) {
  Open();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(SqliteLedger::Open(options_).ok() ? 0 : 77);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 77);
  EXPECT_EQ(Begin({}).verdict, V::kGo);
}

TEST_F(SqliteTest, ANewerSchemaIsRefused) {
  Open();
  ledger_.reset();
  Tamper("PRAGMA user_version = 99");
  EXPECT_THAT(Refusal(), HasSubstr("newer version (schema 99"));
}

TEST_F(SqliteTest, ALedgerIsOfOneEnvironment) {
  Open();  // nobody says of which
  Begin({});
  ledger_.reset();
  const auto look = [this] { return LookAt(options_.store.path, {options_.store.key_id}, options_.store.environment); };
  options_.store.environment = "sandbox";
  EXPECT_TRUE(look().ok()) << look();
  Open();  // of this one, from now on
  ledger_.reset();
  options_.store.environment = "production";
  EXPECT_THAT(std::string(look().message()), StartsWith("is of Astra's sandbox"));
  EXPECT_THAT(Refusal(), HasSubstr("is of Astra's sandbox"));
  for (const char* name : {"", "sandbox"}) {
    options_.store.environment = name;
    EXPECT_TRUE(look().ok()) << look();
    Open();
    EXPECT_NE(Begin({}).verdict, V::kGo) << "the row is there";
    ledger_.reset();
  }
  // Who is refused for the key has not said of which it is.
  options_.store.path = directory_.File("other/ledger.db");
  options_.store.environment = "";
  Open();
  ledger_.reset();
  options_.store.environment = "sandbox";
  const uint64_t key = std::exchange(options_.store.key_id, 99);
  Refusal();
  options_.store.key_id = key;
  options_.store.environment = "production";
  Open();
}

TEST_F(SqliteTest, AnotherProgramsDatabaseIsRefused) {
  std::filesystem::create_directories(directory_.File("data/deep"));
  Tamper("CREATE TABLE t (a)");
  EXPECT_THAT(Refusal(), HasSubstr("some other program's"));
}

TEST_F(SqliteTest, AFileThatIsNoDatabaseIsRefused) {
  std::filesystem::create_directories(directory_.File("data/deep"));
  std::ofstream(options_.store.path) << std::string(8192, 'x');
  EXPECT_THAT(Refusal(), HasSubstr("damaged"));
}

TEST_F(SqliteTest, ADirectoryInItsPlaceIsRefused) {
  std::filesystem::create_directories(options_.store.path);
  Refusal();
  options_.store.path = directory_.File("file/ledger.db");
  std::ofstream(directory_.File("file")) << "x";
  Refusal();
}

TEST_F(SqliteTest, ADamagedPageIsRefused) {
  Open();
  for (int id = 1; id <= 60; ++id) Begin({.id = id, .email = std::to_string(id) + "@example.com"});
  ledger_.reset();
  const auto size = std::filesystem::file_size(options_.store.path);
  int refused = 0;
  for (uint64_t page = 1; page * 4096 < size; ++page) {
    const std::string copy = directory_.File("copy.db");
    std::filesystem::copy_file(options_.store.path, copy, std::filesystem::copy_options::overwrite_existing);
    std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(page * 4096));
    file << std::string(600, '\x5a');
    file.close();
    SqliteLedgerOptions options = options_;
    options.store.path = copy;
    const auto ledger = SqliteLedger::Open(options);
    if (!ledger.ok()) {
      ++refused;
      EXPECT_THAT(std::string(ledger.status().message()), HasSubstr("damaged"));
    }
  }
  EXPECT_GE(refused, static_cast<int>(size / 4096) - 1);
}

TEST_F(SqliteTest, AWrongCounterIsRefused) {
  Open();
  Begin({});
  Begin({.id = 2, .email = "b@example.com"});
  Finish(Succeeded({"one", Id(2)}));
  for (const char* sql :
       {"UPDATE email SET possible = possible + 1 WHERE id = 1", "UPDATE email SET confirmed = 0 WHERE id = 2",
        // The sum over all addresses stays the same.
        "UPDATE email SET possible = 1 - possible",
        // Its key goes with it, so that it is the counter that tells.
        "DELETE FROM request_key WHERE row IN (SELECT id FROM request WHERE email = 1); "
        "DELETE FROM request WHERE email = 1"}) {
    ledger_.reset();
    std::filesystem::copy_file(options_.store.path, directory_.File("keep"),
                               std::filesystem::copy_options::overwrite_existing);
    Tamper(sql);
    EXPECT_THAT(Refusal(), HasSubstr("an attempt counter is not the sum")) << sql;
    std::filesystem::copy_file(directory_.File("keep"), options_.store.path,
                               std::filesystem::copy_options::overwrite_existing);
    Open();
  }
}

// A file that is too large to compare each row with its index.
TEST_F(SqliteTest, AnIndexOfALargeLedgerWithAnotherNumberOfEntriesIsRefused) {
  options_.store.merge = {.begin_at = 2, .at_once = 100, .faster = 0};
  Open();
  for (int id = 1; id <= 5; ++id) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    Begin(call);
    Finish(Succeeded(call.key_of(), "intent-" + std::to_string(id)));
  }
  ledger_.reset();
  const std::string kept = directory_.File("keep");
  std::filesystem::copy_file(options_.store.path, kept);
  for (const int64_t most : {int64_t{0}, options_.store.pages_to_check_whole}) {
    options_.store.pages_to_check_whole = most;
    for (const std::string table : {"request_key", "email_key", "intent_key"}) {
      const std::string others = table == "email_key"    ? "randomblob(32)"
                                 : table == "intent_key" ? "randomblob(8)"
                                                         : "1, randomblob(16)";
      for (const std::string& sql : {absl::StrCat("DELETE FROM ", table, " WHERE row = 1"),
                                     absl::StrCat("INSERT INTO ", table, " VALUES (", others, ", 1)"),
                                     absl::StrCat("INSERT INTO ", table, " VALUES (", others, ", 99)")}) {
        Tamper(sql);
        EXPECT_THAT(Refusal(), HasSubstr("is damaged (the index " + table + " does not fit its rows)")) << sql;
        std::filesystem::copy_file(kept, options_.store.path, std::filesystem::copy_options::overwrite_existing);
      }
    }
    Reopen();
    ledger_.reset();
  }
}

// Two rows with one key: nothing more is begun, and the process is told to end.
TEST_F(SqliteTest, ABrokenIndexStopsTheStore) {
  std::vector<std::string> said;
  options_.store.path = directory_.File("ledger.db");
  options_.store.merge = {.begin_at = 2, .at_once = 10, .faster = 0};
  options_.store.on_broken = [&said](const std::string& why) { said.push_back(why); };
  const std::unique_ptr<SqliteStore> store = SqliteStore::Open(options_.store).value();
  ASSERT_TRUE(store->Start().ok());
  ASSERT_TRUE(Execute(*store, Call().request()).ok());
  ASSERT_TRUE(store->Commit().ok());
  Row again = store->WithId(Id(1)).value().front();
  again.handle = 0;
  Changes changes;
  changes.rows.emplace_back(std::move(again), RowChange::Part::kWhole);
  ASSERT_TRUE(store->Start().ok());
  ASSERT_TRUE(store->Apply(std::move(changes)).ok());
  ASSERT_TRUE(store->Commit().ok());
  ASSERT_TRUE(store->Start().ok());
  ASSERT_TRUE(store->Touch().ok());
  EXPECT_TRUE(absl::IsDataLoss(store->Commit())) << "the merge meets both";
  store->Rollback();
  EXPECT_THAT(said, testing::IsEmpty());
  const absl::Status start = store->Start();
  EXPECT_TRUE(absl::IsDataLoss(start)) << start;
  EXPECT_THAT(said, testing::ElementsAre("two requests of a caller have one id (request_key)"));
  EXPECT_TRUE(absl::IsDataLoss(store->Start()));
}

TEST_F(SqliteTest, AnotherKeyIsRefused) {
  Open();
  Begin({});
  ledger_.reset();
  options_.store.key_id = 5;
  EXPECT_THAT(Refusal(), HasSubstr("another key"));
  options_.store.previous_key_ids = {6};
  EXPECT_THAT(Refusal(), HasSubstr("another key"));
}

TEST_F(SqliteTest, AKeyRotates) {
  options_.store.key_id = kOldKey;
  Open();
  Begin({.key = kOldKey});
  Finish(Succeeded(key_));
  Begin({.id = 2, .email = "b@example.com", .key = kOldKey});
  Finish(Unknown({"one", Id(2)}));

  options_.store.key_id = kKey;
  options_.store.previous_key_ids = {kOldKey};
  Reopen();
  Reopen();
  EXPECT_EQ(Begin({.previous = {kOldKey}}).verdict, V::kRecorded);

  // A row is left under the old key: without it the ledger does not start, and with another one neither.
  ledger_.reset();
  options_.store.previous_key_ids.clear();
  EXPECT_THAT(Refusal(), HasSubstr("older key"));
  options_.store.key_id = 123;
  options_.store.previous_key_ids = {kKey};
  EXPECT_THAT(Refusal(), HasSubstr("older key"));

  options_.store.key_id = kKey;
  options_.store.previous_key_ids = {kOldKey};
  Open();
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com", .previous = {kOldKey}}).verdict, V::kRecorded);
  // Now all have moved.
  options_.store.previous_key_ids.clear();
  Reopen();
  EXPECT_EQ(Begin({}).verdict, V::kRecorded);
  EXPECT_EQ(Begin({.id = 3, .email = "b@example.com"}).unresolved, Id(2));
}

// Key 1, 2, 3: rows stay under each as long as nobody shows them, and each rotation needs all keys that have some.
TEST_F(SqliteTest, AKeyRotatesAgainWhileRowsAreUnderTheOneBefore) {
  constexpr uint64_t kThird = 0x1234567800000001;
  options_.store.key_id = kOldestKey;
  Open();
  for (int id = 1; id <= 3; ++id) {
    Begin({.id = id, .email = absl::StrCat(id, "@example.com"), .key = kOldestKey});
    Finish(Succeeded({"one", Id(id)}));
  }
  options_.store.key_id = kOldKey;
  options_.store.previous_key_ids = {kOldestKey};
  Reopen();
  Begin({.id = 4, .email = "4@example.com", .key = kOldKey, .previous = {kOldestKey}});
  Finish(Unknown({"one", Id(4)}));

  options_.store.key_id = kThird;
  options_.store.previous_key_ids = {kOldKey};
  ledger_.reset();
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("3 rows under the older key 00000000"), HasSubstr("give it")));
  options_.store.previous_key_ids = {kOldestKey};
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("another key (00000000, 1 rows"), HasSubstr("know nobody")));
  options_.store.previous_key_ids = {kOldKey, kOldestKey};
  Open();
  EXPECT_TRUE(ledger_->needs_key(kOldKey));
  EXPECT_TRUE(ledger_->needs_key(kOldestKey));
  const std::vector<uint64_t> previous = {kOldKey, kOldestKey};
  EXPECT_EQ(Begin({.id = 1, .email = "1@example.com", .key = kThird, .previous = previous}).verdict, V::kRecorded);
  EXPECT_EQ(Begin({.id = 9, .email = "2@example.com", .key = kThird, .previous = previous}).verdict, V::kPersonExists);
  EXPECT_EQ(Begin({.id = 9, .email = "4@example.com", .key = kThird, .previous = previous}).unresolved, Id(4));
  EXPECT_EQ(Begin({.id = 4, .email = "4@example.com", .key = kThird, .previous = previous}).verdict, V::kRecorded);

  Totals totals;
  std::vector<LedgerKey> keys;
  EXPECT_TRUE(ledger_
                  ->Administer([&](SqliteStore& store) {
                    while (!totals.done) EXPECT_TRUE(store.Add(3, 2, totals).ok());
                    keys = store.Keys().value();
                    return absl::OkStatus();
                  })
                  .ok());
  EXPECT_EQ(totals.requests_by_key, (std::map<uint64_t, int64_t>{{kThird, 2}, {kOldestKey, 2}}));
  ASSERT_EQ(keys.size(), 3u);
  EXPECT_EQ(keys[0].id, kThird);
  EXPECT_FALSE(keys[0].until);
  EXPECT_EQ(keys[1].id, kOldKey);
  EXPECT_EQ(keys[2].id, kOldestKey);

  // The key in the middle has nothing left: it is not looked for, and may be dropped before the older one.
  Reopen();
  EXPECT_FALSE(ledger_->needs_key(kOldKey));
  EXPECT_TRUE(ledger_->needs_key(kOldestKey));
  options_.store.previous_key_ids = {kOldestKey};
  Reopen();
  EXPECT_EQ(Begin({.id = 3, .email = "3@example.com", .key = kThird, .previous = {kOldestKey}}).verdict, V::kRecorded);
  options_.store.previous_key_ids.clear();
  ledger_.reset();
  EXPECT_THAT(Refusal(), HasSubstr("1 rows under the older key"));
}

TEST_F(SqliteTest, AKeyIsCalledByTheStartOfItsId) {
  EXPECT_EQ(KeyName(0x1234567800000001), "12345678");
  EXPECT_EQ(KeyName(7), "00000000");
}

TEST(NetworkFileSystemTest, IsKnownByItsNumber) {
  EXPECT_STREQ(NetworkFileSystem(0x6969), "NFS");
  EXPECT_STREQ(NetworkFileSystem(0xff534d42), "CIFS");
  EXPECT_STREQ(NetworkFileSystem(0x65735546), "FUSE");
  for (const uint64_t local : {0xef53u, 0x58465342u, 0x9123683eu, 0x794c7630u, 0x01021994u}) {
    EXPECT_EQ(NetworkFileSystem(local), nullptr);
  }
}

TEST_F(SqliteTest, TooLittleSpaceStopsOnlyWhatIsNew) {
  Open();
  Begin({});
  Finish(Succeeded(key_));
  ledger_.reset();
  options_.min_free_bytes = INT64_MAX;
  Open();
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com"}).verdict, V::kUnavailable);
  EXPECT_EQ(Begin({}).verdict, V::kRecorded);
  UntilWritable(false);
}

// --- schema 2, and what operators do ---

class AdminTest : public SqliteTest {
 protected:
  absl::Status Administer(const std::function<absl::Status(SqliteStore&)>& work) { return ledger_->Administer(work); }
  absl::StatusOr<ResolveAnswer> Resolve(const ResolveRequest& request) {
    absl::StatusOr<ResolveAnswer> answer = absl::UnknownError("did not run");
    const absl::Status status = Administer([&](SqliteStore& store) {
      answer = Execute(store, request);
      return answer.status();
    });
    if (!status.ok()) return status;
    return answer;
  }
  std::vector<AuditEntry> Audit(const std::optional<Uuid>& id = std::nullopt, size_t limit = 100) {
    std::vector<AuditEntry> entries;
    EXPECT_TRUE(Administer([&](SqliteStore& store) {
                  entries = store.Audit(id, limit).value();
                  return absl::OkStatus();
                }).ok());
    return entries;
  }
  void Lose(int id, int64_t at = 0, const std::string& caller = "one") {
    const Call call{.caller = caller, .id = id, .email = std::to_string(id) + caller + "@example.com", .at = at};
    ASSERT_EQ(Begin(call).verdict, V::kGo);
    Finish(Unknown(call.key_of()));
  }
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
};

class OldSchemaTest : public AdminTest, public testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(Sqlite, OldSchemaTest, testing::ValuesIn(WaysBack()),
                         [](const auto& each) { return std::to_string(each.index + 1) + "_back"; });

TEST_P(OldSchemaTest, IsBroughtUpToDate) {
  Open();
  Begin({});
  Finish(Succeeded(key_));
  Lose(2);
  ledger_.reset();
  const std::string copy = CopyBeforeMigrationPath(options_.store.path);
  EXPECT_FALSE(std::filesystem::exists(copy));
  Tamper(GetParam());
  std::filesystem::remove(MarkPath(options_.store.path));  // there was none then
  { std::ofstream(copy) << "of a start that was cut off"; }
  Open();
  // As it was, whole.
  SqliteStoreOptions as_it_was;
  as_it_was.path = copy;
  as_it_was.for_operator = as_it_was.inspect = true;
  const auto kept = SqliteStore::Open(as_it_was);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_LT((*kept)->schema_version(), 9);
  EXPECT_FALSE(std::filesystem::exists(copy + ".2"));
  EXPECT_EQ(ledger_->rows(), 2);
  EXPECT_EQ(Begin({}).verdict, V::kRecorded);
  EXPECT_TRUE(Resolve(AsCreated({"one", Id(2)}))->changed);
  Reopen();
  EXPECT_EQ(Audit().size(), 1u);
  EXPECT_EQ(Begin({.id = 3}).verdict, V::kPersonExists);
  // Of an older row the answer to its creation is the latest reading, until there is another.
  Record old = *Get(key_).record;
  EXPECT_EQ(old.verification_type, 0);
  EXPECT_EQ(old.latest.astra_status, "pending");
  EXPECT_EQ(old.latest.read_at, At(5));
  EXPECT_EQ(old.latest.status_since, At(5));
  ledger_->RecordReading(key_, Said("converted", 9, "user-1"), pump_, nullptr);
  Reopen();
  std::optional<GetAnswer> found;
  ledger_->FindIntent("one", "intent-1", pump_, [&](GetAnswer got) { found = std::move(got); });
  pump_.Until([&] { return found.has_value(); });
  ASSERT_TRUE(found->record);
  EXPECT_EQ(found->record->latest.astra_status, "converted");
  EXPECT_EQ(found->record->latest.user_id, "user-1");
  EXPECT_EQ(found->record->latest.status_since, At(9));
}

// What was kept before is not lost to another ledger that is brought up to date at the same place.
TEST_F(AdminTest, AKeptCopyIsNotReplacedByAnotherOne) {
  Open();
  Begin({});
  ledger_.reset();
  Tamper(kBackToSchema8);
  Open();
  Lose(2);
  ledger_.reset();
  Tamper(kBackToSchema8);
  Open();
  const std::string copy = CopyBeforeMigrationPath(options_.store.path);
  const auto rows = [](const std::string& path) {
    SqliteStoreOptions kept;
    kept.path = path;
    kept.for_operator = kept.inspect = true;
    const auto store = SqliteStore::Open(kept);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? (*store)->rows() : -1;
  };
  EXPECT_EQ(rows(copy), 1);
  EXPECT_EQ(rows(copy + ".2"), 2);
}

TEST_F(AdminTest, AResolvedRowAndItsEntrySurviveARestart) {
  Open();
  Lose(1);
  Lose(2);
  ResolveRequest request = AsCreated({"one", Id(1)});
  request.actor = "operator 7";
  request.evidence = "ticket 12";
  EXPECT_TRUE(Resolve(request)->changed);
  EXPECT_FALSE(Resolve(request)->changed);
  EXPECT_TRUE(absl::IsFailedPrecondition(Resolve(AsNotCreated({"one", Id(1)})).status()));
  EXPECT_TRUE(Resolve(AsNotCreated({"one", Id(2)}))->changed);
  Reopen();
  const std::vector<AuditEntry> all = Audit();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].key.request_id, Id(2));  // the newest first
  EXPECT_EQ(all[0].seq, 2);
  EXPECT_EQ(all[0].to, State::kFailed);
  const std::vector<AuditEntry> one = Audit(Id(1));
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].seq, 1);
  EXPECT_EQ(one[0].at, At(20));
  EXPECT_EQ(one[0].actor, "operator 7");
  EXPECT_EQ(one[0].action, "resolve as created");
  EXPECT_EQ(one[0].key, (Key{"one", Id(1)}));
  EXPECT_EQ(one[0].from, State::kUnknown);
  EXPECT_EQ(one[0].to, State::kSucceeded);
  EXPECT_EQ(one[0].evidence, "ticket 12");
  EXPECT_EQ(Audit(std::nullopt, 1).size(), 1u);
  EXPECT_EQ(Get({"one", Id(1)}).record->answer.user_intent_id, "intent-9");
}

TEST_F(AdminTest, TheAuditTableOnlyGrows) {
  Open();
  Lose(1);
  EXPECT_TRUE(Resolve(AsCreated({"one", Id(1)})).ok());
  for (const char* sql :
       {"UPDATE audit SET evidence = 'none'", "UPDATE audit SET seq = 7", "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT seq, at, 'another', action, caller, request_id, from_state, to_state, "
        "evidence FROM audit",
        "REPLACE INTO audit SELECT * FROM audit",
        "INSERT INTO audit SELECT * FROM audit WHERE true ON CONFLICT (seq) DO UPDATE SET actor = 'another'"}) {
    EXPECT_THAT(Try(sql), HasSubstr("append-only")) << sql;
  }
  EXPECT_EQ(Try("INSERT INTO audit SELECT NULL, at, actor, action, caller, request_id, 4, 2, evidence FROM audit"), "");
  Open();
  ASSERT_EQ(Audit().size(), 2u);
  EXPECT_EQ(Audit()[1].actor, "operator");
}

TEST_F(AdminTest, AFailedPieceOfWorkLeavesNothingAndHarmsNobody) {
  Open();
  Lose(1);
  const absl::Status status = Administer([](SqliteStore& store) {
    EXPECT_TRUE(Execute(store, AsCreated({"one", Id(1)})).ok());
    EXPECT_EQ(store.Audit(std::nullopt, 10)->size(), 1u);
    return absl::CancelledError("changed my mind");
  });
  EXPECT_EQ(status.message(), "changed my mind");
  EXPECT_EQ(Audit().size(), 0u);
  EXPECT_EQ(Get({"one", Id(1)}).record->state, State::kUnknown);
  EXPECT_TRUE(ledger_->Writable());
}

TEST_F(AdminTest, TheOldestUnresolvedComeFirst) {
  Open();
  Lose(3, 30);
  Lose(1, 10);
  Lose(2, 20, "two");
  Begin({.id = 4, .email = "3one@example.com", .supersedes = 3, .at = 40});
  Begin({.id = 5, .email = "5@example.com", .at = 5});
  const auto ids = [this](State state, absl::Time before, bool not_superseded, size_t limit) {
    std::vector<int> found;
    EXPECT_TRUE(Administer([&](SqliteStore& store) {
                  const std::vector<Row> rows = store.Oldest(state, before, not_superseded, limit).value();
                  for (const Row& row : rows) {
                    found.push_back(row.record.key.request_id[15]);
                  }
                  return absl::OkStatus();
                }).ok());
    return found;
  };
  EXPECT_THAT(ids(State::kUnknown, absl::InfiniteFuture(), false, 10), testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(ids(State::kUnknown, absl::InfiniteFuture(), true, 10), testing::ElementsAre(1, 2));
  EXPECT_THAT(ids(State::kUnknown, absl::InfiniteFuture(), false, 2), testing::ElementsAre(1, 2));
  EXPECT_THAT(ids(State::kUnknown, At(20), false, 10), testing::ElementsAre(1));
  EXPECT_THAT(ids(State::kSending, absl::InfiniteFuture(), false, 10), testing::ElementsAre(5, 4));
}

TEST_F(AdminTest, OneIdOfManyCallers) {
  Open();
  Lose(1, 0, "one");
  Lose(1, 0, "two");
  Lose(2, 0, "one");
  EXPECT_TRUE(Administer([&](SqliteStore& store) {
                EXPECT_EQ(store.WithId(Id(1))->size(), 2u);
                EXPECT_EQ(store.WithId(Id(9))->size(), 0u);
                return absl::OkStatus();
              }).ok());
}

TEST_F(AdminTest, TotalsAreTheSameInEverySlice) {
  Open();
  for (int id = 1; id <= 20; ++id) {
    const Call call{
        .id = id, .email = std::to_string(id % 4) + "@example.com", .person = std::to_string(id), .limit = 0};
    ASSERT_EQ(Begin(call).verdict, V::kGo);
    Finish(id % 4 == 1 ? Failed(call.key_of()) : Succeeded(call.key_of()));
  }
  Lose(30);
  for (const int64_t slice : {1, 3, 7, 100}) {
    Totals totals;
    while (!totals.done) {
      ASSERT_TRUE(Administer([&](SqliteStore& store) { return store.Add(3, slice, totals); }).ok());
    }
    EXPECT_EQ(totals.requests[static_cast<size_t>(State::kSucceeded)], 15);
    EXPECT_EQ(totals.requests[static_cast<size_t>(State::kFailed)], 5);
    EXPECT_EQ(totals.requests[static_cast<size_t>(State::kUnknown)], 1);
    EXPECT_EQ(totals.addresses, 5);
    EXPECT_EQ(totals.addresses_at_limit, 3);
  }
}

// No question of an operator reads a whole table, but for a slice of the totals.
TEST_F(AdminTest, QuestionsUseAnIndex) {
  Open();
  Lose(1);
  ledger_.reset();
  // What the store really runs, by SQLite's own trace.
  static std::vector<std::string> statements;
  const auto trace = [](sqlite3* on, char**, const sqlite3_api_routines*) {
    return sqlite3_trace_v2(
        on, SQLITE_TRACE_STMT,
        [](unsigned, void*, void* statement, void*) {
          statements.emplace_back(sqlite3_sql(static_cast<sqlite3_stmt*>(statement)));
          return 0;
        },
        nullptr);
  };
  const auto entry = reinterpret_cast<void (*)()>(+trace);
  ASSERT_EQ(sqlite3_auto_extension(entry), SQLITE_OK);
  {
    const auto store = SqliteStore::Open(options_.store).value();
    sqlite3_cancel_auto_extension(entry);
    statements.clear();
    ASSERT_TRUE(store->Start().ok());
    EXPECT_TRUE(store->WithId(Id(1)).ok());
    EXPECT_TRUE(store->Oldest(State::kUnknown, At(9), true, 5).ok());
    EXPECT_TRUE(store->Oldest(State::kSending, At(9), false, 5).ok());
    EXPECT_TRUE(store->Audit(Id(1), 5).ok());
    EXPECT_TRUE(store->NextOldRows(At(9), 5).ok());
    const BeginRequest known = Call{.email = "1one@example.com"}.request();
    Lookup lookup = LookupFor(known);
    lookup.open_if = nullptr;
    EXPECT_EQ(store->Load(lookup).value().open.size(), 1u);
    EXPECT_FALSE(Execute(*store, GetRequest{known.key, "intent-1"}).value().record);
    Totals totals;
    EXPECT_TRUE(store->Add(3, 5, totals).ok());
    store->Rollback();
  }
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(options_.store.path.c_str(), &db), SQLITE_OK);
  int looked = 0;
  for (const std::string& sql : statements) {
    if (sql.rfind("SELECT", 0) != 0) continue;
    sqlite3_stmt* plan = nullptr;
    ASSERT_EQ(sqlite3_prepare_v2(db, ("EXPLAIN QUERY PLAN " + sql).c_str(), -1, &plan, nullptr), SQLITE_OK) << sql;
    while (sqlite3_step(plan) == SQLITE_ROW) {
      const std::string step = reinterpret_cast<const char*>(sqlite3_column_text(plan, 3));
      // Allowed: the callers, who are few; the open rows, in their index; the rows of a slice, already taken.
      const bool scan = step.rfind("SCAN", 0) == 0 && step.find("request_open") == std::string::npos &&
                        step.find("caller") == std::string::npos && step.find("subquery") == std::string::npos;
      EXPECT_FALSE(scan) << step << " in " << sql;
    }
    sqlite3_finalize(plan);
    ++looked;
  }
  sqlite3_close(db);
  EXPECT_EQ(looked, 12);
}

TEST_F(AdminTest, AnOperatorNeedsNoKeyAndMakesNothing) {
  Open();
  Lose(1);
  Begin({.id = 2, .email = "b@example.com"});
  ledger_.reset();
  SqliteStoreOptions options;
  options.path = options_.store.path;
  options.for_operator = true;
  {
    auto store = SqliteStore::Open(options).value();
    EXPECT_EQ(RecoverAll(*store, options, kUnknownReason).value(), 1u);
    ASSERT_TRUE(store->Start().ok());
    EXPECT_TRUE(Execute(*store, AsNotCreated({"one", Id(2)}))->changed);
    ASSERT_TRUE(store->Commit().ok());
  }
  Open();  // still with its key
  EXPECT_EQ(ledger_->recovered(), 0u);
  EXPECT_EQ(Get({"one", Id(2)}).record->state, State::kFailed);

  options.path = directory_.File("none.db");
  EXPECT_FALSE(SqliteStore::Open(options).ok());
  EXPECT_FALSE(std::filesystem::exists(options.path));
  std::ofstream(options.path).flush();
  EXPECT_THAT(std::string(SqliteStore::Open(options).status().message()), HasSubstr("some other program's"));
}

// --- forgetting ---

std::atomic<int64_t> g_now{0};  // NOLINT: the clock of a ledger is a plain function; microseconds

void SetNow(absl::Time now) { g_now = absl::ToUnixMicros(now); }

class RetentionTest : public AdminTest {
 protected:
  RetentionTest() {
    SetNow(At(0));
    options_.store.now = [] { return absl::FromUnixMicros(g_now); };
    options_.retention = absl::Hours(9504);
    options_.purge_at_once = 4;
    options_.purge_interval = options_.purge_pause = absl::Milliseconds(1);
    options_.on_purge = [this](size_t rows) { purged_ += rows; };
  }
  std::atomic<size_t> purged_{0};
};

TEST_F(RetentionTest, WhatEndedLongAgoIsForgottenByItself) {
  Open();
  for (int id = 1; id <= 10; ++id) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    Begin(call);
    Finish(id == 10 ? Unknown(call.key_of()) : Succeeded(call.key_of()));
  }
  ledger_.reset();
  EXPECT_EQ(purged_, 0u);
  SetNow(At(5) + options_.retention + absl::Microseconds(1));
  Open();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (purged_ < 9 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(purged_, 9u);
  EXPECT_FALSE(Get(key_).record);
  EXPECT_EQ(Get({"one", Id(10)}).record->state, State::kUnknown);
  // The counters are exact over a restart, and hold what is forgotten.
  Reopen();
  const BeginAnswer again = Begin({.email = "1@example.com"});
  EXPECT_EQ(again.verdict, V::kGo);
  EXPECT_EQ(again.budget.used_min, 1);
  Reopen();
  ledger_.reset();
  Tamper("UPDATE email SET purged_confirmed = 0 WHERE id = 2");
  EXPECT_THAT(Refusal(), HasSubstr("an attempt counter is not the sum"));
}

TEST_F(RetentionTest, WhatWasReleasedLongAgoIsForgottenByItself) {
  options_.retention = absl::ZeroDuration();
  options_.released_retention = absl::Hours(720);
  Open();
  for (int id = 1; id <= 10; ++id) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    Begin(call);
    Finish(id > 8 ? Succeeded(call.key_of()) : Released(call.key_of()));
  }
  SetNow(At(5) + options_.released_retention);  // not a moment too early
  Reopen();
  for (int i = 0; i < 50; ++i) Get(key_);
  EXPECT_EQ(purged_, 0u);
  ledger_.reset();
  ++g_now;
  Open();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (purged_ < 8 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(purged_, 8u);
  EXPECT_FALSE(Get(key_).record);
  EXPECT_TRUE(Get({"one", Id(9)}).record);
  Reopen();  // counters are checked at the start
  EXPECT_EQ(Begin({.email = "1@example.com"}).verdict, V::kGo);
}

TEST_F(RetentionTest, ForgottenAttemptsMoveToANewKey) {
  options_.retention = absl::ZeroDuration();
  options_.store.key_id = kOldKey;
  Open();
  Begin({.key = kOldKey});
  Finish(Succeeded(key_));
  EXPECT_TRUE(Administer([](SqliteStore& store) { return Execute(store, PurgeRequest{At(100), 10}).status(); }).ok());
  options_.store.key_id = kKey;
  options_.store.previous_key_ids = {kOldKey};
  Reopen();
  Begin({.id = 3, .person = "bob"});  // somebody forgot to say the previous key: the address is known under both
  Finish(Failed({"one", Id(3)}));
  const BeginAnswer merged = Begin({.previous = {kOldKey}});
  EXPECT_EQ(merged.verdict, V::kGo);
  EXPECT_EQ(merged.budget.used_min, 1);
  EXPECT_EQ(merged.budget.used_max, 3);
  Reopen();  // counters are checked at the start
}

// All that is left under the old key are attempts, which belong to no request any more.
TEST_F(RetentionTest, AKeyOfForgottenAttemptsIsStillLookedFor) {
  options_.retention = absl::ZeroDuration();
  options_.store.key_id = kOldKey;
  Open();
  Begin({.key = kOldKey});
  Finish(Succeeded(key_));
  options_.store.key_id = kKey;
  options_.store.previous_key_ids = {kOldKey};
  Reopen();
  EXPECT_TRUE(ledger_->needs_key(kOldKey));
  EXPECT_TRUE(Administer([](SqliteStore& store) { return Execute(store, PurgeRequest{At(100), 10}).status(); }).ok());
  Reopen();
  EXPECT_TRUE(ledger_->needs_key(kOldKey));
  EXPECT_EQ(Begin({.id = 2, .person = "bob", .previous = {kOldKey}}).budget.used_min, 1);
}

TEST_F(RetentionTest, NothingIsForgottenWithoutARetention) {
  options_.retention = absl::ZeroDuration();
  Open();
  Begin({});
  Finish(Succeeded(key_));
  SetNow(At(1'000'000'000));
  Reopen();
  for (int i = 0; i < 50; ++i) Get(key_);
  EXPECT_TRUE(Get(key_).record);
  EXPECT_EQ(purged_, 0u);
}

// --- a failing disk ---

class DiskTest : public SqliteTest {
 protected:
  DiskTest() {
    vfs_.Heal();
    options_.store.vfs = vfs_.name();
  }
  ~DiskTest() override {
    vfs_.Heal();
    vfs_.hangs = false;
    ledger_.reset();
  }
  FaultVfs& vfs_ = FaultVfs::Get();
};

TEST_F(DiskTest, ACallIsTwoSyncs) {
  Open();
  Begin({});
  Finish(Succeeded(key_));
  const int64_t before = vfs_.syncs;
  Begin({.id = 2, .email = "b@example.com"});
  EXPECT_EQ(vfs_.syncs, before + 1);
  Finish(Succeeded({"one", Id(2)}));
  EXPECT_EQ(vfs_.syncs, before + 2);
  Begin({});
  Get(key_);
  EXPECT_EQ(vfs_.syncs, before + 2);  // a replay costs none
}

// A disk that neither does nor refuses: who looks after the gateway must see it.
TEST_F(DiskTest, ACommitThatHangsIsNotServed) {
  options_.hangs_after = absl::Milliseconds(100);
  Open();
  EXPECT_TRUE(ledger_->Writable());
  vfs_.hangs = true;
  std::optional<BeginAnswer> answer;
  ledger_->Begin(Call().request(), pump_, [&](BeginAnswer got) { answer = std::move(got); });
  UntilWritable(false);
  EXPECT_FALSE(answer);
  vfs_.hangs = false;
  pump_.Until([&] { return answer.has_value(); });
  EXPECT_EQ(answer->verdict, V::kGo);
  UntilWritable(true);
}

TEST_F(DiskTest, WhatWaitsSharesASync) {
  Open();
  Begin({});
  const int64_t before = vfs_.syncs;
  int answers = 0;
  constexpr int kCalls = 500;
  for (int id = 10; id < 10 + kCalls; ++id) {
    ledger_->Begin(Call{.id = id, .email = std::to_string(id) + "@example.com"}.request(), pump_,
                   [&](BeginAnswer answer) {
                     EXPECT_EQ(answer.verdict, V::kGo);
                     ++answers;
                   });
  }
  pump_.Until([&] { return answers == kCalls; });
  EXPECT_LT(vfs_.syncs - before, kCalls / 2);
}

class DiskFailureTest : public DiskTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Disk, DiskFailureTest, testing::Values(SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC));

TEST_P(DiskFailureTest, ABeginIsRefusedAndTheLedgerComesBackByItself) {
  Open();
  Begin({});
  Finish(Succeeded(key_));
  vfs_.Fail(GetParam());
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com"}).verdict, V::kUnavailable);
  UntilWritable(false);
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com"}).verdict, V::kUnavailable);
  EXPECT_EQ(Begin({}).verdict, V::kRecorded);
  EXPECT_EQ(Begin({.id = 3}).verdict, V::kPersonExists);
  vfs_.Heal();
  UntilWritable(true);
  EXPECT_FALSE(Get({"one", Id(2)}).record);
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com"}).verdict, V::kGo);
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_THAT(lines_[0], HasSubstr("nothing new starts"));
  EXPECT_THAT(lines_[1], HasSubstr("can be written again"));
}

TEST_P(DiskFailureTest, AnOperatorIsToldToComeBack) {
  Open();
  Begin({});
  Finish(Unknown(key_));
  const auto resolve = [this] {
    return ledger_->Administer([this](SqliteStore& store) { return Execute(store, AsCreated(key_)).status(); });
  };
  vfs_.Fail(GetParam());
  EXPECT_FALSE(resolve().ok());
  EXPECT_EQ(Begin({.id = 2, .email = "b@example.com"}).verdict, V::kUnavailable);
  UntilWritable(false);
  EXPECT_TRUE(absl::IsUnavailable(resolve()));
  EXPECT_EQ(Get(key_).record->state, State::kUnknown);
  vfs_.Heal();
  UntilWritable(true);
  EXPECT_TRUE(resolve().ok());
  EXPECT_EQ(Get(key_).record->state, State::kSucceeded);
}

TEST_P(DiskFailureTest, AnOutcomeWaitsForTheDisk) {
  Open();
  Begin({});
  std::optional<BeginAnswer> join;
  ledger_->Begin(Call{}.request(), pump_, [&](BeginAnswer got) { join = std::move(got); });
  Get(key_);
  vfs_.Fail(GetParam());
  const FinishAnswer end = Finish(Succeeded(key_));
  EXPECT_FALSE(end.committed);
  EXPECT_EQ(end.record.state, State::kUnknown);
  EXPECT_EQ(end.record.reason, kUnknownReason);
  UntilWritable(false);
  pump_.Until([&] { return join.has_value(); });
  for (const BeginAnswer& answer : {*join, Begin({})}) {
    EXPECT_EQ(answer.verdict, V::kRecorded);
    EXPECT_EQ(answer.own->state, State::kUnknown);
    EXPECT_EQ(answer.own->reason, kUnknownReason);
    EXPECT_EQ(answer.budget.used_max, 1);
  }
  EXPECT_EQ(Get(key_).record->state, State::kUnknown);
  EXPECT_EQ(Begin({.id = 2}).verdict, V::kEmailBusy);
  vfs_.Heal();
  UntilWritable(true);
  const BeginAnswer replay = Begin({});
  EXPECT_EQ(replay.own->state, State::kSucceeded);
  EXPECT_EQ(replay.own->answer.user_intent_id, "intent-1");
  EXPECT_EQ(replay.budget.used_min, 1);
  Reopen();
  EXPECT_EQ(Begin({}).own->state, State::kSucceeded);
}

TEST_P(DiskFailureTest, AnOutcomeThatNeverReachedTheDiskIsUnknown) {
  Open();
  Begin({});
  vfs_.Fail(GetParam());
  EXPECT_FALSE(Finish(Succeeded(key_)).committed);
  ledger_.reset();
  vfs_.Heal();
  Open();
  // A write that failed in the sync alone may have arrived after all; then the outcome is simply known.
  const bool arrived = GetParam() == SQLITE_IOERR_FSYNC && ledger_->recovered() == 0;
  EXPECT_EQ(ledger_->recovered(), arrived ? 0u : 1u);
  EXPECT_EQ(Begin({}).own->state, arrived ? State::kSucceeded : State::kUnknown);
  EXPECT_THAT(lines_.back(), HasSubstr("1 outcomes could not be written"));
}

// The disk begins to fail at each write and sync of a short life, and heals at its end.
TEST_P(DiskFailureTest, WhatIsAnsweredIsThereWhereverItBegins) {
  options_.store.long_log_pages = 8;
  bool failed = true;
  int places = 0;
  for (int64_t after = 0; failed; ++after) {
    SCOPED_TRACE(after);
    options_.store.path = directory_.File(std::to_string(after) + ".db");
    Open();
    const int64_t failures = vfs_.failures;
    vfs_.Fail(GetParam(), after);
    std::map<int, State> promised;
    for (int id = 1; id <= 4; ++id) {
      const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
      if (Begin(call).verdict != V::kGo) continue;
      promised[id] = State::kUnknown;
      if (id == 4) break;
      const FinishRequest outcomes[] = {Succeeded(call.key_of()), Failed(call.key_of()), Released(call.key_of())};
      if (Finish(outcomes[id - 1]).committed) promised[id] = outcomes[id - 1].state;
    }
    failed = vfs_.failures != failures;
    places += failed;
    vfs_.Heal();
    if (after % 2 == 0) UntilWritable(true);
    Reopen();
    for (const auto& [id, state] : promised) {
      const GetAnswer got = Get({"one", Id(id)});
      ASSERT_TRUE(got.record) << id;
      if (state == State::kUnknown) {  // the outcome may have reached the disk when it healed
        EXPECT_NE(got.record->state, State::kSending) << id;
        if (id == 4) {
          EXPECT_EQ(got.record->state, State::kUnknown);
        }
      } else {
        EXPECT_EQ(got.record->state, state) << id;
      }
    }
    ledger_.reset();
  }
  EXPECT_GT(places, 20);
}

TEST_F(DiskTest, WhatCannotBeReadIsUnavailable) {
  Open();
  for (int id = 1; id < 2000; ++id) {
    ledger_->Begin(Call{.id = id, .email = std::to_string(id) + "@example.com"}.request(), pump_, [](BeginAnswer) {});
  }
  Get(key_);
  Reopen();  // with little in its cache
  vfs_.Fail(SQLITE_IOERR_READ);
  for (int id = 1; id < 2000; id += 50) {
    const BeginAnswer answer = Begin({.id = id, .email = std::to_string(id) + "@example.com"});
    EXPECT_TRUE(answer.verdict == V::kUnavailable || answer.verdict == V::kRecorded);
    EXPECT_EQ(Get({"one", Id(id)}).available, answer.verdict == V::kRecorded);
  }
  vfs_.Heal();
  UntilWritable(true);
  EXPECT_EQ(Begin({.email = "1@example.com"}).verdict, V::kRecorded);
}

// --- dying at each named point ---

std::string g_die_at;  // NOLINT: the hook is a plain function
int g_die_countdown = 0;

void DieAt(std::string_view point) {
  if (point == g_die_at && g_die_countdown-- == 0) ::_exit(9);
}

// What the child did, one byte pair a step, written before it goes on.
enum Deed : char { kBegan = 'b', kPosted = 'p', kEnded = 'e' };

class CrashTest : public SqliteTest, public testing::WithParamInterface<std::tuple<const char*, int>> {
 protected:
  // Runs `life` in a child that dies at the point; returns its deeds.
  std::vector<std::pair<char, int>> Child(const std::function<void(const std::function<void(char, int)>&)>& life) {
    int ends[2] = {};
    EXPECT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ends[0]);
      std::tie(g_die_at, g_die_countdown) =
          std::make_pair(std::string(std::get<0>(GetParam())), std::get<1>(GetParam()));
      options_.store.crash_point = DieAt;
      life([&](char deed, int id) {
        const char bytes[2] = {deed, static_cast<char>(id)};
        if (::write(ends[1], bytes, 2) != 2) ::_exit(1);
      });
      ::_exit(0);
    }
    ::close(ends[1]);
    std::vector<std::pair<char, int>> deeds;
    char bytes[2] = {};
    while (::read(ends[0], bytes, 2) == 2) deeds.emplace_back(bytes[0], bytes[1]);
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 9) << "the point was not reached";
    return deeds;
  }
};
INSTANTIATE_TEST_SUITE_P(Sqlite, CrashTest,
                         testing::Combine(testing::Values("before-sending-commit", "after-sending-commit",
                                                          "before-outcome-commit", "after-outcome-commit",
                                                          "before-checkpoint", "after-checkpoint",
                                                          "before-merge-commit", "after-merge-commit"),
                                          testing::Values(0, 1, 5)),
                         [](const auto& each) {
                           std::string name = std::get<0>(each.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + "_" + std::to_string(std::get<1>(each.param));
                         });

TEST_P(CrashTest, KeepsWhatItSaid) {
  options_.store.long_log_pages = 20;
  const auto deeds = Child([this](const std::function<void(char, int)>& tell) {
    Open();
    for (int id = 1; id <= 100; ++id) {
      const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
      tell(kBegan, id);
      if (Begin(call).verdict != V::kGo) ::_exit(2);
      tell(kPosted, id);
      if (!Finish(Succeeded(call.key_of())).committed) ::_exit(3);
      tell(kEnded, id);
    }
  });
  std::map<int, char> last;
  for (const auto& [deed, id] : deeds) last[id] = deed;
  ASSERT_FALSE(last.empty());
  Open();
  for (const auto& [id, deed] : last) {
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    const BeginAnswer answer = Begin(call);
    switch (deed) {
      case kBegan:  // nothing was sent: a fresh start or, for ever, unknown
        EXPECT_TRUE(answer.verdict == V::kGo ||
                    (answer.verdict == V::kRecorded && answer.own->state == State::kUnknown));
        break;
      case kPosted:  // never again
        ASSERT_EQ(answer.verdict, V::kRecorded);
        EXPECT_TRUE(answer.own->state == State::kUnknown || answer.own->state == State::kSucceeded);
        break;
      default:
        ASSERT_EQ(answer.verdict, V::kRecorded);
        EXPECT_EQ(answer.own->state, State::kSucceeded);
    }
    EXPECT_EQ(answer.budget.used_max, 1);
  }
}

TEST_F(SqliteTest, DyingInRecoveryOnlyMeansRecoveringAgain) {
  Open();
  for (int id = 1; id <= 3; ++id) Begin({.id = id, .email = std::to_string(id) + "@example.com"});
  ledger_.reset();
  const pid_t child = ::fork();
  if (child == 0) {
    g_die_at = "during-recovery";
    options_.store.crash_point = DieAt;
    ::_exit(SqliteLedger::Open(options_).ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 9);
  Open();
  EXPECT_EQ(ledger_->recovered(), 3u);
  EXPECT_EQ(Get(key_).record->state, State::kUnknown);
}

TEST_F(SqliteTest, DyingInARotationLeavesOneOfTheTwoKeys) {
  options_.store.key_id = kOldKey;
  Open();
  Begin({.key = kOldKey});
  Finish(Succeeded(key_));
  ledger_.reset();
  options_.store.key_id = kKey;
  options_.store.previous_key_ids = {kOldKey};
  const pid_t child = ::fork();
  if (child == 0) {
    g_die_at = "during-rotation";
    options_.store.crash_point = DieAt;
    ::_exit(SqliteLedger::Open(options_).ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 9);
  Open();
  EXPECT_EQ(Begin({.previous = {kOldKey}}).verdict, V::kRecorded);
}

}  // namespace
}  // namespace userintent::ledger
