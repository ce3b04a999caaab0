#include "src/utf8.h"

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"

namespace userintent {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The bytes of the character that begins there; 0: there is none.
size_t Length(absl::string_view text) {
  const auto byte = [text](size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return 0;
  // The second byte is what rules out overlong forms, surrogates and what is above U+10FFFF.
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t at = 2; at < length; ++at) {
    if (byte(at) < 0x80 || byte(at) > 0xbf) return 0;
  }
  return length;
}

bool TextIsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t length = Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

// One value of a field; index: of a repeated one, else -1.
bool ValueIsUtf8(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection* reflection = message.GetReflection();
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    return IsUtf8(index < 0 ? reflection->GetMessage(message, field)
                            : reflection->GetRepeatedMessage(message, field, index));
  }
  if (field->type() != FieldDescriptor::TYPE_STRING) return true;
  std::string scratch;
  return TextIsUtf8(absl::string_view(index < 0
                                          ? reflection->GetStringReference(message, field, &scratch)
                                          : reflection->GetRepeatedStringReference(message, field, index, &scratch)));
}

}  // namespace

bool IsUtf8(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated()) {
      if (!ValueIsUtf8(message, field, -1)) return false;
      continue;
    }
    const int size = message.GetReflection()->FieldSize(message, field);
    for (int index = 0; index < size; ++index) {
      if (!ValueIsUtf8(message, field, index)) return false;
    }
  }
  return true;
}

}  // namespace userintent
