#include "server/http/answer_head.h"

#include <array>

#include "server/base/text.h"
#include "server/http/exchange_text.h"

namespace userintent::http {
namespace {

// One look at each byte of a field: this runs for every field of every answer.
enum : uint8_t { kNameByte = 1, kUpperCase = 2, kUnreadable = 4 };
constexpr std::array<uint8_t, 256> kBytes = [] {
  std::array<uint8_t, 256> bytes{};
  for (size_t c = 0; c < 0x20; ++c) bytes[c] = c == '\t' ? 0 : kUnreadable;
  bytes[0x7f] = kUnreadable;
  // RFC 9110 section 5.6.2, in lower case as HTTP/2 wants it.
  for (const char c : std::string_view("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")) {
    bytes[static_cast<unsigned char>(c)] = kNameByte;
  }
  for (size_t c = 'A'; c <= 'Z'; ++c) bytes[c] = kUpperCase;
  return bytes;
}();

uint8_t Byte(char c) { return kBytes[static_cast<unsigned char>(c)]; }

// Of the connection, which in HTTP/2 has frames for such things (RFC 9113 section 8.2.2). Servers behind a proxy that
// only translates send them all the same.
bool IsOfTheConnection(std::string_view name) {
  switch (name.size()) {
    case 2:
      return name == "te";
    case 7:
      return name == "upgrade";
    case 10:
      return name == "connection" || name == "keep-alive";
    case 16:
      return name == "proxy-connection";
    case 17:
      return name == "transfer-encoding";
    default:
      return false;
  }
}

}  // namespace

AnswerHead::Field AnswerHead::Fault(std::string_view what) {
  if (fault_.empty()) fault_ = what;
  return Field::kMalformed;
}

void AnswerHead::Begin() {
  regular_ = false;
  if (!done_) status_ = 0;
}

bool AnswerHead::ReadStatus(std::string_view value) {
  if (value.size() != 3 || value[0] < '1' || !AllDigits(value)) return false;
  status_ = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
  return status_ != 101;  // HTTP/2 switches to nothing
}

// The same length again says nothing new (RFC 9110 section 8.6).
bool AnswerHead::ReadLength(std::string_view value) {
  if (value.empty() || value.size() > 18 || !AllDigits(value)) return false;
  int64_t length = 0;
  for (const char digit : value) length = length * 10 + (digit - '0');
  if (length_ >= 0 && length_ != length) return false;
  length_ = length;
  return true;
}

AnswerHead::Field AnswerHead::ReadPseudo(std::string_view name, std::string_view value) {
  if (name != ":status") return Fault("malformed answer: unknown pseudo-header field");
  if (done_) return Fault("malformed answer: status in the trailers");
  if (regular_) return Fault("malformed answer: status after other fields");
  if (status_ != 0) return Fault("malformed answer: status twice");
  return ReadStatus(value) ? Field::kSkip : Fault("malformed answer: status is none");
}

AnswerHead::Field AnswerHead::Read(std::string_view name, std::string_view* value) {
  if (name.starts_with(':')) return ReadPseudo(name, *value);
  regular_ = true;
  if (!done_ && status_ == 0) return Fault("malformed answer: no status before other fields");
  uint8_t any = 0;
  uint8_t all = kNameByte;
  for (const char byte : name) {
    any |= Byte(byte);
    all &= Byte(byte);
  }
  if ((any & kUpperCase) != 0) return Fault("malformed answer: field name in upper case");
  *value = TrimBlanks(*value);
  uint8_t in_value = 0;
  for (const char byte : *value) in_value |= Byte(byte);
  const bool readable = !name.empty() && all == kNameByte && (in_value & kUnreadable) == 0 && !IsOfTheConnection(name);
  if (done_ || status_ < 200) return readable ? Field::kSkip : Field::kIgnore;
  if (name == "content-length" && !ReadLength(*value)) return Fault("malformed answer: content-length is none");
  return readable ? Field::kTake : Field::kIgnore;
}

bool AnswerHead::EndHead(bool end_stream) {
  if (done_) {
    if (!end_stream) Fault("malformed answer: a head within the body");
  } else if (status_ == 0) {
    Fault("malformed answer: no status");
  } else if (status_ >= 200) {
    done_ = true;
    if (status_ == 204 || status_ == 304) length_ = 0;  // whatever they announce, they have no body
  } else if (end_stream) {
    Fault("malformed answer: an interim head ends it");
  }
  return fault_.empty();
}

bool AnswerHead::ReadBody(size_t bytes) {
  received_ += bytes;
  if (!done_) Fault("malformed answer: a body before the head");
  if (length_ >= 0 && received_ > static_cast<uint64_t>(length_)) Fault("malformed answer: more body than announced");
  return fault_.empty();
}

bool AnswerHead::EndBody() {
  if (!done_) Fault("malformed answer: it ends before a final head");
  if (length_ >= 0 && received_ < static_cast<uint64_t>(length_)) Fault("malformed answer: less body than announced");
  return fault_.empty();
}

}  // namespace userintent::http
