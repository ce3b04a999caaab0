#include "server/base/trace_context.h"

#include <algorithm>

#include "server/base/text.h"
#include "server/base/uuid.h"

namespace userintent {
namespace {

// "00-" + 32 digits + "-" + 16 digits + "-" + 2 digits.
constexpr size_t kLength = 55;

int Digit(char c) {
  if (IsDigit(c)) return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Lower-case digits only, as the standard wants them.
template <size_t N>
bool ReadHex(std::string_view text, std::array<uint8_t, N>& out) {
  for (size_t i = 0; i < N; ++i) {
    const int high = Digit(text[2 * i]);
    const int low = Digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

template <size_t N>
void AppendHex(const std::array<uint8_t, N>& bytes, std::string& text) {
  static constexpr char kHex[] = "0123456789abcdef";
  for (const uint8_t byte : bytes) {
    text += kHex[byte >> 4];
    text += kHex[byte & 15];
  }
}

template <size_t N>
bool AllZero(const std::array<uint8_t, N>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view text) {
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  std::array<uint8_t, 1> version{};
  std::array<uint8_t, 1> flags{};
  TraceContext context;
  if (!ReadHex(text.substr(0, 2), version) || !ReadHex(text.substr(3, 32), context.trace_id) ||
      !ReadHex(text.substr(36, 16), context.span_id) || !ReadHex(text.substr(53, 2), flags)) {
    return std::nullopt;
  }
  if (version[0] == 0xff || AllZero(context.trace_id) || AllZero(context.span_id)) return std::nullopt;
  // A later version may have more to say, behind another dash.
  if (text.size() > kLength && (version[0] == 0 || text[kLength] != '-')) return std::nullopt;
  context.sampled = (flags[0] & 1) != 0;
  return context;
}

std::string TraceparentText(const TraceContext& context) {
  std::string text;
  text.reserve(kLength);
  text += "00-";
  AppendHex(context.trace_id, text);
  text += '-';
  AppendHex(context.span_id, text);
  text += context.sampled ? "-01" : "-00";
  return text;
}

std::string TraceIdText(const TraceId& id) {
  std::string text;
  AppendHex(id, text);
  return text;
}

std::string SpanIdText(const SpanId& id) {
  std::string text;
  AppendHex(id, text);
  return text;
}

TraceId NewTraceId() {
  // A random UUID has 122 random bits and is never zero; its seven last bytes are random, as level 2 of the standard
  // wants them.
  return RandomUuid();
}

SpanId NewSpanId() {
  SpanId id{};
  const Uuid random = RandomUuid();
  std::copy(random.begin() + 8, random.end(), id.begin());  // its first bit is set, so it is not zero
  return id;
}

}  // namespace userintent
