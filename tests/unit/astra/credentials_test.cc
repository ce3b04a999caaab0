#include "server/astra/credentials.h"

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/base/temporary_directory.h"

namespace userintent::astra {
namespace {

class CredentialsTest : public testing::Test {
 protected:
  void Id(std::string_view text, mode_t mode = 0600) { dir_.Write("id", text, mode); }
  void Secret(std::string_view text, mode_t mode = 0600) { dir_.Write("secret", text, mode); }
  absl::StatusOr<std::unique_ptr<Credentials>> Load() const {
    return Credentials::Load(dir_.Path("id"), dir_.Path("secret"));
  }

  void ExpectLoadFails(std::string_view flag, std::string_view reason) const {
    const auto credentials = Load();
    ASSERT_FALSE(credentials.ok());
    const std::string message(credentials.status().message());
    EXPECT_EQ(message.rfind(std::string(flag) + ": ", 0), 0u) << message;
    EXPECT_NE(message.find(reason), std::string::npos) << message;
    EXPECT_EQ(message.find("s3cret"), std::string::npos);
    EXPECT_EQ(message.find("cli3nt"), std::string::npos);
  }

  const TemporaryDirectory dir_;
};

// The example of RFC 7617.
TEST_F(CredentialsTest, HeaderValue) {
  Id("Aladdin\n");
  Secret("open sesame\r\n");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_EQ((*credentials)->Snapshot()->header_value.Reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  EXPECT_EQ((*credentials)->Snapshot()->client_id, "Aladdin");
}

TEST_F(CredentialsTest, PaddingAndEveryAlphabetCharacter) {
  Id("a");
  Secret("?>~\xff:");  // a secret may hold a colon and bytes beyond ASCII
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_EQ((*credentials)->Snapshot()->header_value.Reveal(), "Basic YTo/Pn7/Og==");
}

TEST_F(CredentialsTest, Refused) {
  constexpr std::string_view kIdFlag = "--astra_client_id_file", kSecretFlag = "--astra_client_secret_file";
  Secret("s3cret");
  ExpectLoadFails(kIdFlag, "cannot open");
  Id("");
  ExpectLoadFails(kIdFlag, "empty");
  Id("cli3nt:x");
  ExpectLoadFails(kIdFlag, "colon");
  Id("cli3nt\tx");
  ExpectLoadFails(kIdFlag, "control character");
  Id("cli3nt\n\n");
  ExpectLoadFails(kIdFlag, "control character");
  Id(std::string("cli3nt\0x", 8));
  ExpectLoadFails(kIdFlag, "control character");
  Id("cli3nt", 0644);
  ExpectLoadFails(kIdFlag, "others may read");
  Id("cli3nt");
  ASSERT_TRUE(Load().ok());
  Secret("\n");
  ExpectLoadFails(kSecretFlag, "empty");
  Secret("s3cret\r");
  ExpectLoadFails(kSecretFlag, "control character");
  Secret("s3cret\x7f");
  ExpectLoadFails(kSecretFlag, "control character");
  Secret("s3cret", 0604);
  ExpectLoadFails(kSecretFlag, "others may read");
  std::filesystem::remove(dir_.Path("secret"));
  ExpectLoadFails(kSecretFlag, "cannot open");
}

TEST_F(CredentialsTest, RefreshSaysWhetherTheyChanged) {
  Id("one");
  Secret("s3cret");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto before = (*credentials)->Snapshot();

  absl::StatusOr<bool> changed = (*credentials)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_FALSE(*changed);
  EXPECT_EQ((*credentials)->Snapshot(), before);

  Secret("s3cret\n");  // another file, the same secret
  changed = (*credentials)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_FALSE(*changed);
  EXPECT_EQ((*credentials)->Snapshot(), before);

  Secret("s3cret-2");
  changed = (*credentials)->Refresh();
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_EQ((*credentials)->Snapshot()->header_value.Reveal(), "Basic b25lOnMzY3JldC0y");
  EXPECT_EQ((*credentials)->Snapshot()->client_secret.Reveal(), "s3cret-2");
  EXPECT_EQ(before->header_value.Reveal(), "Basic b25lOnMzY3JldA==");  // who holds the old one keeps it
}

TEST_F(CredentialsTest, EachPairHasAHigherNumber) {
  Id("one");
  Secret("s3cret");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_EQ((*credentials)->Snapshot()->number, 1u);
  EXPECT_FALSE((*credentials)->Refresh().value());
  EXPECT_EQ((*credentials)->Snapshot()->number, 1u);
  for (const char* secret : {"other", "s3cret"}) {  // there and back again
    const uint64_t before = (*credentials)->Snapshot()->number;
    Secret(secret);
    EXPECT_TRUE((*credentials)->Refresh().value());
    EXPECT_GT((*credentials)->Snapshot()->number, before);
  }
}

TEST_F(CredentialsTest, FilesThatNobodyTouchedAreNotReadAgain) {
  Id("one");
  Secret("s3cret");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_FALSE((*credentials)->RefreshIfTouched());
  std::filesystem::remove(dir_.Path("secret"));
  EXPECT_FALSE((*credentials)->RefreshIfTouched()) << "the last good ones stay";
  Secret("s3cret-2");
  EXPECT_TRUE((*credentials)->RefreshIfTouched());
  EXPECT_EQ((*credentials)->Snapshot()->client_secret.Reveal(), "s3cret-2");
  EXPECT_FALSE((*credentials)->RefreshIfTouched());
}

TEST_F(CredentialsTest, RefreshKeepsTheLastGood) {
  Id("one");
  Secret("s3cret");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  const auto before = (*credentials)->Snapshot();
  const auto expect_kept = [&] {
    const absl::StatusOr<bool> changed = (*credentials)->Refresh();
    EXPECT_FALSE(changed.ok());
    EXPECT_EQ((*credentials)->Snapshot(), before);
  };
  Id("two");
  Secret("");
  expect_kept();
  Secret("s3cret-2", 0644);
  expect_kept();
  std::filesystem::remove(dir_.Path("secret"));
  expect_kept();
  Secret("s3cret-2");
  EXPECT_TRUE((*credentials)->Refresh().value());
}

TEST_F(CredentialsTest, ARefusalIsNewsWheneverTheFilesChanged) {
  Id("one");
  Secret("s3cret");
  const auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  EXPECT_FALSE((*credentials)->RefusalIsNews());
  const auto expect_refused = [&](bool news) {
    EXPECT_FALSE((*credentials)->Refresh().ok());
    EXPECT_EQ((*credentials)->RefusalIsNews(), news);
  };
  Secret("");
  expect_refused(true);
  expect_refused(false);
  Secret("two\nlines");
  expect_refused(true);
  expect_refused(false);
  Secret("other\nlines");  // the same reason, another content
  expect_refused(true);
  expect_refused(false);
  Secret("s3cret");
  EXPECT_FALSE((*credentials)->Refresh().value());
  EXPECT_FALSE((*credentials)->RefusalIsNews());
  Secret("");
  expect_refused(true);
}

TEST_F(CredentialsTest, ThreadsSeeOneOrTheOther) {
  Id("one");
  Secret("a");
  auto credentials = Load();
  ASSERT_TRUE(credentials.ok()) << credentials.status();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const auto auth = (*credentials)->Snapshot();
        const std::string_view value = auth->header_value.Reveal();
        if (value != "Basic b25lOmE=" && value != "Basic b25lOmI=") ++wrong;
      }
    });
  }
  std::vector<std::thread> refreshers;
  for (int i = 0; i < 2; ++i) {
    refreshers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) (*credentials)->Refresh().IgnoreError();
    });
  }
  for (int round = 0; round < 100; ++round) Secret(round % 2 == 0 ? "b" : "a");
  for (std::thread& thread : refreshers) thread.join();
  stop = true;
  for (std::thread& thread : readers) thread.join();
  EXPECT_EQ(wrong, 0);
  (*credentials)->Refresh().IgnoreError();
  EXPECT_EQ((*credentials)->Snapshot()->header_value.Reveal(), "Basic b25lOmE=");
}

}  // namespace
}  // namespace userintent::astra
