#include "userintent/redact.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "userintent/v1/options.pb.h"

namespace userintent {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void AppendMessage(const Message& message, std::string* out);

// One value of a field; index: of a repeated one.
void AppendValue(const Message& message, const FieldDescriptor* field, int index, std::string* out) {
  const Reflection* reflection = message.GetReflection();
  const bool many = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      AppendMessage(
          many ? reflection->GetRepeatedMessage(message, field, index) : reflection->GetMessage(message, field), out);
      return;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int number =
          many ? reflection->GetRepeatedEnumValue(message, field, index) : reflection->GetEnumValue(message, field);
      const auto* value = field->enum_type()->FindValueByNumber(number);
      if (value != nullptr) {
        absl::StrAppend(out, value->name());
      } else {
        absl::StrAppend(out, number);
      }
      return;
    }
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string scratch;
      const std::string& text = many ? reflection->GetRepeatedStringReference(message, field, index, &scratch)
                                     : reflection->GetStringReference(message, field, &scratch);
      absl::StrAppend(out, "\"", absl::Utf8SafeCEscape(text), "\"");
      return;
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      absl::StrAppend(out,
                      (many ? reflection->GetRepeatedBool(message, field, index) : reflection->GetBool(message, field))
                          ? "true"
                          : "false");
      return;
    case FieldDescriptor::CPPTYPE_INT32:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedInt32(message, field, index) : reflection->GetInt32(message, field));
      return;
    case FieldDescriptor::CPPTYPE_INT64:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedInt64(message, field, index) : reflection->GetInt64(message, field));
      return;
    case FieldDescriptor::CPPTYPE_UINT32:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedUInt32(message, field, index) : reflection->GetUInt32(message, field));
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedUInt64(message, field, index) : reflection->GetUInt64(message, field));
      return;
    case FieldDescriptor::CPPTYPE_FLOAT:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedFloat(message, field, index) : reflection->GetFloat(message, field));
      return;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      absl::StrAppend(
          out, many ? reflection->GetRepeatedDouble(message, field, index) : reflection->GetDouble(message, field));
      return;
  }
}

void AppendMessage(const Message& message, std::string* out) {
  const Reflection* reflection = message.GetReflection();
  absl::StrAppend(out, message.GetDescriptor()->name(), "(");
  const char* separator = "";
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    absl::StrAppend(out, separator, field->name(), "=");
    separator = ", ";
    if (field->options().GetExtension(v1::personal_data)) {
      absl::StrAppend(out, "<redacted>");
    } else if (!field->is_repeated()) {
      AppendValue(message, field, 0, out);
    } else {
      absl::StrAppend(out, "[");
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        if (i > 0) absl::StrAppend(out, ", ");
        AppendValue(message, field, i, out);
      }
      absl::StrAppend(out, "]");
    }
  }
  if (!reflection->GetUnknownFields(message).empty()) absl::StrAppend(out, separator, "<unknown fields>");
  absl::StrAppend(out, ")");
}

}  // namespace

std::string Redacted(const Message& message) {
  std::string out;
  AppendMessage(message, &out);
  return out;
}

namespace v1 {

std::ostream& operator<<(std::ostream& out, const CreateUserIntentRequest& request) { return out << Redacted(request); }

void PrintTo(const CreateUserIntentRequest& request, std::ostream* out) { *out << Redacted(request); }

}  // namespace v1
}  // namespace userintent
