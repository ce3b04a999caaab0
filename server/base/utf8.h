// UTF-8 (RFC 3629): well-formed is what has no cut, overlong or surrogate sequences and nothing above U+10FFFF. And the
// one rule of what may be an id of Astra's, which needs it. Pure functions; any thread.
#pragma once

#include <string_view>

namespace userintent {

inline constexpr char32_t kDamagedUtf8 = 0xffffffff;

// The code point that starts at `at`, which is moved behind it; kDamagedUtf8, if none does. The byte there is not
// ASCII.
inline char32_t DecodeUtf8(const unsigned char*& at, const unsigned char* end) {
  const unsigned char lead = *at++;
  int more;
  char32_t least;
  char32_t point;
  if (lead >= 0xc2 && lead <= 0xdf) {
    more = 1, least = 0x80, point = lead & 0x1f;
  } else if ((lead & 0xf0) == 0xe0) {
    more = 2, least = 0x800, point = lead & 0x0f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    more = 3, least = 0x10000, point = lead & 0x07;
  } else {
    return kDamagedUtf8;
  }
  if (end - at < more) return kDamagedUtf8;
  for (; more > 0; --more) {
    const unsigned char next = *at++;
    if ((next & 0xc0) != 0x80) return kDamagedUtf8;
    point = point << 6 | (next & 0x3f);
  }
  if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return kDamagedUtf8;
  return point;
}

bool IsUtf8(std::string_view text);

// Whether it may be an id of Astra's (of an intent, of a user): 1-256 bytes of UTF-8 without control characters (C0,
// DEL, C1). Astra documents no form, so nothing else is asked of it, wherever it comes from: an answer, a webhook, a
// caller, an operator. What is kept and shown must fit a protobuf string, a database's text and a terminal.
bool IsAstraId(std::string_view text);

}  // namespace userintent
