#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "nlohmann/json.hpp"
#include "server/base/text.h"
#include "server/net/redirect_uri.h"
#include "server/policy/policy.h"

// In this file: places and errors; the form of the text; names; the members of a rule; the whole.

namespace userintent::policy {
namespace {

using Json = nlohmann::json;

constexpr size_t kLongestName = 512;  // of a caller (server/rpc/identity.h)
constexpr int kMostDeep = 8;          // twice what a good file has

// ---- places and errors

// A member's name in an error. What does not look like one may be anything that got into the file by mistake.
std::string Shown(std::string_view name) {
  constexpr size_t kLongest = 40;
  const bool plain =
      name.size() <= kLongest && std::ranges::all_of(name, [](char c) { return IsAlnum(c) || c == '_'; });
  return plain && !name.empty() ? '"' + std::string(name) + '"' : "with an odd name";
}

std::string Below(const std::string& place, std::string_view member) {
  return place.empty() ? std::string(member) : place + '.' + std::string(member);
}

std::string Element(const std::string& place, size_t index) { return place + '[' + std::to_string(index) + ']'; }

std::string Join(const std::string& place, std::string_view text) {
  return place.empty() ? std::string(text) : place + ": " + std::string(text);
}

// All that there are, for an error.
template <typename Rows, typename NameOf>
std::string Listed(const Rows& rows, NameOf name_of) {
  std::string all;
  for (const auto& row : rows) all.append(all.empty() ? "" : ", ").append(std::invoke(name_of, row));
  return all;
}

// The first thing that is wrong. Every function that reads returns false after it has told one.
class Errors {
 public:
  bool Tell(const std::string& place, std::string_view text) {
    if (text_.empty()) text_ = Join(place, text);
    return false;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// ---- the form of the text

// Finds what a document made of the text would not show: a member that stands twice, and where the text is no JSON.
class FormReader : public nlohmann::json_sax<Json> {
 public:
  FormReader(std::string_view text, Errors& errors) : text_(text), errors_(errors) {}

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    Level& level = levels_.back();
    level.member = IsMember(name) ? name : "?";
    if (level.members.insert(name).second) return true;
    levels_.pop_back();
    return errors_.Tell(PlaceHere(), "the member " + Shown(name) + " stands there twice; keep one");
  }

  // The parser's own text would quote what it read last.
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    const std::string_view before = text_.substr(0, std::min(position == 0 ? 0 : position - 1, text_.size()));
    const size_t line_begin = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    return errors_.Tell("", "is not JSON at line " + std::to_string(std::ranges::count(before, '\n') + 1) +
                                ", column " + std::to_string(before.size() - line_begin + 1));
  }

 private:
  struct Level {
    bool object;
    size_t next = 0;     // of an array: the place of the element that comes
    std::string member;  // of an object: the one whose value comes
    std::set<std::string> members;
  };

  static bool IsMember(std::string_view name) {
    return !name.empty() && std::ranges::all_of(name, [](char c) { return IsLower(c) || c == '_'; });
  }

  bool Value() {
    if (!levels_.empty()) ++levels_.back().next;
    return true;
  }
  bool Open(bool object) {
    if (levels_.size() >= kMostDeep) return errors_.Tell(PlaceHere(), "is nested too deep");
    levels_.push_back({object, 0, {}, {}});
    return true;
  }
  bool Close() {
    levels_.pop_back();
    return Value();
  }

  std::string PlaceHere() const {
    std::string place;
    for (const Level& level : levels_) {
      place = level.object ? Below(place, level.member) : Element(place, level.next);
    }
    return place;
  }

