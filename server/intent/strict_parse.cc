#include "server/intent/strict_parse.h"

#include <cstdint>
#include <limits>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "server/base/utf8.h"

namespace userintent::intent {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

bool WireTypeFits(const FieldDescriptor& field, WireFormatLite::WireType wire_type) {
  const auto declared = WireFormatLite::WireTypeForFieldType(static_cast<WireFormatLite::FieldType>(field.type()));
  // Both forms of a repeated number are valid, whichever is declared.
  return wire_type == declared || (field.is_packable() && wire_type == WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

// One message, up to the stream's current limit. The generated parser cannot do this: it keeps unknown fields of
// messages, but drops those of map entries. False: damaged. Sets *unknown when it meets an unknown field.
bool Walk(CodedInputStream& in, const Descriptor& type, bool* unknown) {
  while (const uint32_t tag = in.ReadTag()) {
    const FieldDescriptor* field = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const auto wire_type = WireFormatLite::GetTagWireType(tag);
    if (field == nullptr || !WireTypeFits(*field, wire_type)) {
      *unknown = true;
      if (!WireFormatLite::SkipField(&in, tag)) return false;
      continue;
    }
    const bool is_string = field->type() == FieldDescriptor::TYPE_STRING;
    const bool is_message = field->type() == FieldDescriptor::TYPE_MESSAGE;
    if (!is_string && !is_message) {
      if (!WireFormatLite::SkipField(&in, tag)) return false;
      continue;
    }
    int length;
    // PushLimit cuts a limit that is too long down to the enclosing one, so it is compared first.
    if (!in.ReadVarintSizeAsInt(&length) || length > in.BytesUntilLimit()) return false;
    if (is_string) {
      const void* data = "";
      int available = 0;
      if (length > 0 && (!in.GetDirectBufferPointer(&data, &available) || available < length)) return false;
      if (!IsUtf8({static_cast<const char*>(data), static_cast<size_t>(length)}) || !in.Skip(length)) return false;
    } else {
      const auto [limit, depth] = in.IncrementRecursionDepthAndPushLimit(length);
      if (depth < 0 || !Walk(in, *field->message_type(), unknown)) return false;
      if (!in.DecrementRecursionDepthAndPopLimit(limit)) return false;
    }
  }
  return in.ConsumedEntireMessage();
}

}  // namespace

WireProblem ParseStrict(std::string_view bytes, google::protobuf::Message* message) {
  if (bytes.size() > std::numeric_limits<int>::max()) return WireProblem::kMalformed;
  const int size = static_cast<int>(bytes.size());
  CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()), size);
  (void)in.PushLimit(size);  // the outermost limit, which nothing takes off again
  bool unknown = false;
  // The walk comes first because the generated parser writes a line of its own to stderr about a string that is not
  // UTF-8.
  if (!Walk(in, *message->GetDescriptor(), &unknown) || !message->ParseFromArray(bytes.data(), size)) {
    return WireProblem::kMalformed;
  }
  return unknown ? WireProblem::kUnknownFields : WireProblem::kNone;
}

}  // namespace userintent::intent
