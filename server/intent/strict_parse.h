// ParseStrict: bytes into a proto3 message, or which of two ways they are no request. Pure functions; any thread.
#pragma once

#include <string_view>

#include "google/protobuf/message.h"

namespace userintent::intent {

enum class WireProblem {
  kNone,
  kMalformed,      // not a message of this type, or a string in it that is not UTF-8
  kUnknownFields,  // holds a field that its type does not have, at any depth
};

// Parses `bytes` into `message`, which is usable only after kNone.
//
// A field is unknown when its number is, or when its wire type is not the declared one: protobuf's parsers drop both.
// A number that is missing in an open enum is not an unknown field. Of repeated occurrences of a singular field the
// last one wins, as everywhere in protobuf.
WireProblem ParseStrict(std::string_view bytes, google::protobuf::Message* message);

}  // namespace userintent::intent