  const std::string_view text_;
  Errors& errors_;
  std::vector<Level> levels_;  // those that are open, the outermost first
};

bool HasGoodForm(std::string_view text, Errors& errors) {
  // The parser takes it for the end, whatever stands behind it.
  if (text.find('\0') != std::string_view::npos) return errors.Tell("", "holds a zero byte, so it is no text");
  if (std::ranges::all_of(text, [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; })) {
    return errors.Tell("", R"(is empty; {"version": 1, "callers": [...]} is expected)");
  }
  FormReader reader(text, errors);
  return Json::sax_parse(text, &reader);
}

// ---- names

bool HasOddSegment(std::string_view path) {
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    if (segment.empty() || segment == "." || segment == "..") return true;
    begin = end + 1;
  }
  return false;
}

bool CheckName(std::string_view name, const std::string& place, Errors& errors) {
  if (name.empty() || name.size() > kLongestName || !AllVisible(name)) {
    return errors.Tell(place, "must be 1 to 512 visible ASCII characters, as in the caller's certificate");
  }
  const std::string caller = CallerName(name);
  if (caller == "uri:" || caller == "dns:") return errors.Tell(place, "names nobody; a name follows uri: or dns:");
  const size_t star = caller.find('*');
  if (star == std::string::npos) return true;
  if (star + 1 != caller.size() || !caller.ends_with("/*")) {
    return errors.Tell(place, "a * may only be the last character, after a /; every segment is compared as a whole");
  }
  const std::string_view prefix = std::string_view(caller).substr(0, star - 1);
  const size_t authority = prefix.find("://");
  if (!caller.starts_with("uri:") || authority == std::string_view::npos ||
      HasOddSegment(prefix.substr(authority + 3))) {
    return errors.Tell(place,
                       "before /* a URI with a host must stand, without empty segments: spiffe://trust.example/jobs/*");
  }
  return true;
}

// ---- the members of a rule

bool ReadBool(const Json& value, const std::string& place, Errors& errors, bool* out) {
  if (!value.is_boolean()) return errors.Tell(place, "must be true or false");
  *out = value.get<bool>();
  return true;
}

bool ReadCount(const Json& value, const std::string& place, Errors& errors, int* out) {
  constexpr uint64_t kMost = 1'000'000;
  if (!value.is_number_unsigned() || value.get<uint64_t>() < 1 || value.get<uint64_t>() > kMost) {
    return errors.Tell(place, "must be a whole number from 1 to 1000000");
  }
  *out = static_cast<int>(value.get<uint64_t>());
  return true;
}

bool ReadPerSecond(const Json& value, const std::string& place, Errors& errors, double* out) {
  if (!value.is_number() || !(value.get<double>() >= 0.001) || !(value.get<double>() <= 100'000)) {
    return errors.Tell(place, "must be a number from 0.001 to 100000");
  }
  *out = value.get<double>();
  return true;
}

bool ReadRate(const Json& value, const std::string& place, Errors& errors, std::optional<Rate>* out) {
  const bool whole = value.is_object() && value.size() == 2 && value.contains("per_second") && value.contains("burst");
  if (!whole) return errors.Tell(place, R"(must be {"per_second": NUMBER, "burst": NUMBER} and nothing else)");
  Rate rate;
  if (!ReadPerSecond(value["per_second"], Below(place, "per_second"), errors, &rate.per_second)) return false;
  if (!ReadCount(value["burst"], Below(place, "burst"), errors, &rate.burst)) return false;
  *out = rate;
  return true;
}

bool ReadMethods(const Json& value, const std::string& place, Errors& errors, Rule* rule) {
  if (!value.is_array()) return errors.Tell(place, "must be a list of methods; [] allows none");
  for (size_t i = 0; i < value.size(); ++i) {
    const std::optional<Method> method =
        value[i].is_string() ? MethodOf(value[i].get_ref<const std::string&>()) : std::nullopt;
    if (!method) {
      return errors.Tell(Element(place, i), "is no method; there are " + Listed(kMethodNames, std::identity()));
    }
    if (std::exchange(rule->methods[static_cast<size_t>(*method)], true)) {
      return errors.Tell(Element(place, i), "stands in the list already; take one away");
    }
  }
  return true;
}

bool ReadRedirectUris(const Json& value, const std::string& place, Errors& errors, Rule* rule) {
  if (!value.is_array()) return errors.Tell(place, "must be a list of URIs");
  std::set<std::string> known;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_string() || !net::IsRedirectUri(value[i].get_ref<const std::string&>())) {
      return errors.Tell(Element(place, i),
                         "must be https://HOST and perhaps a path and a query (http only for loopback), without a user "
                         "and a fragment");
    }
    std::string uri = value[i].get<std::string>();
    if (!known.insert(uri).second) {
      return errors.Tell(Element(place, i), "stands in the list already; take one away");
    }
    rule->redirect_uris.push_back(std::move(uri));
  }
  return true;
}

// One row for each member of a rule. `name` is read before all others.
struct MemberRow {
  std::string_view name;
  bool (*read)(const Json& value, const std::string& place, Errors& errors, Rule* rule);
};

