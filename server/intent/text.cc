#include "server/intent/text.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "server/base/text.h"
#include "server/base/utf8.h"

namespace userintent::intent {
namespace {

using Byte = unsigned char;

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

// Drawn as nothing, by their definition: Unicode has no property for it.
constexpr char32_t kBlankByDefinition[] = {
    0x2800,   // BRAILLE PATTERN BLANK
    0xfffc,   // OBJECT REPLACEMENT CHARACTER, the place of something that is not text
    0x1d159,  // MUSICAL SYMBOL NULL NOTEHEAD
    0x13441,  // EGYPTIAN HIEROGLYPH FULL BLANK
    0x13442,  // EGYPTIAN HIEROGLYPH HALF BLANK
};

const icu::Normalizer2& Normalizer(Form form) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = nullptr;
  switch (form) {
    case Form::kNfc:
      normalizer = icu::Normalizer2::getNFCInstance(error);
      break;
    case Form::kNfd:
      normalizer = icu::Normalizer2::getNFDInstance(error);
      break;
    case Form::kNfkc:
      normalizer = icu::Normalizer2::getNFKCInstance(error);
      break;
    case Form::kNfkcCasefold:
      normalizer = icu::Normalizer2::getNFKCCasefoldInstance(error);
      break;
  }
  // The data belong to the library: without them it is not installed as a whole, and no comparison can be trusted.
  if (U_FAILURE(error) || normalizer == nullptr) std::abort();
  return *normalizer;
}

}  // namespace

bool IsVisible(char32_t point) {
  if (point < 0x80) return point > ' ' && point < 0x7f;
  const auto c = static_cast<UChar32>(point);
  constexpr uint32_t kNeverAlone = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_M_MASK | U_GC_Z_MASK;
  if ((U_GET_GC_MASK(c) & kNeverAlone) != 0 || U_IS_UNICODE_NONCHAR(c)) return false;
  if (u_hasBinaryProperty(c, UCHAR_WHITE_SPACE) || u_hasBinaryProperty(c, UCHAR_DEFAULT_IGNORABLE_CODE_POINT)) {
    return false;
  }
  return std::find(std::begin(kBlankByDefinition), std::end(kBlankByDefinition), point) == std::end(kBlankByDefinition);
}

TextTraits InspectText(std::string_view text) {
  TextTraits traits;
  const auto* at = reinterpret_cast<const Byte*>(text.data());
  const Byte* const end = at + text.size();
  while (at != end) {
    if (*at < 0x80) {
      const Byte c = *at++;
      if (c > ' ' && c < 0x7f) {
        traits.blank = traits.spaces = false;
      } else if (c != ' ') {
        traits.safe = false;
        if (c < '\t' || c > '\r') traits.spaces = false;
      }
    } else {
      const char32_t point = DecodeUtf8(at, end);
      if (point == kDamagedUtf8) {
        traits.valid = false;
        return traits;
      }
      if (IsUnsafe(point)) traits.safe = false;
      if (!IsWideSpace(point)) {
        traits.spaces = false;
        traits.blank = traits.blank && !IsVisible(point);
      }
    }
    ++traits.characters;
  }
  return traits;
}

bool IsAscii(std::string_view text) {
  uint64_t seen = 0;
  const char* at = text.data();
  size_t left = text.size();
  for (; left >= sizeof seen; at += sizeof seen, left -= sizeof seen) {
    uint64_t some;
    std::memcpy(&some, at, sizeof some);
    seen |= some;
  }
  for (; left > 0; ++at, --left) seen |= static_cast<Byte>(*at);
  return (seen & 0x8080808080808080) == 0;
}

std::string Normalized(std::string_view text, Form form) {
  if (form != Form::kNfkcCasefold && IsAscii(text)) return std::string(text);
  std::string result;
  icu::StringByteSink<std::string> sink(&result);
  UErrorCode error = U_ZERO_ERROR;
  Normalizer(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr,
                                 error);
  if (U_FAILURE(error)) std::abort();  // only memory can run out
  return result;
}

std::string Outline(std::string_view text) {
  std::string outline;
  outline.reserve(text.size());
  const auto* at = reinterpret_cast<const Byte*>(text.data());
  const Byte* const end = at + text.size();
  while (at != end) {
    if (*at < 0x80) {
      const char c = ToLower(static_cast<char>(*at++));
      outline += IsLower(c) || IsDigit(c) ? c : ' ';
      continue;
    }
    const uint32_t mask = U_GET_GC_MASK(static_cast<UChar32>(DecodeUtf8(at, end)));
    outline += (mask & U_GC_L_MASK) != 0   ? '#'
               : (mask & U_GC_N_MASK) != 0 ? '9'
               : (mask & U_GC_M_MASK) != 0 ? '+'
                                           : ' ';
  }
  return outline;
}

}  // namespace userintent::intent
