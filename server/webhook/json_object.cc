#include "server/webhook/json_object.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "server/base/text.h"

// In this file: UTF-8; the parser; the writer.

namespace userintent::webhook {
namespace {

constexpr int kMostDeep = 64;

constexpr uint32_t kFirstHigh = 0xd800, kFirstLow = 0xdc00, kLastLow = 0xdfff;

bool IsHigh(uint32_t unit) { return unit >= kFirstHigh && unit < kFirstLow; }
bool IsLow(uint32_t unit) { return unit >= kFirstLow && unit <= kLastLow; }
bool IsSurrogate(uint32_t unit) { return unit >= kFirstHigh && unit <= kLastLow; }

uint32_t ByteAt(std::string_view text, size_t at) { return static_cast<unsigned char>(text[at]); }

// The character at the front of `text`, and of how many bytes it is; 0 bytes: not UTF-8. Surrogates pass; the parser
// refuses them where they came as bytes.
struct Decoded {
  uint32_t code = 0;
  size_t bytes = 0;
};

Decoded DecodeFirst(std::string_view text) {
  const uint32_t first = ByteAt(text, 0);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return {};
  static constexpr uint32_t kBits[] = {0, 0, 0x1f, 0x0f, 0x07};
  static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // fewer bytes would do for what is less
  uint32_t code = first & kBits[bytes];
  for (size_t i = 1; i < bytes; ++i) {
    if ((ByteAt(text, i) & 0xc0) != 0x80) return {};
    code = code << 6 | (ByteAt(text, i) & 0x3f);
  }
  if (code < kLeast[bytes] || code > 0x10ffff) return {};
  return {code, bytes};
}

void AppendUtf8(uint32_t code, WipedBuffer& out) {
  std::array<char, 4> bytes;
  size_t size = 0;
  const auto add = [&](uint32_t byte) { bytes[size++] = static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | code >> 6);
    add(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    add(0xe0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3f));
    add(0x80 | (code & 0x3f));
  } else {
    add(0xf0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3f));
    add(0x80 | (code >> 6 & 0x3f));
    add(0x80 | (code & 0x3f));
  }
  out.Append({bytes.data(), size});
}

std::optional<uint32_t> HexDigit(char c) {
  if (IsDigit(c)) return static_cast<uint32_t>(c - '0');
  const char lower = ToLower(c);
  if (lower >= 'a' && lower <= 'f') return static_cast<uint32_t>(lower - 'a' + 10);
  return std::nullopt;
}

class Parser {
 public:
  // `texts` has room for as many bytes as `body` has: what a string means is never longer than how it is written.
  Parser(std::string_view body, WipedBuffer& texts) : left_(body), texts_(texts) {}

  // One object and white space around it.
  bool ParseBody(std::vector<JsonMember>* members) {
    SkipSpace();
    if (!Take('{') || !ParseMembers(0, members)) return false;
    SkipSpace();
    return left_.empty();
  }

 private:
  void SkipSpace() {
    while (!left_.empty() && (left_[0] == ' ' || left_[0] == '\t' || left_[0] == '\n' || left_[0] == '\r')) Advance(1);
  }
  void Advance(size_t bytes) { left_.remove_prefix(bytes); }
  bool Next(char c) const { return !left_.empty() && left_[0] == c; }
  bool Take(char c) {
    if (!Next(c)) return false;
    Advance(1);
    return true;
  }
  bool TakeWord(std::string_view word) {
    if (left_.substr(0, word.size()) != word) return false;
    Advance(word.size());
    return true;
  }

  // After '{'. `depth` of the object: 0 for the outermost. `members` null: nobody looks at them.
  bool ParseMembers(int depth, std::vector<JsonMember>* members) {
    SkipSpace();
    if (Take('}')) return true;
    do {
      SkipSpace();
      JsonMember member;
      if (!ParseString(&member.name)) return false;
      SkipSpace();
      if (!Take(':') || !ParseValue(depth + 1, &member.value)) return false;
      if (members != nullptr) members->push_back(std::move(member));
      SkipSpace();
    } while (Take(','));
    return Take('}');
  }

  // `depth`: how many objects and arrays stand around the value.
  bool ParseValue(int depth, JsonValue* value) {
    using Kind = JsonValue::Kind;
    SkipSpace();
    if (left_.empty() || depth > kMostDeep) return false;
    switch (left_[0]) {
      case '"':
        value->kind = Kind::kString;
        return ParseString(&value->text);
      case '{':
        Advance(1);
        value->kind = depth == 1 ? Kind::kObject : Kind::kOther;
        return ParseMembers(depth, depth == 1 ? &value->members : nullptr);
      case '[':
        Advance(1);
        return SkipElements(depth);
      case 'n':
        value->kind = Kind::kNull;
        return TakeWord("null");
      case 't':
        return TakeWord("true");
      case 'f':
        return TakeWord("false");
      default:
        return SkipNumber();
    }
  }

  bool SkipElements(int depth) {
    SkipSpace();
    if (Take(']')) return true;
    do {
      JsonValue ignored;
      if (!ParseValue(depth + 1, &ignored)) return false;
      SkipSpace();
    } while (Take(','));
    return Take(']');
  }

  bool SkipDigits() {
    if (left_.empty() || !IsDigit(left_[0])) return false;
    while (!left_.empty() && IsDigit(left_[0])) Advance(1);
    return true;
  }

  bool SkipNumber() {
    Take('-');
    if (!Take('0') && !SkipDigits()) return false;
    if (Take('.') && !SkipDigits()) return false;
    if (!Take('e') && !Take('E')) return true;
    if (!Take('+')) Take('-');
    return SkipDigits();
  }

