// Text that people write: InspectText, IsUtf8, normal forms, NamesPoBox, and UUIDs and names of the identity of
// callers.
//
// The oracle: ICU's own reading of UTF-8; a PO box behind any text is found; a text's normal form is its own.
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <string>

#include "server/base/text.h"
#include "server/base/utf8.h"
#include "server/base/uuid.h"
#include "server/intent/po_box.h"
#include "server/intent/text.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using intent::Form;
using intent::TextTraits;

TextTraits ByIcu(std::string_view text) {
  TextTraits traits;
  const auto* const bytes = reinterpret_cast<const uint8_t*>(text.data());
  const auto size = static_cast<int32_t>(text.size());
  for (int32_t at = 0; at < size;) {
    UChar32 point = 0;
    U8_NEXT(bytes, at, size, point);  // NOLINT(bugprone-inc-dec-in-conditions): the macro
    if (point < 0) {
      traits.valid = false;
      return traits;
    }
    ++traits.characters;
    const bool bidi = (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
    if (u_charType(point) == U_CONTROL_CHAR || bidi) traits.safe = false;
    if (!u_isUWhiteSpace(point)) traits.spaces = false;
    if (intent::IsVisible(static_cast<char32_t>(point))) traits.blank = false;
  }
  return traits;
}

void CheckForms(std::string_view text) {
  for (const Form form : {Form::kNfc, Form::kNfd, Form::kNfkc, Form::kNfkcCasefold}) {
    const std::string normal = Timed([&] { return Normalized(text, form); });
    Check(IsUtf8(normal), "a normal form is UTF-8");
    Check(Normalized(normal, form) == normal, "a normal form is its own");
  }
  const std::string composed = Normalized(text, Form::kNfc);
  Check(Normalized(Normalized(text, Form::kNfd), Form::kNfc) == composed, "the forms are of the same text");
}

void CheckPoBox(const std::string& text) {
  const bool named = Timed([&] { return intent::NamesPoBox(text); });
  const bool bare = Timed([&] { return intent::IsBareBox(text); });
  if (named || bare) {
    const std::string plain = Normalized(text, Form::kNfkcCasefold);
    Check(plain.find_first_of("bdl") != std::string::npos, "a PO box has a b, a d or an l in its name");
  }
  for (const char* box : {" PO Box 7", " p.o. box 7", " Post Office Box 7", " P0B0X 7"}) {
    Check(Timed([&] { return intent::NamesPoBox(text + box); }), "a PO box is found behind any text");
  }
  Check(Timed([&] { return intent::NamesPoBox("PO Box 7 " + text); }), "and before any text");
}

}  // namespace

void Target(std::string_view input) {
  const TextTraits traits = Timed([&] { return intent::InspectText(input); });
  const TextTraits expected = ByIcu(input);
  Check(traits.valid == expected.valid, "UTF-8 is what ICU reads");
  Check(traits.characters == expected.characters && traits.safe == expected.safe && traits.spaces == expected.spaces &&
            traits.blank == expected.blank,
        "a text's traits are those of its characters");
  Check(Timed([&] { return IsUtf8(input); }) == traits.valid, "two looks at UTF-8 say the same");

  const std::optional<Uuid> uuid = Timed([&] { return ParseUuid(input); });
  if (uuid) {
    std::string lower(input);
    MakeLower(&lower);
    Check(UuidText(*uuid) == lower, "a UUID is written as it was read");
  }
  if (!traits.valid) return;
  Check(
      HasUnicodeControl(input) ==
          [&] {
            const auto* const bytes = reinterpret_cast<const uint8_t*>(input.data());
            for (int32_t at = 0; at < static_cast<int32_t>(input.size());) {
              UChar32 point = 0;
              const auto size = static_cast<int32_t>(input.size());
              U8_NEXT(bytes, at, size, point);  // NOLINT(bugprone-inc-dec-in-conditions): the macro
              if (u_charType(point) == U_CONTROL_CHAR) return true;
            }
            return false;
          }(),
      "control characters are those of Unicode");
  CheckForms(input);
  CheckPoBox(std::string(input));
}

}  // namespace userintent::fuzz
