#include "server/base/secret_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/base/temporary_directory.h"

namespace userintent {
namespace {

using std::string_literals::operator""s;

TEST(SecretFile, OneNewlineIsRemoved) {
  const TemporaryDirectory dir;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"s3cret", "s3cret"},
      {"s3cret\n", "s3cret"},
      {"s3cret\r\n", "s3cret"},
      {"s3cret\n\n", "s3cret\n"},
      {"s3cret\r\n\r\n", "s3cret\r\n"},
      {"s3cret\r", "s3cret\r"},
      {"\ns3cret", "\ns3cret"},
      {" s3cret ", " s3cret "},
      {"a\0b\n"s, "a\0b"s},
      {"\n\n", "\n"},
      {std::string(64 * 1024, 'x'), std::string(64 * 1024, 'x')},
  };
  for (const auto& [content, expected] : cases) {
    const absl::StatusOr<Secret> secret = ReadSecretFile(dir.Write("secret", content), "--some_file");
    ASSERT_TRUE(secret.ok()) << secret.status();
    EXPECT_TRUE(secret->Reveal() == expected) << "case of " << content.size() << " bytes";
  }
}

void ExpectRefused(const std::string& path, std::string_view reason) {
  const absl::StatusOr<Secret> secret = ReadSecretFile(path, "--some_file");
  ASSERT_FALSE(secret.ok()) << reason;
  const std::string message(secret.status().message());
  EXPECT_EQ(message.rfind("--some_file: ", 0), 0u) << message;
  EXPECT_NE(message.find(reason), std::string::npos) << message;
  EXPECT_EQ(message.find("s3cret"), std::string::npos);
  EXPECT_EQ(message.find(path), std::string::npos);
}

TEST(SecretFile, Refused) {
  const TemporaryDirectory dir;
  ExpectRefused(dir.Path("none"), "cannot open the file: No such file or directory");
  ExpectRefused(dir.Write("empty", ""), "empty");
  ExpectRefused(dir.Write("newline", "\n"), "empty");
  ExpectRefused(dir.Write("crlf", "\r\n"), "empty");
  ExpectRefused(dir.Write("large", std::string(64 * 1024 + 1, 'x')), "larger than 64 KiB");
  ExpectRefused(dir.Path(""), "not a regular file");
  ExpectRefused("/dev/null", "not a regular file");
  ASSERT_EQ(mkfifo(dir.Path("fifo").c_str(), 0600), 0);
  ExpectRefused(dir.Path("fifo"), "not a regular file");  // and does not wait for a writer
}

TEST(SecretFile, OthersMayNeitherReadNorWriteIt) {
  const TemporaryDirectory dir;
  for (const mode_t mode : {0604u, 0644u, 0444u, 0607u, 0666u, 0777u}) {
    ExpectRefused(dir.Write("secret", "s3cret", mode), "others may read");
  }
  for (const mode_t mode : {0602u, 0620u, 0660u, 0622u, 0720u}) {
    ExpectRefused(dir.Write("secret", "s3cret", mode), "may write");
  }
  for (const mode_t mode : {0400u, 0600u, 0440u, 0640u, 0700u}) {
    EXPECT_TRUE(ReadSecretFile(dir.Write("secret", "s3cret", mode), "--some_file").ok()) << mode;
  }
}

TEST(SecretFile, ItBelongsToRootOrToTheProcess) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  const TemporaryDirectory dir;
  const std::string path = dir.Write("secret", "s3cret");
  ASSERT_EQ(chown(path.c_str(), 65534, static_cast<gid_t>(-1)), 0);
  ExpectRefused(path, "belongs to another user");
  ASSERT_EQ(chown(path.c_str(), 0, 65534), 0);
  EXPECT_TRUE(ReadSecretFile(path, "--some_file").ok());
}

TEST(SecretFile, LinksAreFollowedAndTheFileBehindIsJudged) {
  const TemporaryDirectory dir;
  std::filesystem::create_symlink(dir.Write("good", "s3cret", 0400), dir.Path("link-good"));
  std::filesystem::create_symlink(dir.Write("open", "s3cret", 0644), dir.Path("link-open"));
  EXPECT_TRUE(ReadSecretFile(dir.Path("link-good"), "--some_file").ok());
  ExpectRefused(dir.Path("link-open"), "others may read");
}

}  // namespace
}  // namespace userintent