  bool ParseString(std::string_view* text) {
    if (!Take('"')) return false;
    const size_t begin = texts_.size();
    while (!Take('"')) {
      if (left_.empty() || !TakeCharacter()) return false;
    }
    *text = texts_.view().substr(begin);
    return true;
  }

  bool TakeCharacter() {
    if (left_[0] == '\\') return TakeEscape();
    if (ByteAt(left_, 0) < 0x20) return false;
    const Decoded decoded = DecodeFirst(left_);
    if (decoded.bytes == 0 || IsSurrogate(decoded.code)) return false;
    texts_.Append(left_.substr(0, decoded.bytes));
    Advance(decoded.bytes);
    return true;
  }

  bool TakeEscape() {
    if (left_.size() < 2) return false;
    const char c = left_[1];
    if (c == 'u') return TakeUnicodeEscape();
    static constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    const size_t place = kNames.find(c);
    if (place == std::string_view::npos) return false;
    texts_.Append(kMeanings.substr(place, 1));
    Advance(2);
    return true;
  }

  // Two halves of a pair are one character; a half that stands alone is kept, as CPython does.
  bool TakeUnicodeEscape() {
    const std::optional<uint32_t> unit = UnicodeEscape();
    if (!unit) return false;
    Advance(6);
    if (IsHigh(*unit)) {
      const std::optional<uint32_t> second = UnicodeEscape();
      if (second && IsLow(*second)) {
        Advance(6);
        AppendUtf8(0x10000 + ((*unit - kFirstHigh) << 10) + (*second - kFirstLow), texts_);
        return true;
      }
    }
    AppendUtf8(*unit, texts_);
    return true;
  }

  // The \uXXXX at the front, if there is one.
  std::optional<uint32_t> UnicodeEscape() const {
    if (left_.size() < 6 || left_[0] != '\\' || left_[1] != 'u') return std::nullopt;
    uint32_t unit = 0;
    for (size_t i = 2; i < 6; ++i) {
      const std::optional<uint32_t> digit = HexDigit(left_[i]);
      if (!digit) return std::nullopt;
      unit = unit << 4 | *digit;
    }
    return unit;
  }

  std::string_view left_;
  WipedBuffer& texts_;
};

bool NamesDiffer(const std::vector<JsonMember>& members) {
  absl::flat_hash_set<std::string_view> seen;
  return std::all_of(members.begin(), members.end(),
                     [&](const JsonMember& member) { return seen.insert(member.name).second; });
}

bool IsPlain(const std::vector<JsonMember>& members, bool objects_allowed) {
  using Kind = JsonValue::Kind;
  const auto plain = [&](const JsonMember& member) {
    return member.value.kind == Kind::kString ||
           (objects_allowed && member.value.kind == Kind::kObject && IsPlain(member.value.members, false));
  };
  return NamesDiffer(members) && std::all_of(members.begin(), members.end(), plain);
}

void AppendUnit(uint32_t unit, std::string& out) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  out += "\\u";
  for (const int shift : {12, 8, 4, 0}) out += kHex[unit >> shift & 0xf];
}

void WriteCharacter(uint32_t code, std::string& out) {
  static constexpr std::string_view kNamed = "\"\\\n\r\t\b\f", kNames = "\"\\nrtbf";
  const size_t place = code < 0x80 ? kNamed.find(static_cast<char>(code)) : std::string_view::npos;
  if (place != std::string_view::npos) {
    out += '\\';
    out += kNames[place];
  } else if (code < 0x80 && IsPrintable(static_cast<char>(code))) {
    out += static_cast<char>(code);
  } else if (code < 0x10000) {
    AppendUnit(code, out);
  } else {
    AppendUnit(kFirstHigh + ((code - 0x10000) >> 10), out);
    AppendUnit(kFirstLow + ((code - 0x10000) & 0x3ff), out);
  }
}

void WriteString(std::string_view text, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const Decoded decoded = DecodeFirst(text);
    WriteCharacter(decoded.code, out);
    text.remove_prefix(decoded.bytes);
  }
  out += '"';
}

void WriteObject(const std::vector<JsonMember>& members, std::string& out) {
  out += '{';
  for (const JsonMember& member : members) {
    if (&member != members.data()) out += ", ";
    WriteString(member.name, out);
    out += ": ";
    if (member.value.kind == JsonValue::Kind::kObject) {
      WriteObject(member.value.members, out);
    } else {
      WriteString(member.value.text, out);
    }
  }
  out += '}';
}

// The written object is at most as long: each byte of a text becomes six at most, each string has its quotes and four
// bytes of punctuation.
size_t LongestForm(const std::vector<JsonMember>& members) {
  size_t bytes = 2;
  for (const JsonMember& member : members) {
    bytes += 6 * (member.name.size() + member.value.text.size()) + 8 + LongestForm(member.value.members);
  }
  return bytes;
}

}  // namespace

std::optional<JsonObject> JsonObject::Parse(std::string_view body) {
  JsonObject object(std::make_unique<WipedBuffer>(body.size()));
  if (!Parser(body, *object.texts_).ParseBody(&object.members_)) return std::nullopt;
  object.plain_ = IsPlain(object.members_, true);
  return object;
}

std::string JsonObject::PythonForm() const {
  std::string text;
  text.reserve(LongestForm(members_));  // growing would leave copies behind
  WriteObject(members_, text);
  return text;
}

}  // namespace userintent::webhook
