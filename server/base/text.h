// text: ASCII, byte by byte. These questions have their one home here, so that "printable" or "control" means the same
// bytes everywhere. Unlike Abseil's, the functions take a char without a cast and may stand in constant expressions.
//
// Pure functions; any thread. Each takes any byte; those above 0x7e are in none of the sets.
#pragma once

#include <string>
#include <string_view>

namespace userintent {

constexpr bool IsDigit(char c) { return c >= '0' && c <= '9'; }
constexpr bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
constexpr bool IsAlnum(char c) { return IsDigit(c) || IsUpper(c) || IsLower(c); }
constexpr char ToLower(char c) { return IsUpper(c) ? static_cast<char>(c | 0x20) : c; }

// The space counts as printable and not as visible.
constexpr bool IsPrintable(char c) { return c >= ' ' && c <= '~'; }
constexpr bool IsVisible(char c) { return c > ' ' && c <= '~'; }
constexpr bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }  // C0 and DEL

// Each is true of the empty text.
constexpr bool AllDigits(std::string_view text) {
  for (const char c : text) {
    if (!IsDigit(c)) return false;
  }
  return true;
}
constexpr bool AllPrintable(std::string_view text) {
  for (const char c : text) {
    if (!IsPrintable(c)) return false;
  }
  return true;
}
constexpr bool AllVisible(std::string_view text) {
  for (const char c : text) {
    if (!IsVisible(c)) return false;
  }
  return true;
}

constexpr bool HasControlCharacter(std::string_view text) {
  for (const char c : text) {
    if (IsControl(c)) return true;
  }
  return false;
}

// Also C1 (U+0080 to U+009F). The text is valid UTF-8.
bool HasUnicodeControl(std::string_view text);

// `lower` holds no capital letter.
bool EqualsLower(std::string_view text, std::string_view lower);
void MakeLower(std::string* text);

// Percent-encoded (RFC 3986), with capital hex digits. Letters, digits, '-', '.', '_' and the bytes in `plain` stay as
// they are.
std::string PercentEncoded(std::string_view text, std::string_view plain = "");

// Without the blanks and line ends around it.
constexpr std::string_view TrimBlanks(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace userintent
