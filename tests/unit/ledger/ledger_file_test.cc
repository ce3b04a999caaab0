// What a ledger may lie in, and what is taken for one. LookAt, which changes nothing, and LedgerFile, which begins.
#include "server/ledger/ledger_file.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "server/ledger/look_at.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

class LedgerFileTest : public testing::Test {
 protected:
  LedgerFileTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ledger_file_test.XXXXXX").string();
    directory_ = mkdtemp(pattern.data());
  }
  ~LedgerFileTest() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name = "ledger.db") const { return (directory_ / name).string(); }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(Path(name), std::ios::binary) << bytes;
    chmod(Path(name).c_str(), 0644);
    return Path(name);
  }
  // Every file with its content and mode.
  std::map<std::string, std::pair<std::string, mode_t>> All() const {
    std::map<std::string, std::pair<std::string, mode_t>> all;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      std::ifstream in(entry.path(), std::ios::binary);
      struct stat info {};
      stat(entry.path().c_str(), &info);
      all[entry.path().filename()] = {std::string(std::istreambuf_iterator<char>(in), {}), info.st_mode};
    }
    return all;
  }
  void Make(uint64_t key) const {
    SqliteStoreOptions options;
    options.path = Path();
    options.key_id = key;
    const auto file = LedgerFile::Open(Path());
    ASSERT_TRUE(file.ok()) << file.status();
    const auto store = SqliteStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status();
  }

  std::filesystem::path directory_;
};

TEST_F(LedgerFileTest, WhatIsNoLedgerStaysAsItIs) {
  std::string other("SQLite format 3\0", 16);
  other.resize(8192, '\1');  // another program's mark
  for (const std::string& bytes : {std::string("short"), std::string(4096, 'x'), other}) {
    const std::string path = Write("precious", bytes);
    const auto before = All();
    EXPECT_FALSE(LedgerFile::Open(path).ok());
    EXPECT_FALSE(LedgerFile::Open(path, true).ok());
    EXPECT_FALSE(LookAt(path, {1}).ok());
    EXPECT_TRUE(All() == before);
  }
}

TEST_F(LedgerFileTest, ALedgerIsKnownByItsKeysWithoutTouchingIt) {
  Make(7);
  const auto before = All();
  EXPECT_TRUE(LookAt(Path(), {7}).ok()) << LookAt(Path(), {7});
  EXPECT_TRUE(LookAt(Path(), {8, 7}).ok());
  EXPECT_NE(LookAt(Path(), {8}).message().find("another key"), std::string::npos) << LookAt(Path(), {8});
  EXPECT_TRUE(All() == before);  // not even an empty log was made
  const std::string odd = Path("100% #1 ledger?.db");
  std::filesystem::copy_file(Path(), odd);
  EXPECT_TRUE(LookAt(odd, {7}).ok()) << LookAt(odd, {7});
  EXPECT_FALSE(LookAt(odd, {8}).ok());
  EXPECT_TRUE(LedgerFile::Open(Path()).ok());
}

TEST_F(LedgerFileTest, ALedgerInUseIsNotOpened) {
  Make(7);
  const int lock = open((Path() + ".lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(LookAt(Path(), {8}).ok());  // not even its key is asked for
  close(lock);
  EXPECT_FALSE(LookAt(Path(), {8}).ok());
}

TEST_F(LedgerFileTest, ALedgerThatIsNotThereWouldBeMade) {
  EXPECT_TRUE(LookAt(Path(), {1}).ok());
  EXPECT_TRUE(LookAt(Path("a/b/ledger.db"), {1}).ok());
  EXPECT_TRUE(All().empty());
  Write("file", "");
  EXPECT_FALSE(LookAt(Path("file/ledger.db"), {1}).ok());
}

TEST_F(LedgerFileTest, OthersMayNotWriteItsDirectory) {
  for (const mode_t mode : {0777u, 01777u, 0702u, 0720u, 02770u}) {
    ASSERT_EQ(chmod(directory_.c_str(), mode), 0);
    EXPECT_FALSE(LedgerFile::Open(Path()).ok()) << std::oct << mode;
    EXPECT_FALSE(LedgerFile::Open(Path(), true).ok()) << std::oct << mode;
    EXPECT_FALSE(LookAt(Path(), {1}).ok()) << std::oct << mode;
    EXPECT_TRUE(All().empty());
  }
  for (const mode_t mode : {0700u, 0755u, 0750u}) {
    ASSERT_EQ(chmod(directory_.c_str(), mode), 0);
    EXPECT_TRUE(CheckDirectoryRights(directory_, false).ok()) << std::oct << mode;
  }
}

// Of a ledger behind a symbolic link, the log lies where the link leads.
TEST_F(LedgerFileTest, OthersMayNotWriteTheDirectoryThatALinkLeadsTo) {
  Make(7);
  std::filesystem::create_directory(directory_ / "far");
  std::filesystem::rename(Path(), Path("far/ledger.db"));
  std::filesystem::create_symlink("far/ledger.db", Path());
  EXPECT_TRUE(LedgerFile::Open(Path()).ok());
  EXPECT_TRUE(LookAt(Path(), {7}).ok()) << LookAt(Path(), {7});
  EXPECT_EQ(DataDirectory(Path()), std::filesystem::canonical(directory_ / "far").string());
  ASSERT_EQ(chmod(Path("far").c_str(), 0777), 0);
  EXPECT_FALSE(LedgerFile::Open(Path()).ok());
  EXPECT_FALSE(LookAt(Path(), {7}).ok());
  std::filesystem::remove(Path("far/ledger.db"));
  EXPECT_NE(LookAt(Path(), {7}).message().find("symbolic link"), std::string::npos);
}

TEST_F(LedgerFileTest, ItsDirectoryBelongsToRootOrToTheProcess) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a directory away";
  ASSERT_EQ(chown(directory_.c_str(), 65534, 65534), 0);
  EXPECT_FALSE(CheckDirectoryRights(directory_, false).ok());
  EXPECT_TRUE(CheckDirectoryRights(directory_, true).ok());  // root as the operator, in the server's directory
}

// A volume of Kubernetes with fsGroup: root's, with the setgid bit, writable by a group that the process has.
TEST_F(LedgerFileTest, AGroupMayWriteARootsDirectoryThatTheProcessGetsIntoOnlySo) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  ASSERT_EQ(chown(directory_.c_str(), 0, 2000), 0);
  ASSERT_EQ(chmod(directory_.c_str(), 02775), 0);
  const auto as = [&](gid_t group) {
    if (setgroups(1, &group) != 0 || setgid(65534) != 0 || setuid(65534) != 0) _exit(9);
    _exit(CheckDirectoryRights(directory_, false).ok() ? 0 : 1);
  };
  EXPECT_EXIT(as(2000), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(as(2001), testing::ExitedWithCode(1), "");
  EXPECT_FALSE(CheckDirectoryRights(directory_, false).ok());  // root needs no group
}

}  // namespace
}  // namespace userintent::ledger
