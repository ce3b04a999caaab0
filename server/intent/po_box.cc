#include "server/intent/po_box.h"

#include <string>

#include "re2/re2.h"
#include "server/base/text.h"
#include "server/base/wipe.h"
#include "server/intent/text.h"

namespace userintent::intent {
namespace {

// Almost no address line holds a box, and a regular expression costs more than all other rules together. So one pass
// over the letters and digits decides whether it is worth running: b(o)x, pob, draw(er), dwr, bin, (ca)lle(r),
// (apar)tad(o), (a)pdo, (ap)tdo.
bool WorthALook(std::string_view line) {
  char last = 0;
  char before = 0;
  for (const char raw : line) {
    const char c = ToLower(raw);
    if (!IsDigit(c) && !IsLower(c)) continue;
    const bool after_o = last == 'o' || last == '0';
    if (c == 'x' && (last == 'b' || (after_o && before == 'b'))) return true;
    if (c == 'b' && after_o && before == 'p') return true;
    if (c == 'w' && last == 'a' && before == 'r') return true;
    if (c == 'r' && last == 'w' && before == 'd') return true;
    if (c == 'n' && last == 'i' && before == 'b') return true;
    if (c == 'e' && last == 'l' && before == 'l') return true;
    if (c == 'd' && last == 'a' && before == 't') return true;
    if (c == 'o' && last == 'd' && (before == 'p' || before == 't')) return true;
    before = last;
    last = c;
  }
  return false;
}

// The same for a line that is a designation as a whole: (firm) caller, bin, box, lockbox, drawer. Most address lines
// begin with a digit.
bool BeginsLikeADesignation(std::string_view line) {
  for (const char raw : line) {
    const char c = ToLower(raw);
    if (IsLower(c)) return c == 'b' || c == 'c' || c == 'd' || c == 'f' || c == 'l';
    if (IsDigit(c)) return false;
  }
  return false;
}

// Patterns read a line's outline (text.h), which has one byte for each character: with the classes of Unicode in them,
// gap by gap, the programs would be so large that the first line of a process took a tenth of a second.
RE2::Options Quiet() {
  RE2::Options options;
  options.set_encoding(RE2::Options::EncodingLatin1);
  options.set_log_errors(false);  // nothing about a person's address belongs in a log
  options.set_never_capture(true);
  return options;
}

const std::string& Gap() {  // between words: spaces of any kind, dots, dashes, nothing
  static const std::string& gap = *new std::string("[^a-z#0-9]{0,6}");
  return gap;
}

// Patterns are built once and never destroyed, so that threads may still match while the process ends.
const RE2& PoBoxPattern() {
  static const RE2& pattern = *[] {
    const std::string& gap = Gap();
    const std::string number = gap + "(?:n[or]|num|number)?" + gap + "[0-9]";
    const std::string word_end = "(?:[^a-z#+]|$)";  // "PO Box12" ends the word, "PO Boxwood" does not
    const std::string po = "(?:p" + gap + "[o0]|post" + gap + "(?:office|offc|ofc|off))";
    const std::string box = "(?:(?:lock" + gap + ")?b[o0]x|bx|drawer|dwr)";
    const std::string numbered = "(?:bin|(?:firm" + gap + ")?caller)";
    return new RE2(
        "(?:^|[^a-z#+])"  // "Depo Box" is no PO box
        "(?:" +
            po + gap + box + word_end +                               // PO Box, Post Office Box, P0 B0x, PO Drawer
            "|" + po + gap + numbered + number +                      // PO Bin 7, PO Caller 7
            "|p" + gap + "[o0]" + gap + "b" + number +                // POB 7, P.O.B. No. 7
            "|post(?:al)?" + gap + "box" + number +                   // Post Box 7, Postal Box 7
            "|(?:apartado|apdo|aptdo)" + gap +                        // Puerto Rico: Apartado 7, Apdo. Postal 7,
            "(?:postal|(?:de" + gap + ")?correos?)?" + number + ")",  // Apartado de Correos 7
        Quiet());
  }();
  return pattern;
}

// One word and a number, and nothing else. The number may have a letter behind it.
std::string WholeLine(const std::string& word) {
  return "[^a-z#0-9]*" + word + "[^a-z#0-9]*(?:n[or]|num|number)?[^a-z#0-9]*[0-9]+[^a-z#0-9]*[a-z#]?[^a-z#0-9]*";
}

const RE2& DesignationPattern() {
  static const RE2& pattern =
      *new RE2(WholeLine("(?:drawer|dwr|bin|lock" + Gap() + "b[o0]x|(?:firm" + Gap() + ")?caller)"), Quiet());
  return pattern;
}

const RE2& BareBoxPattern() {
  static const RE2& pattern = *new RE2(WholeLine("b[o0]x"), Quiet());
  return pattern;
}

bool Matches(std::string_view line) {
  const bool worth_a_look = WorthALook(line);
  const bool designation = BeginsLikeADesignation(line);
  if (!worth_a_look && !designation) return false;
  std::string outline = Outline(line);
  const bool matches = (worth_a_look && RE2::PartialMatch(outline, PoBoxPattern())) ||
                       (designation && RE2::FullMatch(outline, DesignationPattern()));
  Wipe(outline);
  return matches;
}

bool MatchesBareBox(std::string_view line) {
  if (!BeginsLikeADesignation(line)) return false;
  std::string outline = Outline(line);
  const bool matches = RE2::FullMatch(outline, BareBoxPattern());
  Wipe(outline);
  return matches;
}

// The line as it is compared. Beyond ASCII twice: a character that cannot be seen may stand between two words, or
// inside of one.
bool AnyForm(std::string_view line, bool (*matches)(std::string_view)) {
  if (IsAscii(line)) return matches(line);
  return matches(Normalized(line, Form::kNfkc)) || matches(Normalized(line, Form::kNfkcCasefold));
}

}  // namespace

bool NamesPoBox(std::string_view line) { return AnyForm(line, Matches); }

bool IsBareBox(std::string_view line) { return AnyForm(line, MatchesBareBox); }

}  // namespace userintent::intent
