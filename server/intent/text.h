// text: what a piece of UTF-8 text is made of, found in one pass; and its Unicode normal forms. Pure functions; any
// thread. Properties and normal forms of characters are those of ICU, which follows the Unicode version of its release.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace userintent::intent {

struct TextTraits {
  bool valid = true;      // well-formed UTF-8 (server/base/utf8.h)
  bool safe = true;       // no control (C0, DEL, C1) and no bidirectional embedding, override or isolate characters
  bool blank = true;      // no visible character (below); true for the empty text
  bool spaces = true;     // nothing but Unicode White_Space; true for the empty text
  size_t characters = 0;  // Unicode code points
};

// For text that is not valid, the other members describe what comes before the damage.
TextTraits InspectText(std::string_view text);

// A visible character is one that can be seen with nothing around it. By their properties these are not: White_Space,
// Default_Ignorable_Code_Point (zero width characters, fillers, joiners, variation selectors, tags), controls and other
// format characters, combining marks (they need a letter to sit on), noncharacters. And a few symbols and letters that
// are blank by their definition, for which Unicode has no property, such as U+2800 BRAILLE PATTERN BLANK.
// A character that is assigned in a newer version of Unicode, or privately, counts as visible: names are written with
// new ideographs before every library knows them, and a person must not be locked out for that.
bool IsVisible(char32_t point);

bool IsAscii(std::string_view text);

enum class Form {
  kNfc,           // canonical, composed: what most keyboards make
  kNfd,           // canonical, decomposed: what some file systems and older Macs make
  kNfkc,          // compatibility, composed: full-width letters are plain ones
  kNfkcCasefold,  // as NFKC, in lower case, without default-ignorable characters
};

// The text in that form. ASCII is copied as it is, except that kNfkcCasefold lowers it. The text is valid UTF-8.
std::string Normalized(std::string_view text, Form form);

// One byte for each character: ASCII letters in lower case and ASCII digits; '#' for another letter, '9' for another
// number, '+' for a mark, and ' ' for everything else. The text is valid UTF-8.
std::string Outline(std::string_view text);

}  // namespace userintent::intent
