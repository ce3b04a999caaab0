// utf8: whether the texts of a message may be sent. C++ keeps any bytes in a proto3 string, and its encoder sends them.
//
// Any thread may call anything here.
#pragma once

#include "google/protobuf/message.h"

namespace userintent {

// Every string in the message, also in maps and nested messages, is UTF-8 as the Unicode standard defines it: no
// overlong forms, no surrogates, nothing above U+10FFFF.
bool IsUtf8(const google::protobuf::Message& message);

}  // namespace userintent
