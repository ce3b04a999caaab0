#include "server/astra/answer.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "server/astra/flat_answer.h"
#include "server/base/text.h"
#include "server/base/utf8.h"

namespace userintent::astra {
namespace {

constexpr int kMaxDepth = 16;
constexpr size_t kMaxStatus = 64;
constexpr size_t kMaxSubstring = 256;

using Json = nlohmann::json;

// What is common to the readers below: counts depth, builds nothing. The parser keeps its own state on the heap, one
// bit a level, so the stack does not grow with the nesting.
class Reader : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return Other(); }
  bool boolean(bool) override { return Other(); }
  bool number_integer(number_integer_t) override { return Other(); }
  bool number_unsigned(number_unsigned_t) override { return Other(); }
  bool number_float(number_float_t, const string_t&) override { return Other(); }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& value) override { return String(value); }
  bool key(string_t& name) override { return Key(name); }
  bool start_object(size_t) override { return Other() && ++depth_ <= kMaxDepth; }
  bool start_array(size_t) override { return Other() && ++depth_ <= kMaxDepth; }
  bool end_object() override { return --depth_ >= 0; }
  bool end_array() override { return --depth_ >= 0; }
  // The exception's text quotes the input: it goes nowhere.
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 protected:
  // Each returns whether to go on.
  virtual bool Key(string_t&) { return true; }
  virtual bool String(string_t&) { return true; }
  virtual bool Other() { return true; }  // any other value, at its start

  int depth_ = 0;  // of the value that comes next; 0: the whole body
};

// Whether `body` is one JSON value within the limits that `reader` went through to its end.
bool ReadAll(std::string_view body, Reader& reader) {
  // The parser takes a NUL outside of strings for the end of its input and would not see what follows. No JSON text
  // contains that byte.
  if (body.empty() || body.size() > kMaxBody || body.find('\0') != std::string_view::npos) return false;
  return Json::sax_parse(body.begin(), body.end(), &reader);
}

// Takes the values of some members of the body's object; its other members are ignored. Of one that comes twice it is
// open which one holds.
class MemberReader : public Reader {
 public:
  struct Member {
    std::string_view name;
    bool required_string;                   // any other type makes the body unusable; else it counts as absent
    bool required_once;                     // twice makes the body unusable; else it counts as absent
    std::optional<std::string> value = {};  // nothing: absent
    bool seen = false;
  };
  explicit MemberReader(std::span<Member> members) : members_(members) {}

 protected:
  bool Key(string_t& name) override {
    if (depth_ != 1) return true;
    for (Member& member : members_) {
      if (name != member.name) continue;
      const bool again = std::exchange(member.seen, true);
      if (again) member.value.reset();
      expected_ = again ? nullptr : &member;
      return !again || !member.required_once;
    }
    return true;
  }

  bool String(string_t& value) override {
    if (Member* const member = std::exchange(expected_, nullptr)) member->value = std::move(value);
    return true;
  }

  bool Other() override {
    const Member* const member = std::exchange(expected_, nullptr);
    return member == nullptr || !member->required_string;
  }

 private:
  const std::span<Member> members_;
  Member* expected_ = nullptr;  // whose value comes next
};

// Also takes the attempt id out of the object's metadata.
class ReadingReader final : public MemberReader {
 public:
  using MemberReader::MemberReader;

  std::string attempt_id() && { return ids_ == 1 ? std::move(id_) : std::string(); }

 protected:
  bool Key(string_t& name) override {
    if (depth_ == 1) in_metadata_ = name == "metadata";
    id_comes_ = depth_ == 2 && in_metadata_ && name == "gateway_attempt_id";
    return MemberReader::Key(name);
  }
  bool String(string_t& value) override {
    if (std::exchange(id_comes_, false)) {
      ++ids_;
      id_ = std::move(value);
      return true;
    }
    return MemberReader::String(value);
  }
  bool Other() override {
    id_comes_ = false;
    return MemberReader::Other();
  }

 private:
  bool in_metadata_ = false;  // the last key of the outermost object
  bool id_comes_ = false;
  int ids_ = 0;
  std::string id_;
};

bool IsStatus(std::string_view word) { return word.size() <= kMaxStatus && AllPrintable(word); }

