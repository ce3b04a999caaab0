#include "server/base/text.h"

#include <string>

#include "absl/strings/ascii.h"
#include "gtest/gtest.h"

namespace userintent {
namespace {

using std::string_literals::operator""s;

TEST(Text, EveryByteIsInTheSetsThatAbseilPutsItIn) {
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    const auto byte = static_cast<unsigned char>(i);
    EXPECT_EQ(IsDigit(c), absl::ascii_isdigit(byte)) << i;
    EXPECT_EQ(IsUpper(c), absl::ascii_isupper(byte)) << i;
    EXPECT_EQ(IsLower(c), absl::ascii_islower(byte)) << i;
    EXPECT_EQ(IsAlnum(c), absl::ascii_isalnum(byte)) << i;
    EXPECT_EQ(IsPrintable(c), absl::ascii_isprint(byte)) << i;
    EXPECT_EQ(IsVisible(c), absl::ascii_isgraph(byte)) << i;
    EXPECT_EQ(IsControl(c), absl::ascii_iscntrl(byte)) << i;
    EXPECT_EQ(ToLower(c), absl::ascii_tolower(byte)) << i;
  }
}

TEST(Text, OneWrongByteAnywhereCounts) {
  for (const bool end : {false, true}) {
    const auto with = [end](const char* byte) { return end ? "77"s + byte : byte + "77"s; };
    EXPECT_TRUE(AllDigits(with("0")));
    EXPECT_FALSE(AllDigits(with("a")));
    EXPECT_TRUE(AllPrintable(with(" ")));
    EXPECT_FALSE(AllPrintable(with("\x7f")));
    EXPECT_FALSE(AllPrintable(with("\xc3")));
    EXPECT_TRUE(AllVisible(with("~")));
    EXPECT_FALSE(AllVisible(with(" ")));
    EXPECT_TRUE(HasControlCharacter(with("\n")));
    EXPECT_FALSE(HasControlCharacter(with("\xff")));
  }
  EXPECT_TRUE(HasControlCharacter("a\0b"s));
  EXPECT_TRUE(AllDigits("") && AllPrintable("") && AllVisible("") && !HasControlCharacter(""));
}

TEST(Text, UnicodeControlsAreC0DelAndC1) {
  for (const char* text : {"a\n", "\x7f", "\xc2\x80",
                           "a\xc2\x9f"
                           "b"})
    EXPECT_TRUE(HasUnicodeControl(text)) << text;
  // U+00A0, U+00C0, U+0100 and U+4080, whose last byte is 0x80
  for (const char* text : {"", "a b", "\xc2\xa0", "\xc3\x80", "\xc4\x80", "\xe4\x82\x80"}) {
    EXPECT_FALSE(HasUnicodeControl(text)) << text;
  }
}

TEST(Text, LowerCase) {
  EXPECT_TRUE(EqualsLower("Retry-AFTER", "retry-after"));
  EXPECT_TRUE(EqualsLower("", ""));
  EXPECT_FALSE(EqualsLower("retry-afte", "retry-after"));
  EXPECT_FALSE(EqualsLower("retry-aftes", "retry-after"));
  EXPECT_FALSE(EqualsLower("[", "{"));  // differ by the bit that tells letters' case
  std::string text = "AZaz[@{\xc3\x84";
  MakeLower(&text);
  EXPECT_EQ(text, "azaz[@{\xc3\x84");
}

TEST(Text, PercentEncoding) {
  EXPECT_EQ(PercentEncoded("Az09-._"), "Az09-._");
  EXPECT_EQ(PercentEncoded("a/b c%?\xff\n"), "a%2Fb%20c%25%3F%FF%0A");
  EXPECT_EQ(PercentEncoded("a/b:c", "/"), "a/b%3Ac");
  EXPECT_EQ(PercentEncoded("\0"s), "%00");
  EXPECT_EQ(PercentEncoded(""), "");
}

}  // namespace
}  // namespace userintent
