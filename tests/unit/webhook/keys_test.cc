#include "server/webhook/keys.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tests/unit/base/temporary_directory.h"

namespace userintent::webhook {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

constexpr SteadyTime kStart{hours(1000)};

class KeysTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) { return directory_.Write(name, content); }

  static std::unique_ptr<Keys> Load(const std::string& secret, const std::string& previous) {
    auto keys = Keys::Load({secret, previous});
    EXPECT_TRUE(keys.ok()) << keys.status();
    return *std::move(keys);
  }

  static std::vector<std::string> At(const Keys& keys, SteadyTime now) {
    std::vector<std::string> texts;
    for (const Secret& secret : keys.Now(now).secrets) texts.emplace_back(secret.Reveal());
    return texts;
  }

  using Texts = std::vector<std::string>;
  TemporaryDirectory directory_;
};

TEST_F(KeysTest, NoneBeforeThereIsASecret) { EXPECT_EQ(At(*Load("", ""), kStart), Texts()); }

TEST_F(KeysTest, TheOneBeforeCountsForADay) {
  const auto keys = Load("", "");
  keys->SetClientSecret(Secret("first"), kStart);
  keys->SetClientSecret(Secret("first"), kStart + hours(5));
  EXPECT_EQ(At(*keys, kStart + hours(5)), Texts({"first"}));
  keys->SetClientSecret(Secret("second"), kStart + hours(6));
  EXPECT_EQ(At(*keys, kStart + hours(6)), Texts({"second", "first"}));
  keys->SetClientSecret(Secret("second"), kStart + hours(29));
  EXPECT_EQ(At(*keys, kStart + hours(30) - minutes(1)), Texts({"second", "first"}));
  EXPECT_EQ(At(*keys, kStart + hours(30)), Texts({"second"}));
  keys->SetClientSecret(Secret("second"), kStart + hours(31));
  EXPECT_EQ(At(*keys, kStart + hours(29)), Texts({"second"})) << "it is forgotten, not only left out";
}

TEST_F(KeysTest, OnlyTheLastOneBeforeCounts) {
  const auto keys = Load("", "");
  for (const char* const text : {"first", "second", "third"}) keys->SetClientSecret(Secret(text), kStart);
  EXPECT_EQ(At(*keys, kStart), Texts({"third", "second"}));
  EXPECT_EQ(keys->Now(kStart).KindOf(0), KeyKind::kCurrent);
  EXPECT_EQ(keys->Now(kStart).KindOf(1), KeyKind::kPrevious);
}

TEST_F(KeysTest, ThePreviousFileCountsForAsLongAsItIsGiven) {
  const std::string path = Write("previous", "old\n");
  const auto keys = Load("", path);
  keys->SetClientSecret(Secret("now"), kStart);
  EXPECT_EQ(At(*keys, kStart + hours(1000)), Texts({"now", "old"}));
  Write("previous", "older\n");
  EXPECT_TRUE(*keys->Refresh());
  EXPECT_FALSE(*keys->Refresh());
  EXPECT_EQ(At(*keys, kStart), Texts({"now", "older"}));
}

TEST_F(KeysTest, AFileOfItsOwnStandsInsteadOfTheClientSecrets) {
  const auto keys = Load(Write("own", "webhook"), "");
  keys->SetClientSecret(Secret("first"), kStart);
  keys->SetClientSecret(Secret("second"), kStart);
  EXPECT_EQ(At(*keys, kStart), Texts({"webhook"}));
  Write("own", "fresh");
  EXPECT_TRUE(*keys->Refresh());
  EXPECT_EQ(At(*keys, kStart), Texts({"fresh"}));
}

TEST_F(KeysTest, ABadFileLeavesTheLastGoodOne) {
  const std::string path = Write("own", "webhook");
  const auto keys = Load(path, "");
  Write("own", "");
  const auto refused = keys->Refresh();
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(std::string(refused.status().message()).find("--webhook_secret_file"), std::string::npos);
  EXPECT_TRUE(keys->RefusalIsNews());
  EXPECT_FALSE(keys->Refresh().ok());
  EXPECT_FALSE(keys->RefusalIsNews());
  EXPECT_EQ(At(*keys, kStart), Texts({"webhook"}));
}

TEST_F(KeysTest, EachFileThatIsWrongIsNamed) {
  const auto keys = Keys::Load({directory_.Path("a"), directory_.Path("b")});
  ASSERT_FALSE(keys.ok());
  const std::string message(keys.status().message());
  EXPECT_NE(message.find("--webhook_secret_file"), std::string::npos);
  EXPECT_NE(message.find("--webhook_previous_secret_file"), std::string::npos);
}

}  // namespace
}  // namespace userintent::webhook