// The word, or empty when it is not fit to keep.
std::string StatusWord(std::optional<std::string> word) {
  return word && IsStatus(*word) ? *std::move(word) : std::string();
}

// Of a flat body. Copies only what is kept.
std::optional<Answer> AnswerOf(const FlatAnswer& flat) {
  const std::optional<std::string_view> id = flat.Text("id"), status = flat.Text("status");
  if (!id || !IsAstraId(*id)) return std::nullopt;
  return Answer{std::string(*id), std::string(status && IsStatus(*status) ? *status : std::string_view())};
}

class StringSearch final : public Reader {
 public:
  explicit StringSearch(std::string_view substring) : substring_(substring) {}
  bool found = false;

 protected:
  bool String(string_t& value) override {
    found = found || value.find(substring_) != string_t::npos;
    return true;  // to the end: whether the body is JSON at all shows only there
  }

 private:
  std::string_view substring_;
};

class ErrorShape final : public Reader {
 public:
  bool found = false;

 protected:
  bool Key(string_t& name) override {
    constexpr std::string_view kMembers[] = {"code",       "name", "description", "error", "error_description",
                                             "status_code"};
    found = found || (depth_ == 1 && std::find(std::begin(kMembers), std::end(kMembers), name) != std::end(kMembers));
    return true;
  }
};

}  // namespace

std::optional<Answer> ParseAnswer(std::string_view body) {
  static_assert(FlatAnswer::kMostBytes <= kMaxBody);
  if (const FlatAnswer flat(body); flat.flat()) return AnswerOf(flat);
  return ParseAnyAnswer(body);
}

std::optional<Answer> ParseAnyAnswer(std::string_view body) {
  MemberReader::Member members[] = {{"id", true, true}, {"status", false, false}};
  auto& [id, status] = members;
  MemberReader reader(members);
  if (!ReadAll(body, reader) || !id.value || !IsAstraId(*id.value)) return std::nullopt;
  return Answer{*std::move(id.value), StatusWord(std::move(status.value))};
}

std::optional<Reading> ParseReading(std::string_view body, std::string_view user_intent_id) {
  MemberReader::Member members[] = {
      {"id", true, true}, {"status", false, true}, {"user_id", false, true}, {"kyc_type", false, true}};
  auto& [id, status, user_id, kyc_type] = members;
  ReadingReader reader(members);
  if (!ReadAll(body, reader) || id.value != user_intent_id) return std::nullopt;
  Reading reading;
  reading.status = StatusWord(std::move(status.value));
  if (user_id.value && IsAstraId(*user_id.value)) reading.user_id = *std::move(user_id.value);
  reading.kyc_type = std::move(kyc_type.value).value_or("");
  reading.attempt_id = std::move(reader).attempt_id();
  return reading;
}

// An array of objects has no key at depth 1.
bool IsAstraError(std::string_view body) {
  ErrorShape shape;
  return ReadAll(body, shape) && shape.found;
}

absl::StatusOr<LimitRule> ParseLimitRule(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return absl::InvalidArgumentError(
        "--astra_limit_error: expected STATUS:SUBSTRING, for example 400:attempts, but there is no colon");
  }
  const std::string_view digits = text.substr(0, colon);
  LimitRule rule;
  if (digits.size() == 3 && digits.find_first_not_of("0123456789") == std::string_view::npos) {
    rule.status = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
  }
  if (rule.status < 400 || rule.status > 499) {
    return absl::InvalidArgumentError(
        "--astra_limit_error: the status before the colon must be a number from 400 to 499");
  }
  rule.substring = std::string(text.substr(colon + 1));
  if (rule.substring.find_first_not_of(' ') == std::string::npos) {
    return absl::InvalidArgumentError(
        "--astra_limit_error: the substring after the colon is blank and would match too much");
  }
  if (rule.substring.size() > kMaxSubstring) {
    return absl::InvalidArgumentError("--astra_limit_error: the substring after the colon is longer than 256 bytes");
  }
  if (HasUnicodeControl(rule.substring)) {
    return absl::InvalidArgumentError(
        "--astra_limit_error: the substring after the colon contains a control character");
  }
  return rule;
}

bool ErrorBodyContains(std::string_view body, std::string_view substring) {
  StringSearch search(substring);
  if (ReadAll(body, search)) return search.found;
  return body.find(substring) != std::string_view::npos;
}

}  // namespace userintent::astra
