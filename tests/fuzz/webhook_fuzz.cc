// A webhook's body -> JsonObject, its form B (the text that Astra signs) -> ReadEvent; and a head before it.
//
// The oracle: nlohmann takes every object that the door takes; its form B reads back as the same object, is ASCII, and
// is its own form B; the event says what the object says. That the form is CPython's to the byte is held against
// CPython by webhook-form-fuzz.
#include <optional>
#include <string>

#include "nlohmann/json.hpp"
#include "server/base/text.h"
#include "server/base/utf8.h"
#include "server/webhook/event.h"
#include "server/webhook/head.h"
#include "server/webhook/json_object.h"
#include "server/webhook/signature.h"
#include "tests/fuzz/target.h"

namespace userintent::fuzz {
namespace {

using nlohmann::ordered_json;
using webhook::JsonMember;
using webhook::JsonObject;
using webhook::JsonValue;

// To nlohmann, for which a number beyond a double is the only error in something that is JSON.
class Json : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool key(string_t&) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    constexpr int kNumberOutOfRange = 406;
    out_of_range = error.id == kNumberOutOfRange;
    return false;
  }
  bool out_of_range = false;
};
bool IsJson(std::string_view body) {
  Json json;
  return nlohmann::json::sax_parse(body, &json) || json.out_of_range;
}

// Whether a text holds half a surrogate pair, which only CPython and the door write.
bool HasHalf(std::string_view text) {
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '\xed' && static_cast<unsigned char>(text[i + 1]) >= 0xa0) return true;
  }
  return false;
}
bool HasHalf(const std::vector<JsonMember>& members) {
  return std::any_of(members.begin(), members.end(), [](const JsonMember& member) {
    return HasHalf(member.name) || HasHalf(member.value.text) || HasHalf(member.value.members);
  });
}

ordered_json AsNlohmann(const std::vector<JsonMember>& members) {
  ordered_json object = ordered_json::object();
  for (const JsonMember& member : members) {
    ordered_json& value = object[std::string(member.name)];
    if (member.value.kind == JsonValue::Kind::kObject) {
      value = AsNlohmann(member.value.members);
    } else {
      value = std::string(member.value.text);
    }
  }
  return object;
}

bool Same(const std::vector<JsonMember>& a, const std::vector<JsonMember>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const JsonMember& x, const JsonMember& y) {
    return x.name == y.name && x.value.kind == y.value.kind && x.value.text == y.value.text &&
           Same(x.value.members, y.value.members);
  });
}

void CheckForm(const JsonObject& object) {
  const std::string form = Timed([&] { return object.PythonForm(); });
  Check(AllPrintable(form), "form B is ASCII without controls");
  const std::optional<JsonObject> again = Timed([&] { return JsonObject::Parse(form); });
  Check(again && again->plain() && Same(again->members(), object.members()), "form B reads back as the same object");
  Check(again->PythonForm() == form, "form B of form B is itself");
  if (HasHalf(object.members())) return;
  const ordered_json theirs = ordered_json::parse(form, nullptr, /*allow_exceptions=*/false);
  Check(theirs == AsNlohmann(object.members()), "another parser reads the same object in form B");
  // json.dumps puts a blank behind each comma and colon.
  if (object.members().size() == 1 && object.members()[0].value.members.empty() &&
      object.members()[0].value.kind == JsonValue::Kind::kString) {
    const JsonMember& only = object.members()[0];
    const auto text = [](std::string_view value) { return ordered_json(std::string(value)).dump(-1, ' ', true); };
    Check(form == "{" + text(only.name) + ": " + text(only.value.text) + "}",
          "strings are written as others write them");
  }
}

void CheckEvent(const JsonObject& object) {
  const std::optional<ledger::Webhook> event = Timed([&] { return ReadEvent(object, absl::UnixEpoch()); });
  if (!event) return;
  for (const std::string* text : {&event->type, &event->id}) {
    Check(!text->empty() && text->size() <= 128 && AllPrintable(*text), "what is kept of a webhook is fit to keep");
  }
  Check(IsAstraId(event->resource_id), "the id that is kept of a webhook is one that Astra could have");
  const auto times = [&](std::string_view name, std::string_view text) {
    return std::count_if(object.members().begin(), object.members().end(),
                         [&](const JsonMember& member) { return member.name == name && member.value.text == text; });
  };
  Check(times("webhook_type", event->type) == 1 && times("webhook_id", event->id) == 1 &&
            times("resource_id", event->resource_id) == 1,
        "each of them stands in the object once");
}

// Lines in front of the body, where the input has a blank one: method, path, version, then fields.
void CheckHead(std::string_view lines) {
  Input input(lines);
  webhook::Head head;
  head.method = input.Until(' ');
  head.path = input.Until(' ');
  head.version = input.Until('\n');
  int lengths = 0;
  while (!input.empty()) {
    const std::string_view line = input.Until('\n');
    const size_t colon = std::min(line.find(": "), line.size());
    head.Take(line.substr(0, colon), line.substr(std::min(colon + 2, line.size())));
    lengths += EqualsLower(line.substr(0, colon), "content-length") ? 1 : 0;
  }
  const webhook::HeadVerdict verdict = Timed([&] { return JudgeHead(head, "/hook"); });
  if (verdict.refusal) return;
  Check(head.method == "POST" && head.path == "/hook" && head.version == "HTTP/1.1",
        "one method at one path is served");
  Check(
      lengths == 1 && head.transfer_encoding.times == 0 && verdict.length <= webhook::kLongestBody && verdict.read_body,
      "a body has one length, within the limit");
}

}  // namespace

void Target(std::string_view input) {
  const size_t blank = input.find("\n\n");
  if (blank != input.npos) CheckHead(input.substr(0, blank));
  const std::string_view body = blank == input.npos ? input : input.substr(blank + 2);
  const std::optional<JsonObject> object = Timed([&] { return JsonObject::Parse(body); });
  if (!object) return;
  // Others refuse half a surrogate pair that stands alone, wherever it is.
  const bool surrogates = body.find("\\ud") != body.npos || body.find("\\uD") != body.npos;
  Check(surrogates || IsJson(body), "what the door takes is JSON");
  CheckEvent(*object);
  if (object->plain()) CheckForm(*object);
  // A signature is found under the key that made it; by chance none is.
  static const auto& keys = *new std::vector<Secret>{Secret(std::string(32, 'k'))};
  Check(!Timed([&] { return webhook::FindMatch(body.substr(0, 44), body, std::nullopt, keys); }),
        "nobody signs without the key");
}

}  // namespace userintent::fuzz
