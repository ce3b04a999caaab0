#include "server/base/wipe.h"

#include <algorithm>

#include "gtest/gtest.h"
#include "server/base/secret.h"

namespace userintent {
namespace {

// Longer than what a string keeps inside itself, so that its bytes stay where they were.
constexpr std::string_view kLong = "an invented secret that is longer than any short string";

TEST(Wipe, ClearsTheWholeCapacity) {
  std::string text(kLong);
  text.resize(3);  // the rest is still there, behind the end
  const char* const bytes = text.data();
  ASSERT_EQ(std::string_view(bytes + 4, 5), kLong.substr(4, 5));
  Wipe(text);
  EXPECT_TRUE(text.empty());
  ASSERT_EQ(text.data(), bytes);
  ASSERT_GE(text.capacity(), kLong.size());
  EXPECT_TRUE(std::all_of(bytes, bytes + kLong.size(), [](char c) { return c == '\0'; }));
}

TEST(Wipe, UsedBytesOnlyAndTheCapacityStays) {
  std::string text(kLong);
  const char* const bytes = text.data();
  const size_t capacity = text.capacity();
  text.resize(4);
  WipeUsed(text);
  EXPECT_TRUE(text.empty());
  EXPECT_EQ(text.capacity(), capacity);
  EXPECT_EQ(std::string_view(bytes, 4), std::string_view("\0\0\0\0", 4));
}

TEST(Wipe, ABufferNeverGrows) {
  WipedBuffer buffer(64);
  buffer.Append(kLong);
  const char* const bytes = buffer.data();
  EXPECT_EQ(buffer.view(), kLong);
  buffer.Append("x");
  EXPECT_EQ(buffer.data(), bytes);
  EXPECT_EQ(buffer.size(), kLong.size() + 1);
  EXPECT_DEATH(buffer.Append(kLong), "");
}

TEST(Wipe, ASecretThatIsGivenAwayLeavesNothingBehind) {
  Secret secret{std::string(kLong)};
  const char* const bytes = secret.Reveal().data();
  const Secret other = std::move(secret);
  EXPECT_EQ(other.Reveal(), kLong);
  EXPECT_TRUE(secret.empty());  // NOLINT(bugprone-use-after-move): moving wipes
  EXPECT_TRUE(std::all_of(bytes, bytes + kLong.size(), [](char c) { return c == '\0'; }));
}

}  // namespace
}  // namespace userintent
