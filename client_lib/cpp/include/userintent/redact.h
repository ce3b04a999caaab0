// Text forms of messages without personal data. Which fields are personal is said by the proto option personal_data and
// by nothing here. What encodes on purpose shows everything: SerializeToString, DebugString, ShortDebugString, JSON.
//
// Any thread may call anything here.
#pragma once

#include <ostream>
#include <string>

#include "google/protobuf/message.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent {

// One line: the names of all fields that are set, and the values of those that are not personal. Of unknown fields only
// their presence is told, because nobody knows what they hold. Takes any message.
std::string Redacted(const google::protobuf::Message& message);

// Beside the message, where argument-dependent look-up finds them.
namespace v1 {

// For streams and LOG().
std::ostream& operator<<(std::ostream& out, const CreateUserIntentRequest& request);

// For GoogleTest, which would print the whole message when an expectation fails.
void PrintTo(const CreateUserIntentRequest& request, std::ostream* out);

// For absl::StrCat and StrFormat's %v, in versions of Abseil that know it.
template <typename Sink>
void AbslStringify(Sink& sink, const CreateUserIntentRequest& request) {
  sink.Append(::userintent::Redacted(request));
}

}  // namespace v1
}  // namespace userintent
