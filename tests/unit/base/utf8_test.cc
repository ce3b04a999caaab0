#include "server/base/utf8.h"

#include <string>

#include "gtest/gtest.h"

namespace userintent {
namespace {

using std::string_literals::operator""s;

TEST(Utf8, IsWellFormedOrNot) {
  for (const std::string& text :
       {""s, "plain"s, "\0"s, "\x7f"s, "\xc2\x80"s, "\xdf\xbf"s, "\xe0\xa0\x80"s, "\xed\x9f\xbf"s, "\xee\x80\x80"s,
        "\xef\xbf\xbf"s, "\xf0\x90\x80\x80"s, "\xf4\x8f\xbf\xbf"s, "a\xc3\xa9z"s}) {
    EXPECT_TRUE(IsUtf8(text)) << testing::PrintToString(text);
  }
  for (const std::string& text :
       {"\x80"s, "\xbf"s, "\xc0\x80"s, "\xc1\xbf"s, "\xc2"s, "\xc2z"s, "\xe0\x9f\xbf"s, "\xe2\x82"s, "\xed\xa0\x80"s,
        "\xed\xbf\xbf"s, "\xf0\x8f\xbf\xbf"s, "\xf4\x90\x80\x80"s, "\xf5\x80\x80\x80"s, "\xff"s, "z\xc3"s}) {
    EXPECT_FALSE(IsUtf8(text)) << testing::PrintToString(text);
  }
}

TEST(AstraId, IsAnyShortTextThatCanBeKeptAndShown) {
  for (const std::string& id : {"7"s, " "s, "a b/c?d"s, "\xc3\xa9\xf0\x9f\x98\x80"s, std::string(256, 'i')}) {
    EXPECT_TRUE(IsAstraId(id)) << testing::PrintToString(id);
  }
  for (const std::string& id : {""s, std::string(257, 'i'), "a\nb"s, "\0"s, "\x7f"s, "a\xc2\x85"s, "i\xed\xa0\x80"s,
                                "i\xed\xb0\x80"s, "i\xff"s, "i\xc3"s}) {
    EXPECT_FALSE(IsAstraId(id)) << testing::PrintToString(id);
  }
}

}  // namespace
}  // namespace userintent
