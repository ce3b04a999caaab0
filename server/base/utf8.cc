#include "server/base/utf8.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "server/base/text.h"

namespace userintent {

bool IsUtf8(std::string_view text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const unsigned char* const end = at + text.size();
  while (at != end) {
    // Most text is ASCII, which is passed over eight bytes at a time.
    uint64_t some;
    if (end - at >= static_cast<std::ptrdiff_t>(sizeof some)) {
      std::memcpy(&some, at, sizeof some);
      if ((some & 0x8080808080808080) == 0) {
        at += sizeof some;
        continue;
      }
    }
    if (*at < 0x80) {
      ++at;
    } else if (DecodeUtf8(at, end) == kDamagedUtf8) {
      return false;
    }
  }
  return true;
}

bool IsAstraId(std::string_view text) {
  constexpr size_t kLongest = 256;
  return !text.empty() && text.size() <= kLongest && IsUtf8(text) && !HasUnicodeControl(text);
}

}  // namespace userintent
