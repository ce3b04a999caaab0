#include "server/usecase/watch_token.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace userintent::usecase {
namespace {

using Verdict = WatchTokens::Verdict;

Secret Key(char letter) { return Secret(std::string(32, letter)); }

class WatchTokenTest : public testing::Test {
 protected:
  WatchTokens tokens_{{.ledger_id = 7}, Key('k'), {}};
};

TEST_F(WatchTokenTest, SaysWhereItsStreamStands) {
  for (const int64_t revision : {int64_t{0}, int64_t{1}, int64_t{4711}, INT64_MAX}) {
    WatchPosition position;
    EXPECT_EQ(tokens_.Read("a", tokens_.Make("a", {revision}), &position), Verdict::kGood);
    EXPECT_EQ(position.revision, revision);
  }
  WatchPosition position{3};
  EXPECT_EQ(tokens_.Read("a", tokens_.Make("a", {}), &position), Verdict::kGood);
  EXPECT_EQ(position.revision, std::nullopt);
}

TEST_F(WatchTokenTest, IsGoodForItsCallerAndLedgerOnly) {
  const std::string token = tokens_.Make("a", {5});
  WatchPosition position;
  EXPECT_EQ(tokens_.Read("b", token, &position), Verdict::kForeign);
  EXPECT_EQ(tokens_.Read("", token, &position), Verdict::kForeign);
  const WatchTokens other_ledger({.ledger_id = 8}, Key('k'), {});
  EXPECT_EQ(other_ledger.Read("a", token, &position), Verdict::kForeign);
  const WatchTokens other_key({.ledger_id = 7}, Key('l'), {});
  EXPECT_EQ(other_key.Read("a", token, &position), Verdict::kForeign);
}

TEST_F(WatchTokenTest, OutlivesItsKey) {
  const WatchTokens rotated({.ledger_id = 7}, Key('l'), {Key('m'), Key('k')});
  WatchPosition position;
  EXPECT_EQ(rotated.Read("a", tokens_.Make("a", {5}), &position), Verdict::kGood);
  EXPECT_EQ(position.revision, 5);
  EXPECT_EQ(tokens_.Read("a", rotated.Make("a", {5}), &position), Verdict::kForeign);
}

TEST_F(WatchTokenTest, IsTooOldOnceItsLedgerWasRestored) {
  const WatchTokens restored({.ledger_id = 7, .restored = 99}, Key('k'), {});
  WatchPosition position;
  EXPECT_EQ(restored.Read("a", tokens_.Make("a", {5}), &position), Verdict::kTooOld);
  EXPECT_EQ(restored.Read("b", tokens_.Make("a", {5}), &position), Verdict::kForeign);
  EXPECT_EQ(restored.Read("a", restored.Make("a", {5}), &position), Verdict::kGood);
}

TEST_F(WatchTokenTest, NoBitOfItMayChange) {
  const std::string token = tokens_.Make("a", {5});
  WatchPosition position;
  for (size_t bit = 0; bit < token.size() * 8; ++bit) {
    std::string other = token;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ 1 << bit % 8);
    EXPECT_EQ(tokens_.Read("a", other, &position), Verdict::kForeign) << bit;
  }
  for (size_t size = 0; size < token.size(); ++size) {
    EXPECT_EQ(tokens_.Read("a", token.substr(0, size), &position), Verdict::kForeign);
  }
  EXPECT_EQ(tokens_.Read("a", token + '\0', &position), Verdict::kForeign);
  EXPECT_EQ(tokens_.Read("a", std::string(256, '\1'), &position), Verdict::kForeign);
}

TEST_F(WatchTokenTest, TellsNothingOfItsCaller) {
  const std::string caller = "spiffe://corp.example/signup";
  const std::string token = tokens_.Make(caller, {5});
  EXPECT_EQ(token.size(), 41U);
  EXPECT_EQ(token.find("corp"), std::string::npos);
  EXPECT_NE(token.substr(25), tokens_.Make("another", {5}).substr(25));
}

}  // namespace
}  // namespace userintent::usecase
