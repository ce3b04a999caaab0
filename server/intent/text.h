// text: what a piece of UTF-8 text is made of, found in one pass. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <string_view>

namespace userintent::intent {

struct TextTraits {
  bool valid = true;      // well-formed UTF-8: no cut, overlong or surrogate sequences, nothing above U+10FFFF
  bool safe = true;       // no control (C0, DEL, C1) and no bidirectional embedding, override or isolate characters
  bool blank = true;      // nothing but Unicode White_Space; true for the empty text
  size_t characters = 0;  // Unicode code points
};

// For text that is not valid, the other members describe what comes before the damage.
TextTraits InspectText(std::string_view text);

bool IsUtf8(std::string_view text);

}  // namespace userintent::intent
