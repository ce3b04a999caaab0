#include "server/intent/po_box.h"

#include <string>

#include "re2/re2.h"

namespace userintent::intent {
namespace {

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Almost no address line holds a box, and a regular expression costs more than all other rules together. So one pass
// over the letters and digits decides whether it is worth running: b(o)x, pob, draw(er), dwr, (apar)tad(o).
bool WorthALook(std::string_view line) {
  char last = 0;
  char before = 0;
  for (const char raw : line) {
    const char c = Lower(raw);
    if (!IsDigit(c) && (c < 'a' || c > 'z')) continue;
    const bool after_o = last == 'o' || last == '0';
    if (c == 'x' && (last == 'b' || (after_o && before == 'b'))) return true;
    if (c == 'b' && after_o && before == 'p') return true;
    if (c == 'w' && last == 'a' && before == 'r') return true;
    if (c == 'r' && last == 'w' && before == 'd') return true;
    if (c == 'd' && last == 'a' && before == 't') return true;
    before = last;
    last = c;
  }
  return false;
}

// Built once, never destroyed, so that threads may still match while the process ends.
const RE2& PoBoxPattern() {
  static const RE2& pattern = *[] {
    RE2::Options options;
    options.set_case_sensitive(false);
    options.set_log_errors(false);  // nothing about a person's address belongs in a log
    options.set_never_capture(true);
    const std::string gap = R"([^\pL\pN]{0,6})";  // between words: spaces of any kind, dots, dashes, nothing
    const std::string number = gap + R"((?:n[or]|num|number)?)" + gap + R"(\pN)";
    const std::string word_end = R"((?:[^\pL\pM]|$))";  // "PO Box12" ends the word, "PO Boxwood" does not
    const std::string po = "(?:p" + gap + "[o0]|post" + gap + "(?:office|offc|ofc|off))";
    const std::string box = "(?:b[o0]x|bx|drawer|dwr)";
    return new RE2(R"((?:^|[^\pL\pM]))"  // "Depo Box" is no PO box
                   "(?:" +
                       po + gap + box + word_end +                        // PO Box, Post Office Box, P0 B0x, PO Drawer
                       "|p" + gap + "[o0]" + gap + "b" + number +         // POB 7, P.O.B. No. 7
                       "|post(?:al)?" + gap + "box" + number +            // Post Box 7, Postal Box 7
                       "|apartado" + gap + "(?:postal)?" + number + ")",  // Puerto Rico
                   options);
  }();
  return pattern;
}

const RE2& BareBoxPattern() {
  static const RE2& pattern = *[] {
    RE2::Options options;
    options.set_case_sensitive(false);
    options.set_log_errors(false);
    options.set_never_capture(true);
    return new RE2(R"([^\pL\pN]*b[o0]x[^\pL\pN]*(?:n[or]|num|number)?[^\pL\pN]*\pN+[^\pL\pN]*\pL?[^\pL\pN]*)", options);
  }();
  return pattern;
}

}  // namespace

bool NamesPoBox(std::string_view line) {
  return WorthALook(line) && RE2::PartialMatch({line.data(), line.size()}, PoBoxPattern());
}

bool IsBareBox(std::string_view line) {
  return WorthALook(line) && RE2::FullMatch({line.data(), line.size()}, BareBoxPattern());
}

}  // namespace userintent::intent
