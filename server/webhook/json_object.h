// JsonObject: the JSON object that a webhook's body holds, read by a strict parser, and the same object as CPython's
// json.dumps writes it: that is the text which Astra signs.
//
// Our own parser and writer, because the two must agree to the byte: the object that is rewritten for the signature is
// the one that is used afterwards, so the parser keeps the order of arrival, lone surrogates and double names, which
// libraries lose or refuse. Pure; any thread. What an object holds is wiped when it goes.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/wipe.h"

namespace userintent::webhook {

struct JsonMember;

struct JsonValue {
  enum class Kind { kString, kObject, kNull, kOther };
  Kind kind = Kind::kOther;
  // kString. UTF-8, but for half a surrogate pair that stands alone: it is written as if it were a character.
  std::string_view text;
  // kObject, one level below the outermost; a deeper object is kOther.
  std::vector<JsonMember> members;
};

struct JsonMember {
  std::string_view name;
  JsonValue value;
};

class JsonObject {
 public:
  // Nothing: the body is not one JSON object (RFC 8259) in valid UTF-8, or a value stands more than 64 deep in it.
  static std::optional<JsonObject> Parse(std::string_view body);

  const std::vector<JsonMember>& members() const { return members_; }

  // Whether it has a Python form: strings only, at most one level of objects below, and no name twice in one object.
  bool plain() const { return plain_; }

  // As json.dumps(object) of CPython writes it. Only of a plain object.
  std::string PythonForm() const;

 private:
  explicit JsonObject(std::unique_ptr<WipedBuffer> texts) : texts_(std::move(texts)) {}

  std::unique_ptr<WipedBuffer> texts_;  // what names and texts point into
  std::vector<JsonMember> members_;
  bool plain_ = false;
};

}  // namespace userintent::webhook
