#include "server/intent/text.h"

#include <cstdint>

namespace userintent::intent {
namespace {

using Byte = unsigned char;

constexpr char32_t kDamaged = 0xffffffff;

// The code point that starts at `at`, which is moved behind it. The byte there is not ASCII.
char32_t Decode(const Byte*& at, const Byte* end) {
  const Byte lead = *at++;
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
    return kDamaged;
  }
  if (end - at < more) return kDamaged;
  for (; more > 0; --more) {
    const Byte next = *at++;
    if ((next & 0xc0) != 0x80) return kDamaged;
    point = point << 6 | (next & 0x3f);
  }
  if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return kDamaged;
  return point;
}

// Unicode property White_Space, above ASCII.
bool IsWideSpace(char32_t point) {
  return point == 0x85 || point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
         point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

// C1 controls, and the characters that can make text read in another order than it is stored. The plain marks U+061C,
// U+200E and U+200F stay allowed: names in right-to-left scripts use them, and they cannot hide anything.
bool IsUnsafe(char32_t point) {
  return point <= 0x9f || (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

}  // namespace

TextTraits InspectText(std::string_view text) {
  TextTraits traits;
  const auto* at = reinterpret_cast<const Byte*>(text.data());
  const Byte* const end = at + text.size();
  while (at != end) {
    if (*at < 0x80) {
      const Byte c = *at++;
      if (c > ' ' && c < 0x7f) {
        traits.blank = false;
      } else if (c != ' ') {
        traits.safe = false;
        if (c < '\t' || c > '\r') traits.blank = false;
      }
    } else {
      const char32_t point = Decode(at, end);
      if (point == kDamaged) {
        traits.valid = false;
        return traits;
      }
      if (IsUnsafe(point)) traits.safe = false;
      if (!IsWideSpace(point)) traits.blank = false;
    }
    ++traits.characters;
  }
  return traits;
}

bool IsUtf8(std::string_view text) {
  const auto* at = reinterpret_cast<const Byte*>(text.data());
  const Byte* const end = at + text.size();
  while (at != end) {
    if (*at < 0x80) {
      ++at;
    } else if (Decode(at, end) == kDamaged) {
      return false;
    }
  }
  return true;
}

}  // namespace userintent::intent
