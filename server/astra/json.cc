#include "server/astra/json.h"

#include <cstdint>
#include <cstring>
#include <string_view>

#include "server/intent/fields.h"

namespace userintent::astra {
namespace {

// Where the next byte is that may need an escape, from `at` on: eight at a time are looked at. Of a word of bytes, one
// below 0x20, and one that equals another byte (so that their difference is zero), has a borrow in its highest bit,
// which it does not have itself. One behind such a byte may be named as well, and is looked at alone.
size_t PlainBytes(std::string_view text, size_t at) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHighest = 0x8080808080808080;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, sizeof word);
    const uint64_t quote = word ^ (kOnes * '"'), backslash = word ^ (kOnes * '\\');
    if ((((word - kOnes * 0x20) | (quote - kOnes) | (backslash - kOnes)) & ~word & kHighest) != 0) break;
  }
  return at;
}

// Written by hand rather than through a document tree: the tree would leave copies of personal data on the heap that
// nobody wipes, throws on invalid UTF-8, and costs ten times as much. The tests read every body back with a parser.
class ObjectWriter {
 public:
  explicit ObjectWriter(std::string& out) : out_(out) { out_ += '{'; }
  void Close() { out_ += '}'; }

  void Member(std::string_view name, std::string_view value) {
    Name(name);
    String(value);
  }
  void MemberUnlessEmpty(std::string_view name, std::string_view value) {
    if (!value.empty()) Member(name, value);
  }
  // The caller writes the value.
  void Name(std::string_view name) {
    if (!first_) out_ += ',';
    first_ = false;
    String(name);
    out_ += ':';
  }

 private:
  void String(std::string_view text) {
    out_ += '"';
    size_t plain = 0;  // start of the bytes that need no escape and are not yet written
    for (size_t i = PlainBytes(text, 0); i < text.size(); i = PlainBytes(text, i + 1)) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
      out_.append(text, plain, i - plain);
      plain = i + 1;
      if (byte >= 0x20) {
        out_ += '\\';
        out_ += text[i];
      } else {
        constexpr std::string_view kHex = "0123456789abcdef";
        out_ += "\\u00";
        out_ += kHex[byte >> 4];
        out_ += kHex[byte & 0xf];
      }
    }
    out_.append(text, plain);
    out_ += '"';
  }

  std::string& out_;
  bool first_ = true;
};

// What stands around the values of the person's fields (six bytes each: quotes, colon, comma); and kyc_type, the name
// of metadata and the attempt id.
constexpr size_t kFrame = 512;
static_assert(
    [] {
      size_t bytes = std::string_view(R"({"kyc_type":"receive-only","metadata":{"":"",}})").size() +
                     intent::kAttemptIdKey.size() + 36;
      intent::ForEachField([&](auto row) { bytes += row.kField.astra.size() + 6; });
      return bytes;
    }() <= kFrame,
    "the body would grow");

// Valid values need at most one backslash a byte. So the string never grows, and no unwiped copy stays behind.
size_t RoomFor(const v1::CreateUserIntentRequest& request) {
  size_t bytes = intent::FieldBytes(request);
  for (const auto& [key, value] : request.metadata()) bytes += key.size() + value.size() + 6;
  return 2 * bytes + kFrame;
}

}  // namespace

std::string_view KycType(v1::VerificationType type) {
  switch (type) {
    case v1::VERIFICATION_TYPE_VERIFIED:
      return "verified";
    case v1::VERIFICATION_TYPE_UNVERIFIED:
      return "unverified";
    case v1::VERIFICATION_TYPE_RECEIVE_ONLY:
      return "receive-only";  // a hyphen, unlike the enum's name
    case v1::VERIFICATION_TYPE_UNSPECIFIED:
    default:  // numbers outside the enum do not pass validation
      return "";
  }
}

std::string RequestBody(const v1::CreateUserIntentRequest& request, const Uuid* attempt_id_or_null) {
  std::string out;
  out.reserve(RoomFor(request));
  ObjectWriter body(out);
  intent::ForEachField([&](auto row) {
    constexpr intent::Field kField = decltype(row)::kField;
    if constexpr (kField.when_empty == intent::WhenEmpty::kSent) {
      body.Member(kField.astra, row.Get(request));
    } else {
      body.MemberUnlessEmpty(kField.astra, row.Get(request));
    }
  });
  body.MemberUnlessEmpty("kyc_type", KycType(request.verification_type()));

  const bool add_attempt_id = attempt_id_or_null != nullptr && request.metadata().size() < intent::kMaxMetadataKeys;
  if (add_attempt_id || request.metadata_size() > 0) {
    body.Name("metadata");
    ObjectWriter metadata(out);
    for (const auto& [key, value] : request.metadata()) metadata.Member(key, value);
    if (add_attempt_id) metadata.Member(intent::kAttemptIdKey, UuidText(*attempt_id_or_null));
    metadata.Close();
  }
  body.Close();
  return out;
}

}  // namespace userintent::astra
