// The ledger that is opened is the one that --ledger names, under the keys that were read.
#include "server/app/open_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "server/app/telemetry.h"
#include "server/observe/log.h"
#include "tests/unit/base/temporary_directory.h"

namespace userintent {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

class OpenLedgerTest : public testing::Test {
 protected:
  config::Settings Sqlite() const {
    config::Settings settings;
    settings.ledger = {config::LedgerLocation::Kind::kSqlite, directory_.Path("ledger.db")};
    return settings;
  }

  static config::LedgerKeys Keys(char current, const std::string& previous = "") {
    config::LedgerKeys keys{Secret(std::string(32, current)), {}};
    for (const char key : previous) keys.previous.emplace_back(std::string(32, key));
    return keys;
  }

  TemporaryDirectory directory_;
  observe::ScopedLogCapture log_;
  observe::Metrics metrics_{{"1", "1", "1", "1"}, Telemetry::Labels()};
};

TEST_F(OpenLedgerTest, MemoryIsNoSqlite) {
  config::Settings settings;
  settings.ledger = {config::LedgerLocation::Kind::kMemory, ""};
  const auto opened = OpenLedger(settings, Keys('a', "b"), metrics_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_NE(opened->ledger, nullptr);
  EXPECT_EQ(opened->sqlite, nullptr);
  ASSERT_NE(opened->changes, nullptr);
  const auto another = OpenLedger(settings, Keys('a', "b"), metrics_);
  ASSERT_TRUE(another.ok()) << another.status();
  EXPECT_NE(opened->changes->ledger_id(), another->changes->ledger_id());
  EXPECT_THAT(log_.Lines(), IsEmpty());
}

TEST_F(OpenLedgerTest, ANewLedgerIsToldOfOnce) {
  for (int start = 0; start < 2; ++start) {
    const auto opened = OpenLedger(Sqlite(), Keys('a'), metrics_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->sqlite, opened->ledger.get());
    EXPECT_EQ(opened->changes, opened->sqlite);
    EXPECT_EQ(log_.Lines().size(), 1u);
  }
  EXPECT_THAT(log_.Lines(), Contains(HasSubstr("\"event\":\"new_ledger\"")));
}

TEST_F(OpenLedgerTest, AnotherKeyIsRefusedUnlessTheOldOneIsNamed) {
  ASSERT_TRUE(OpenLedger(Sqlite(), Keys('a'), metrics_).ok());
  const auto refused = OpenLedger(Sqlite(), Keys('b'), metrics_);
  EXPECT_THAT(std::string(refused.status().message()), StartsWith("--ledger: "));
  const auto opened = OpenLedger(Sqlite(), Keys('b', "a"), metrics_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  // No row is left under the old key, so no call pays for it.
  EXPECT_THAT(opened->fingerprinter->previous_key_ids(), IsEmpty());
}

TEST_F(OpenLedgerTest, AMissingLedgerThatMustExistIsRefused) {
  config::Settings settings = Sqlite();
  settings.ledger_must_exist = true;
  const auto refused = OpenLedger(settings, Keys('a'), metrics_);
  EXPECT_THAT(std::string(refused.status().message()), StartsWith("--ledger: "));
  EXPECT_FALSE(std::filesystem::exists(settings.ledger.path));
}

}  // namespace
}  // namespace userintent
