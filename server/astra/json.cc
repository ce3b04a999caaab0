#include "server/astra/json.h"

#include <string_view>

namespace userintent::astra {
namespace {

constexpr int kMaxMetadataKeys = 25;  // Astra's limit
constexpr std::string_view kAttemptIdKey = "gateway_attempt_id";

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
    for (size_t i = 0; i < text.size(); ++i) {
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

// Empty: left out, which Astra takes for "verified".
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

size_t RoomFor(const v1::CreateUserIntentRequest& request) {
  size_t bytes = request.email().size() + request.phone().size() + request.first_name().size() +
                 request.last_name().size() + request.preferred_first_name().size() +
                 request.preferred_last_name().size() + request.preferred_pronouns().size() +
                 request.address1().size() + request.address2().size() + request.city().size() +
                 request.state().size() + request.postal_code().size() + request.date_of_birth().size() +
                 request.ssn_last_four().size() + request.ip_address().size();
  for (const auto& [key, value] : request.metadata()) bytes += key.size() + value.size() + 6;
  // Valid values need at most one backslash a byte; 512 covers the names, the punctuation and the attempt id. So the
  // string never grows, and no unwiped copy stays behind.
  return 2 * bytes + 512;
}

}  // namespace

std::string RequestBody(const v1::CreateUserIntentRequest& request, const Uuid* attempt_id_or_null) {
  std::string out;
  out.reserve(RoomFor(request));
  ObjectWriter body(out);
  body.Member("email", request.email());
  body.Member("phone", request.phone());
  body.Member("first_name", request.first_name());
  body.Member("last_name", request.last_name());
  body.MemberUnlessEmpty("preferred_first_name", request.preferred_first_name());
  body.MemberUnlessEmpty("preferred_last_name", request.preferred_last_name());
  body.MemberUnlessEmpty("preferred_pronouns", request.preferred_pronouns());
  body.Member("address1", request.address1());  // without an underscore before the digit
  body.Member("address2", request.address2());  // always: Astra documents "" for none and answers 400 to null
  body.Member("city", request.city());
  body.Member("state", request.state());
  body.Member("postal_code", request.postal_code());
  body.MemberUnlessEmpty("date_of_birth", request.date_of_birth());
  body.MemberUnlessEmpty("ssn", request.ssn_last_four());
  body.Member("ip_address", request.ip_address());
  body.MemberUnlessEmpty("kyc_type", KycType(request.verification_type()));

  const bool add_attempt_id = attempt_id_or_null != nullptr && request.metadata_size() < kMaxMetadataKeys;
  if (add_attempt_id || request.metadata_size() > 0) {
    body.Name("metadata");
    ObjectWriter metadata(out);
    for (const auto& [key, value] : request.metadata()) metadata.Member(key, value);
    if (add_attempt_id) metadata.Member(kAttemptIdKey, UuidText(*attempt_id_or_null));
    metadata.Close();
  }
  body.Close();
  return out;
}

}  // namespace userintent::astra
