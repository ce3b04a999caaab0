// The policy's file: what is read of it again, and what is refused.

#include "server/policy/policy_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace userintent::policy {
namespace {

constexpr char kOne[] = R"({"version": 1, "callers": [{"name": "one.example", "methods": []}]})";
constexpr char kTwo[] = R"({"version": 1, "callers": [{"name": "two.example", "methods": []}]})";

class PolicyFileTest : public testing::Test {
 protected:
  PolicyFileTest() {
    std::string name = testing::TempDir() + "/policy-XXXXXX";
    directory_ = mkdtemp(name.data());
    path_ = directory_ / "policy.json";
  }
  ~PolicyFileTest() override { std::filesystem::remove_all(directory_); }

  static void Write(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }
  void Replace(const std::string& text) {
    Write(directory_ / "new", text);
    std::filesystem::rename(directory_ / "new", path_);
  }
  static std::string NameIn(const PolicyFile& file) { return file.Snapshot().policy->rules()[0].name; }

  std::filesystem::path directory_, path_;
};

TEST_F(PolicyFileTest, IsReadAgain) {
  Write(path_, kOne);
  const auto file = PolicyFile::Load(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(NameIn(**file), "one.example");
  const PolicyFile::Content first = (*file)->Snapshot();
  EXPECT_EQ(first.sha256.size(), 12u);

  absl::StatusOr<bool> changed = (*file)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_FALSE(*changed);
  EXPECT_EQ((*file)->Snapshot().policy, first.policy);
  EXPECT_GE((*file)->Snapshot().read_at, first.read_at);

  Replace(kTwo);
  changed = (*file)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_EQ(NameIn(**file), "two.example");
  EXPECT_NE((*file)->Snapshot().sha256, first.sha256);
  EXPECT_EQ(first.policy->rules()[0].name, "one.example");  // whoever holds it goes on with it
}

TEST_F(PolicyFileTest, TheLastGoodOneStays) {
  Write(path_, kOne);
  const auto file = PolicyFile::Load(path_);
  ASSERT_TRUE(file.ok());
  const PolicyFile::Content first = (*file)->Snapshot();
  Replace("{");
  EXPECT_EQ((*file)->Refresh().status().message(), "--policy_file: is not JSON at line 1, column 2");
  EXPECT_TRUE((*file)->RefusalIsNews());
  EXPECT_FALSE((*file)->Refresh().ok());
  EXPECT_FALSE((*file)->RefusalIsNews());
  EXPECT_EQ((*file)->Snapshot().policy, first.policy);
  EXPECT_EQ((*file)->Snapshot().read_at, first.read_at);
  std::filesystem::remove(path_);
  EXPECT_FALSE((*file)->Refresh().ok());
  EXPECT_TRUE((*file)->RefusalIsNews());
  EXPECT_EQ(NameIn(**file), "one.example");
  Replace(kOne);  // as it was
  const absl::StatusOr<bool> changed = (*file)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_FALSE(*changed);
  EXPECT_FALSE((*file)->RefusalIsNews());
  EXPECT_GT((*file)->Snapshot().read_at, first.read_at);
}

// As Kubernetes does: policy.json -> ..data/policy.json, and ..data is a link to a directory that is swapped.
TEST_F(PolicyFileTest, ASwappedLinkIsFollowed) {
  using std::filesystem::create_directory, std::filesystem::create_symlink, std::filesystem::rename;
  create_directory(directory_ / "..1");
  create_directory(directory_ / "..2");
  Write(directory_ / "..1" / "policy.json", kOne);
  Write(directory_ / "..2" / "policy.json", kTwo);
  create_symlink("..1", directory_ / "..data");
  create_symlink("..data/policy.json", path_);
  const auto file = PolicyFile::Load(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  create_symlink("..2", directory_ / "..data_tmp");
  rename(directory_ / "..data_tmp", directory_ / "..data");
  const absl::StatusOr<bool> changed = (*file)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_EQ(NameIn(**file), "two.example");
}

TEST_F(PolicyFileTest, WhatIsRefused) {
  EXPECT_EQ(PolicyFile::Load(path_).status().message(),
            "--policy_file: cannot open the file: No such file or directory");
  EXPECT_FALSE(PolicyFile::Load(directory_).ok());
  Write(path_, "");
  EXPECT_FALSE(PolicyFile::Load(path_).ok());
  Write(path_, std::string(2 << 20, ' '));
  EXPECT_EQ(PolicyFile::Load(path_).status().message(), "--policy_file: the file is larger than 1 MiB");
  Write(path_, kOne);
  ASSERT_EQ(chmod(path_.c_str(), 0644), 0);
  EXPECT_TRUE(PolicyFile::Load(path_).ok());  // no secret
  ASSERT_EQ(chmod(path_.c_str(), 0646), 0);
  EXPECT_EQ(PolicyFile::Load(path_).status().message(),
            "--policy_file: others may write the file; take that right away (chmod o-w)");
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(PolicyFile::Load(path_).ok());  // and does not hang
}

}  // namespace
}  // namespace userintent::policy