constexpr MemberRow kMembers[] = {
    {"name", [](const Json&, const std::string&, Errors&, Rule*) { return true; }},
    {"methods", ReadMethods},
    {"create_rate",
     [](const Json& v, const std::string& p, Errors& e, Rule* r) { return ReadRate(v, p, e, &r->create_rate); }},
    {"read_rate",
     [](const Json& v, const std::string& p, Errors& e, Rule* r) { return ReadRate(v, p, e, &r->read_rate); }},
    {"probe_rate",
     [](const Json& v, const std::string& p, Errors& e, Rule* r) { return ReadRate(v, p, e, &r->probe_rate); }},
    {"max_in_flight", [](const Json& v, const std::string& p, Errors& e,
                         Rule* r) { return ReadCount(v, p, e, &r->max_in_flight.emplace()); }},
    {"redirect_uris", ReadRedirectUris},
    {"may_supersede_others", [](const Json& v, const std::string& p, Errors& e,
                                Rule* r) { return ReadBool(v, p, e, &r->may_supersede_others); }},
    {"enforce", [](const Json& v, const std::string& p, Errors& e, Rule* r) { return ReadBool(v, p, e, &r->enforce); }},
};

bool ReadRule(const Json& value, const std::string& place, Errors& errors, Rule* rule) {
  if (!value.is_object()) return errors.Tell(place, R"(must be an object: {"name": ..., "methods": [...]})");
  const auto name = value.find("name");
  if (name == value.end() || !name->is_string()) return errors.Tell(Below(place, "name"), "required: a caller's name");
  rule->name = name->get<std::string>();
  if (!CheckName(rule->name, Below(place, "name"), errors)) return false;
  if (!value.contains("methods")) {
    return errors.Tell(Below(place, "methods"), "required: a list of methods; [] allows none");
  }
  for (const auto& [member, content] : value.items()) {
    const auto* const row = std::ranges::find(kMembers, std::string_view(member), &MemberRow::name);
    if (row == std::end(kMembers)) {
      return errors.Tell(place,
                         "a member " + Shown(member) + " is unknown; there are " + Listed(kMembers, &MemberRow::name));
    }
    if (!row->read(content, Below(place, member), errors, rule)) return false;
  }
  return true;
}

// ---- the whole

bool ReadCallers(const Json& callers, Errors& errors, std::vector<Rule>* rules) {
  if (callers.empty()) {
    return errors.Tell("callers", "is empty, so nobody could call; name a caller, or leave --policy_file away");
  }
  std::map<std::string, size_t> places;  // by the names that the gateway uses
  for (size_t i = 0; i < callers.size(); ++i) {
    const std::string place = Element("callers", i);
    Rule& rule = rules->emplace_back();
    if (!ReadRule(callers[i], place, errors, &rule)) return false;
    const auto [known, is_new] = places.emplace(CallerName(rule.name), i);
    if (is_new) continue;
    return errors.Tell(Below(place, "name"),
                       "names the same as " + Element("callers", known->second) + "; make one of the two");
  }
  return true;
}

bool ReadAll(std::string_view text, Errors& errors, std::vector<Rule>* rules) {
  if (!HasGoodForm(text, errors)) return false;
  const Json whole = Json::parse(text, nullptr, false);
  if (!whole.is_object()) return errors.Tell("", R"(must be an object: {"version": 1, "callers": [...]})");
  for (const auto& [member, content] : whole.items()) {
    if (member != "version" && member != "callers") {
      return errors.Tell("", "a member " + Shown(member) + R"( is unknown; there are "version" and "callers")");
    }
  }
  const auto version = whole.find("version");
  if (version == whole.end() || !version->is_number_unsigned() || *version != 1) {
    return errors.Tell("version", "must be 1, the only one that this program knows");
  }
  const auto callers = whole.find("callers");
  if (callers == whole.end() || !callers->is_array()) return errors.Tell("callers", "required: a list of rules");
  return ReadCallers(*callers, errors, rules);
}

}  // namespace

absl::StatusOr<Policy> Policy::Parse(std::string_view json) {
  Errors errors;
  std::vector<Rule> rules;
  if (!ReadAll(json, errors, &rules)) return absl::InvalidArgumentError(errors.text());
  return Policy(std::move(rules));
}

}  // namespace userintent::policy
