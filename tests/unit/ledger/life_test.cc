// The life of a ledger's files: made, lost, moved away under a running process, replaced by a backup.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "gmock/gmock.h"
#include "server/ledger/mark.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_ledger.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::HasSubstr;
using testing::Not;
using V = BeginVerdict;
namespace fs = std::filesystem;

constexpr int64_t kSecond = 1'000'000;

absl::Time g_now;  // NOLINT: the clock of a ledger is a plain function

class LifeTest : public testing::Test {
 protected:
  LifeTest() {
    g_now = At(0);
    options_.store.path = path_;
    options_.store.merge = EarlyMerges();
    options_.store.key_id = kKey;
    options_.store.now = [] { return g_now; };
    options_.look_interval = absl::Milliseconds(1);
    options_.idle_look_interval = absl::Milliseconds(10);
    options_.mark_interval = absl::ZeroDuration();  // before every batch
    options_.warn = [this](const std::string& line) {
      const std::lock_guard<std::mutex> lock(lines_mutex_);
      lines_ += line + "\n";
    };
  }

  void Open() {
    auto ledger = SqliteLedger::Open(options_);
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }
  std::string Refusal() {
    const auto ledger = SqliteLedger::Open(options_);
    EXPECT_FALSE(ledger.ok());
    const std::string text(ledger.status().message());
    EXPECT_EQ(text.find('\n'), std::string::npos);
    EXPECT_EQ(text.rfind("ledger ", 0), 0u) << text;
    return text;
  }
  std::string Said() {
    const std::lock_guard<std::mutex> lock(lines_mutex_);
    return lines_;
  }
  BeginAnswer Begin(int id) {
    std::optional<BeginAnswer> answer;
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    ledger_->Begin(call.request(), pump_, [&](BeginAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  FinishAnswer Finish(int id) {
    std::optional<FinishAnswer> answer;
    ledger_->Finish(Succeeded({"one", Id(id)}), pump_, [&](FinishAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  bool NextAttempt(int id) {
    std::optional<bool> answer;
    ledger_->NextAttempt({"one", Id(id)}, Id(77), Sent::kNo, At(1), pump_, [&](bool got) { answer = got; });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }
  void Create(int id) {
    ASSERT_EQ(Begin(id).verdict, V::kGo);
    Finish(id);
  }
  void UntilWritable(bool writable) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (ledger_->Writable() != writable) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void Copy(const std::string& from, const std::string& to) {
    fs::copy_file(from, to, fs::copy_options::overwrite_existing);
  }
  std::string File(const char* name) { return directory_.File(name); }
  // A ledger with request 1, a copy of it as `backup`, then request 2 a minute later. Closed.
  void MakeBackupThenSend() {
    Open();
    Create(1);
    ledger_.reset();
    Copy(path_, File("backup"));
    g_now = At(60);
    Open();
    Create(2);
    ledger_.reset();
  }
  // Ends a child process with the ledger open, by its log and lock as after kill -9.
  template <typename Work>
  void Killed(const Work& work) {
    const pid_t child = ::fork();
    if (child == 0) {
      Open();
      work();
      ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_.File("data/ledger.db");
  SqliteLedgerOptions options_;
  std::mutex lines_mutex_;
  std::string lines_;
  Pump pump_;
  std::unique_ptr<SqliteLedger> ledger_;
};

// --- moved, removed, replaced under the process ---

class MovedTest : public LifeTest {
 protected:
  void Away() {
    for (const char* end : {"-wal", ""}) fs::rename(path_ + end, File("away") + end);
  }
  void Back() {
    for (const char* end : {"", "-wal"}) fs::rename(File("away") + end, path_ + end);
  }
  void ExpectNothingNew() {
    UntilWritable(false);
    EXPECT_FALSE(ledger_->InPlace());
    EXPECT_EQ(Begin(9).verdict, V::kUnavailable);
  }
};

TEST_F(MovedTest, NothingNewStartsWhileTheFileIsAway) {
  Open();
  Create(1);
  Begin(2);
  Away();
  ExpectNothingNew();
  EXPECT_THAT(Said(), HasSubstr("the file is gone from its path"));
  // Repeats are answered from the open file, and what runs is recorded into it. It sends no second time.
  EXPECT_EQ(Begin(1).verdict, V::kRecorded);
  EXPECT_FALSE(NextAttempt(2));
  EXPECT_TRUE(Finish(2).committed);
  Back();
  UntilWritable(true);
  EXPECT_THAT(Said(), HasSubstr("back in their place"));
  EXPECT_EQ(Begin(9).verdict, V::kGo);
  ledger_.reset();
  Open();
  EXPECT_EQ(Begin(2).verdict, V::kRecorded);
}

TEST_F(MovedTest, AnIdleProcessNotices) {
  Open();
  Away();
  UntilWritable(false);
  Back();
  UntilWritable(true);
}

// Old rows cannot be forgotten then, and the writer must not turn round and round because they wait.
TEST_F(MovedTest, TheWriterSleepsWhileTheFileIsAwayThoughOldRowsWait) {
  options_.retention = absl::Hours(1);
  options_.purge_interval = absl::Milliseconds(1);
  options_.idle_look_interval = absl::Milliseconds(50);
  Open();
  Away();
  UntilWritable(false);
  const auto used = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return absl::DurationFromTimespec(time);
  };
  const absl::Duration before = used();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_LT(used() - before, absl::Milliseconds(200));
}

TEST_F(MovedTest, WhatEndsWhileTheFileIsAwayIsThereWhenItComesBack) {
  Open();
  Create(1);
  Begin(2);
  Away();
  ExpectNothingNew();
  Finish(2);
  ledger_.reset();
  EXPECT_THAT(Refusal(), HasSubstr("is gone; this directory served it until"));
  Back();
  Open();
  EXPECT_EQ(Begin(1).own->state, State::kSucceeded);
  EXPECT_EQ(Begin(2).own->state, State::kSucceeded);
}

TEST_F(MovedTest, AnotherFileAtThePath) {
  Open();
  Create(1);
  Copy(path_, File("copy"));
  fs::rename(File("copy"), path_);
  ExpectNothingNew();
  EXPECT_THAT(Said(), HasSubstr("another file is at its path"));
}

TEST_F(MovedTest, ALinkThatNamesAnotherFile) {
  fs::create_directories(File("data"));
  fs::create_directories(File("one"));
  fs::create_directories(File("two"));
  options_.store.path = File("one/ledger.db");
  Open();
  ledger_.reset();
  Copy(File("one/ledger.db"), File("two/ledger.db"));
  options_.store.path = path_;
  fs::create_symlink(File("one/ledger.db"), path_);
  Open();
  Create(1);
  fs::create_symlink(File("two/ledger.db"), File("link"));
  fs::rename(File("link"), path_);
  ExpectNothingNew();
}

TEST_F(MovedTest, AnotherDirectory) {
  Open();
  Create(1);
  fs::rename(File("data"), File("moved"));
  ExpectNothingNew();
  fs::create_directory(File("data"));
  fs::create_hard_link(File("moved/ledger.db"), path_);  // the same file, but its log is not there
  ExpectNothingNew();
}

// Its commits would go into a log that no start finds.
TEST_F(MovedTest, ALogThatIsGone) {
  Open();
  Create(1);
  fs::remove(path_ + "-wal");
  ExpectNothingNew();
  EXPECT_THAT(Said(), HasSubstr("its log (-wal) is gone"));
  // As the line says: the end of the process copies what it has open.
  ledger_.reset();
  Open();
  EXPECT_EQ(Begin(1).verdict, V::kRecorded);
}

TEST_F(MovedTest, ALockFileThatIsGoneIsMadeAnew) {
  Open();
  Create(1);
  fs::remove(path_ + ".lock");
  Create(2);
  EXPECT_TRUE(fs::exists(path_ + ".lock"));
  EXPECT_THAT(Refusal(), HasSubstr("another process uses it"));
}

TEST_F(MovedTest, TheMarkOfALedgerThatIsAwayStaysAsItIs) {
  Open();
  Create(1);
  Begin(2);
  Away();
  ExpectNothingNew();
  const Mark before = **ReadMark(path_);
  Finish(2);
  ledger_.reset();
  EXPECT_EQ(**ReadMark(path_), before);
}

// --- new, empty, gone ---

TEST_F(LifeTest, ANewLedgerSaysSo) {
  Open();
  EXPECT_TRUE(ledger_->made());
  EXPECT_EQ(ledger_->made_at(), At(0));
  EXPECT_EQ(ledger_->rows(), 0);
  Create(1);
  Begin(2);
  ledger_.reset();
  g_now = At(9);
  Open();
  EXPECT_FALSE(ledger_->made());
  EXPECT_EQ(ledger_->made_at(), At(0));
  EXPECT_EQ(ledger_->rows(), 2);
}

TEST_F(LifeTest, ALedgerThatMustExistIsNotMade) {
  options_.must_exist = true;
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_must_exist"));
  EXPECT_FALSE(fs::exists(path_));
  options_.must_exist = false;
  Open();
  ledger_.reset();
  options_.must_exist = true;
  Open();
}

TEST_F(LifeTest, AFileOfNoBytesIsRefused) {
  fs::create_directories(File("data"));
  std::ofstream(path_).flush();
  EXPECT_THAT(Refusal(), HasSubstr("0 bytes"));
}

// SQLite makes its file empty at first; ours gets its name when it is whole.
TEST_F(LifeTest, AHalfMadeLedgerIsNeverAtThePath) {
  fs::create_directories(File("data"));
  std::ofstream(path_ + ".new") << "cut off";
  Open();
  Create(1);
  EXPECT_FALSE(fs::exists(path_ + ".new"));
}

TEST_F(LifeTest, ALinkToNothingIsRefused) {
  fs::create_directories(File("data"));
  fs::create_symlink(File("nowhere"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("symbolic link"));
}

TEST_F(LifeTest, ALogWithoutItsLedgerIsRefused) {
  Killed([&] { Create(1); });
  fs::rename(path_, File("away"));
  fs::remove(MarkPath(path_));
  EXPECT_THAT(Refusal(), HasSubstr("its log (-wal) is"));
}

TEST_F(LifeTest, ALedgerThatIsGoneIsNotReplacedByAnEmptyOne) {
  Open();
  Create(1);
  ledger_.reset();
  fs::remove(path_);
  EXPECT_THAT(Refusal(), HasSubstr("all that it knew would be sent again"));
  EXPECT_FALSE(fs::exists(path_));
  options_.restored = At(0);  // when it was made, it was empty
  g_now = At(100);
  Open();
  EXPECT_TRUE(ledger_->made());
  EXPECT_TRUE(ledger_->restored().has_value());
  ledger_.reset();
  options_.restored.reset();
  Open();
  EXPECT_TRUE(ledger_->restored().has_value());
}

// --- a backup in the place of a newer ledger ---

TEST_F(LifeTest, AnOlderLedgerIsRefusedUntilItIsAcknowledged) {
  MakeBackupThenSend();
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored=" + TimeText(absl::ToUnixMicros(At(0)))));
  for (const absl::Time wrong : {At(-1), At(3600)}) {
    options_.restored = wrong;
    EXPECT_THAT(Refusal(), HasSubstr("does not name this backup"));
  }
  options_.restored = At(0);
  Open();
  EXPECT_EQ(Begin(1).verdict, V::kRecorded);
  ASSERT_TRUE(ledger_->restored().has_value());
  EXPECT_EQ(ledger_->restored()->backup_of, absl::ToUnixMicros(At(0)));
  EXPECT_GE(ledger_->restored()->served_until, absl::ToUnixMicros(At(60)));
  ledger_.reset();
  // From then on it is the newest, with the flag or without, and says at each start what it is.
  Open();
  ledger_.reset();
  options_.restored.reset();
  Open();
  EXPECT_TRUE(ledger_->restored().has_value());
}

TEST_F(LifeTest, AFlagThatIsLeftInPlaceDoesNotAcknowledgeTheNextRestore) {
  MakeBackupThenSend();
  Copy(File("backup"), path_);
  options_.restored = At(0);
  Open();
  Create(3);
  ledger_.reset();
  Copy(path_, File("later"));
  Open();
  Create(4);
  ledger_.reset();
  for (const char* copy : {"backup", "later"}) {  // the same one again, and one that was made since
    Copy(File(copy), path_);
    const std::string said = Refusal();
    EXPECT_THAT(said, HasSubstr("--ledger_restored")) << copy;
  }
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("has acknowledged an earlier restore"));
  options_.restored = At(1);
  Open();
}

// Nor does one that was given when nothing was lost: it would wait for a restore that nobody has thought of.
TEST_F(LifeTest, AFlagThatWasGivenBeforeTheRestoreDoesNotAcknowledgeIt) {
  MakeBackupThenSend();
  options_.restored = At(30);
  Open();
  EXPECT_FALSE(ledger_->restored().has_value());
  ledger_.reset();
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("does not count again"));
  options_.restored = At(31);
  Open();
  EXPECT_TRUE(ledger_->restored().has_value());
}

// The process that took the flag died before it could say so in the mark.
TEST_F(LifeTest, KilledBetweenTheAcknowledgementAndTheMark) {
  MakeBackupThenSend();
  const std::string mark = MarkPath(path_);
  Copy(mark, File("mark"));
  Copy(File("backup"), path_);
  options_.restored = At(30);
  Open();
  ledger_.reset();
  Copy(File("mark"), mark);
  Open();  // with the flag in place
  EXPECT_TRUE(ledger_->restored().has_value());
  ledger_.reset();
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("does not count again"));
}

TEST_F(LifeTest, KilledBetweenTheAcknowledgementOfAnotherLedgerAndTheMark) {
  Open();
  Create(1);
  ledger_.reset();
  const std::string other = File("other/ledger.db");
  options_.store.path = other;
  g_now = At(5);
  Open();
  Create(1);
  ledger_.reset();
  options_.store.path = path_;
  const std::string mark = MarkPath(path_);
  Copy(mark, File("mark"));
  Copy(other, path_);
  g_now = At(90);
  options_.restored = At(6);
  Open();
  ledger_.reset();
  Copy(File("mark"), mark);
  for (const auto& flag : {options_.restored, std::optional<absl::Time>()}) {
    options_.restored = flag;
    Open();  // knows from its own record that it stands for the other one
    ledger_.reset();
    if (flag) Copy(File("mark"), mark);
  }
  Copy(other, path_);
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored="));
}

TEST_F(LifeTest, AnotherLedgerInItsPlaceIsRefused) {
  Open();
  Create(1);
  ledger_.reset();
  options_.store.path = File("other/ledger.db");
  g_now = At(5);
  Open();
  Create(1);
  ledger_.reset();
  Copy(options_.store.path, path_);
  options_.store.path = path_;
  EXPECT_THAT(Refusal(), HasSubstr("this directory served another one"));
  options_.restored = At(5);
  Open();
}

// A copy from before the last start is older even when the last process was killed at once.
TEST_F(LifeTest, KilledAfterItsFirstRequest) {
  Open();
  Create(1);
  ledger_.reset();
  Copy(path_, File("backup"));
  options_.mark_interval = absl::Hours(1);
  g_now = At(60);
  Killed([&] { Begin(2); });
  fs::remove(path_ + "-wal");
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored="));
}

// A copy that an operator's job made is older than what is written after it, however soon.
TEST_F(LifeTest, ACopyMadeByAJobIsOlderThanTheNextRequest) {
  options_.mark_interval = absl::Hours(1);
  Killed([&] {
    Create(1);
    const auto work = [&](SqliteStore& store) {
      store.Rollback();
      EXPECT_TRUE(store.Checkpoint().ok());
      Copy(path_, File("backup"));
      return store.Start();
    };
    EXPECT_TRUE(ledger_->Administer(work).ok());
    Begin(2);
  });
  fs::remove(path_ + "-wal");
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored="));
}

// What an operator settled is not in a copy that was made before.
TEST_F(LifeTest, ACopyMadeBeforeAJobThatWroteIsOlder) {
  options_.mark_interval = absl::Hours(1);
  Open();
  Create(1);
  ledger_.reset();
  Copy(path_, File("backup"));
  g_now = At(60);
  const auto looks = [](SqliteStore& store) { return store.AuditEntries().status(); };
  Killed([&] { EXPECT_TRUE(ledger_->Administer(looks).ok()); });
  EXPECT_EQ((**ReadMark(path_)).revision, absl::ToUnixMicros(At(0)) + 1);  // looking changes nothing
  const auto writes = [](SqliteStore& store) {
    AuditEntry entry;
    entry.at = At(60);
    entry.actor = entry.action = entry.evidence = "x";
    entry.key = {"one", Id(1)};
    entry.from = State::kUnknown;
    entry.to = State::kFailed;
    Changes changes;
    changes.audit = entry;
    return store.Apply(std::move(changes));
  };
  Killed([&] { EXPECT_TRUE(ledger_->Administer(writes).ok()); });
  fs::remove(path_ + "-wal");
  Copy(File("backup"), path_);
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored="));
}

TEST_F(LifeTest, AKilledProcessLeavesALedgerThatIsGood) {
  for (int round = 0; round < 8; ++round) {
    options_.store.long_log_pages = round % 2 == 0 ? 1000 : 3;
    Killed([&] {
      for (int id = 1; id <= round; ++id) Begin(100 * round + id);
    });
  }
  Open();
  EXPECT_THAT(Said(), Not(HasSubstr("mark")));
  EXPECT_EQ(ledger_->rows(), 28);
}

TEST_F(LifeTest, ALogThatWasWrittenForANewerLedgerIsNotPlayedIntoACopy) {
  Open();
  Create(1);
  ledger_.reset();
  Copy(path_, File("backup"));
  Open();
  Create(2);
  ledger_.reset();  // copies the log
  Killed([&] { Create(3); });
  Copy(File("backup"), path_);
  options_.restored = At(0);
  EXPECT_THAT(Refusal(), HasSubstr("the log beside it (-wal) was written for a newer ledger"));
  options_.restored.reset();
  // Nothing was touched: the log still belongs to it where the copy is the newest one.
  fs::remove(path_ + "-wal");
  EXPECT_THAT(Refusal(), HasSubstr("--ledger_restored="));
}

TEST_F(LifeTest, WithoutAMarkNobodyCanTell) {
  MakeBackupThenSend();
  fs::remove(MarkPath(path_));
  Open();
  EXPECT_THAT(Said(), HasSubstr("there is no mark beside it"));
  EXPECT_TRUE(fs::exists(MarkPath(path_)));
  ledger_.reset();
  // An operator who knows that it is a backup says so, and it is remembered.
  fs::remove(MarkPath(path_));
  g_now = At(100);
  options_.restored = At(70);
  Open();
  ASSERT_TRUE(ledger_->restored().has_value());
  EXPECT_EQ(ledger_->restored()->backup_of, absl::ToUnixMicros(At(70)));
}

TEST_F(LifeTest, ADamagedMarkIsToldAndReplaced) {
  MakeBackupThenSend();
  for (const std::string& text :
       {std::string(), std::string("x"), std::string(5000, 'x'), std::string("\xff\xfe\0", 3)}) {
    std::ofstream(MarkPath(path_), std::ios::trunc) << text;
    lines_.clear();
    Open();
    EXPECT_THAT(Said(), HasSubstr("its mark cannot be used")) << text.size();
    ledger_.reset();
    EXPECT_TRUE(ReadMark(path_).ok());
  }
}

TEST_F(LifeTest, AMarkThatCannotBeWrittenIsToldOnce) {
  Open();
  fs::remove(MarkPath(path_));
  fs::create_directories(MarkPath(path_) + "/in the way");
  Create(1);
  Create(2);
  ledger_.reset();
  const std::string said = Said();
  EXPECT_THAT(said, HasSubstr("its mark cannot be written"));
  EXPECT_EQ(said.find("its mark cannot"), said.rfind("its mark cannot"));
}

TEST_F(LifeTest, ARestoreThatWasCutOffIsNotANewLedger) {
  fs::create_directories(File("data"));
  std::ofstream(RestoringPath(path_)) << "half";
  EXPECT_THAT(Refusal(), HasSubstr("restore was cut off"));
}

// --- the mark itself ---

TEST(MarkTest, EveryChangedByteIsNoticed) {
  const TemporaryDirectory directory;
  const std::string path = directory.File("ledger.db");
  const Mark mark{1, 2, 3, 4};
  EXPECT_EQ(*ReadMark(path), std::nullopt);
  ASSERT_TRUE(WriteMark(path, mark).ok());
  EXPECT_EQ(*ReadMark(path), mark);
  struct stat status {};
  ASSERT_EQ(::stat(MarkPath(path).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  std::ifstream in(MarkPath(path), std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    std::ofstream(MarkPath(path), std::ios::trunc) << changed;
    EXPECT_FALSE(ReadMark(path).ok()) << i;
    std::ofstream(MarkPath(path), std::ios::trunc) << text.substr(0, i);
    EXPECT_FALSE(ReadMark(path).ok()) << i;
  }
}

TEST(MarkTest, TheRevisionGrowsWhenTheClockGoesBack) {
  const TemporaryDirectory directory;
  SqliteStoreOptions options;
  options.path = directory.File("ledger.db");
  options.key_id = kKey;
  options.now = [] { return g_now; };
  g_now = At(100);
  const auto store = SqliteStore::Open(options).value();
  int64_t last = store->revision();
  EXPECT_EQ(last, 0);
  for (const int64_t at : {100, 50, 50, 200}) {
    g_now = At(at);
    ASSERT_TRUE(store->Start().ok());
    ASSERT_TRUE(store->Touch().ok());
    EXPECT_EQ(store->revision(), last);  // not before it is durable
    ASSERT_TRUE(store->Commit().ok());
    EXPECT_GT(store->revision(), last);
    last = store->revision();
  }
  EXPECT_EQ(last, absl::ToUnixMicros(At(200)));
  ASSERT_TRUE(store->Start().ok());
  ASSERT_TRUE(store->Advance(last + 3600 * kSecond).ok());
  store->Rollback();
  EXPECT_EQ(store->revision(), last);
}

}  // namespace
}  // namespace userintent::ledger
