// MutateMessage: how libFuzzer changes an input that is a protobuf message. Only for programs of libFuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "google/protobuf/message.h"
#include "server/base/utf8.h"
#include "server/intent/strict_parse.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

namespace userintent::fuzz {

inline std::string Mutated(std::string text, size_t most) {
  const size_t size = text.size();
  text.resize(std::max(size, most));
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, text.size()));
  return IsUtf8(text) ? text : "\u00e9";  // protobuf says on stderr what it thinks of other text
}

// One value of the message becomes another one. Map entries and messages in it are messages, too.
inline void MutateValue(google::protobuf::Message& message, std::mt19937& random) {
  using Field = google::protobuf::FieldDescriptor;
  const auto& type = *message.GetDescriptor();
  const auto& access = *message.GetReflection();
  const Field* const field = type.field(static_cast<int>(random() % static_cast<unsigned>(type.field_count())));
  const int times = field->is_repeated() ? access.FieldSize(message, field) : 1;
  const bool grow = field->is_repeated() && (times == 0 || random() % 4 == 0);
  if (field->is_repeated() && !grow && random() % 8 == 0) return access.RemoveLast(&message, field);
  const int at = times == 0 ? 0 : static_cast<int>(random() % static_cast<unsigned>(times));
  switch (field->cpp_type()) {
    case Field::CPPTYPE_STRING: {
      if (grow) return access.AddString(&message, field, Mutated("", 16));
      std::string text =
          field->is_repeated() ? access.GetRepeatedString(message, field, at) : access.GetString(message, field);
      text = Mutated(text, text.size() + 8);
      return field->is_repeated() ? access.SetRepeatedString(&message, field, at, text)
                                  : access.SetString(&message, field, text);
    }
    case Field::CPPTYPE_MESSAGE:
      return MutateValue(grow                   ? *access.AddMessage(&message, field)
                         : field->is_repeated() ? *access.MutableRepeatedMessage(&message, field, at)
                                                : *access.MutableMessage(&message, field),
                         random);
    case Field::CPPTYPE_BOOL:
      return access.SetBool(&message, field, random() % 2 == 0);
    case Field::CPPTYPE_ENUM:
      return access.SetEnumValue(&message, field, static_cast<int>(random() % 6) - 1);
    default:
      return;
  }
}

inline size_t MutateMessage(google::protobuf::Message& message, uint8_t* data, size_t size, size_t most,
                            unsigned int seed) {
  std::mt19937 random(seed);
  if (random() % 2 == 0 ||
      intent::ParseStrict({reinterpret_cast<const char*>(data), size}, &message) == intent::WireProblem::kMalformed) {
    return LLVMFuzzerMutate(data, size, most);
  }
  MutateValue(message, random);
  const std::string written = message.SerializeAsString();
  if (written.size() > most) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(data, written.data(), written.size());
  return written.size();
}

}  // namespace userintent::fuzz
