// FlatAnswer, and that ParseAnswer() with it says what it says without it.
#include "server/astra/flat_answer.h"

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/astra/answer.h"

namespace userintent::astra {
namespace {

using std::string_literals::operator""s;

// It has nothing of its own in the heap.
static_assert(std::is_trivially_destructible_v<FlatAnswer>);

// Objects with an id, of as many members, and of as many bytes.
std::string OfMembers(size_t members) {
  std::string body = R"({"id":"x")";
  for (size_t i = 1; i < members; ++i) {
    body += R"(,")"s + static_cast<char>('a' + i) + R"(":null)";
  }
  return body + "}";
}
std::string OfBytes(size_t bytes) {
  std::string body = R"({"id":"x","pad":""})";
  return body.insert(body.size() - 2, bytes - body.size(), 'p');
}

const std::vector<std::string>& FlatBodies() {
  static const auto* const bodies = new std::vector<std::string>{
      R"({"id":"1a908838d703473ab52e6884c001e447","status":"pending"})",
      R"({"status":"approved","id":"x","user_id":null,"test":true,"live":false})",
      " \r\n\t{ \"id\" : \"x\" ,\n\t\"status\"\r:\t\"a word, {of} [the]: 'future'!\" , \"n\" : null }\r\n",
      R"({"id":"x","":"","status":""})",
      R"({"id":"x","Id":"y","ID":"z","ids":"i","i":"d"})",
      R"({"id":true,"status":null})",
      R"({"status":"pending"})",
      R"({"id":""})",
      "{}",
      " { } ",
      R"({"id":" ~"})",
      R"({"id":")" + std::string(256, 'i') + R"(","status":")" + std::string(64, 's') + R"("})",
      R"({"id":")" + std::string(257, 'i') + R"("})",
      R"({"id":"x","status":")" + std::string(65, 's') + R"("})",
      OfMembers(FlatAnswer::kMostMembers),
      OfBytes(FlatAnswer::kMostBytes),
  };
  return *bodies;
}

// Whether a body is flat by a parser that builds all of it, and the object.
std::optional<nlohmann::json> BySlowReader(const std::string& body) {
  const auto plain = [](char c) { return (c >= ' ' && c <= '~' && c != '\\') || c == '\t' || c == '\n' || c == '\r'; };
  if (body.size() > 4096 || !std::all_of(body.begin(), body.end(), plain)) return std::nullopt;
  size_t names = 0;
  const auto count = [&](int, nlohmann::json::parse_event_t event, const nlohmann::json&) {
    names += event == nlohmann::json::parse_event_t::key;
    return true;
  };
  nlohmann::json object = nlohmann::json::parse(body, count, /*allow_exceptions=*/false);
  if (!object.is_object() || names != object.size() || names > 16) return std::nullopt;
  const bool simple = std::all_of(object.begin(), object.end(), [](const nlohmann::json& value) {
    return value.is_string() || value.is_boolean() || value.is_null();
  });
  return simple ? std::optional(object) : std::nullopt;
}

// Holds every reading of a body against its slower one, and says whether it is flat.
bool IsFlatAndAgrees(const std::string& body) {
  const FlatAnswer flat(body);
  const std::optional<nlohmann::json> slow = BySlowReader(body);
  EXPECT_EQ(flat.flat(), slow.has_value()) << body;
  EXPECT_EQ(flat.size(), slow ? slow->size() : 0) << body;
  if (slow) {
    for (const auto& [name, value] : slow->items()) {
      const std::optional<std::string_view> text = flat.Text(name);
      EXPECT_EQ(text.has_value(), value.is_string()) << body;
      if (!text || !value.is_string()) continue;
      EXPECT_EQ(*text, value.get_ref<const std::string&>()) << body;
      EXPECT_TRUE(text->data() >= body.data() && text->data() + text->size() <= body.data() + body.size()) << body;
    }
  }
  EXPECT_TRUE(ParseAnswer(body) == ParseAnyAnswer(body)) << body;
  return flat.flat();
}

TEST(FlatAnswer, Members) {
  const std::string body = R"({"status":"approved","id":"x","user_id":null,"test":true,"live":false,"":"y"})";
  const FlatAnswer flat(body);
  ASSERT_TRUE(flat.flat());
  EXPECT_EQ(flat.size(), 6);
  EXPECT_EQ(flat.Text("id"), "x");
  EXPECT_EQ(flat.Text("status"), "approved");
  EXPECT_EQ(flat.Text(""), "y");
  for (const char* const name : {"user_id", "test", "live", "ID", "i", "idd", "x"}) {
    EXPECT_EQ(flat.Text(name), std::nullopt) << name;
  }
}

TEST(FlatAnswer, Flat) {
  for (const std::string& body : FlatBodies()) EXPECT_TRUE(IsFlatAndAgrees(body)) << body;
}

TEST(FlatAnswer, NotFlat) {
  const std::vector<std::string> bodies = {
      // not for the short way, but usable
      R"({"id":"x","n":1})",
      R"({"id":"x","n":-1.5e3})",
      R"({"id":"x","user":{}})",
      R"({"id":"x","list":[]})",
      R"({"id":"x","a":null,"a":null})",
      R"({"id":"x","text":"a\"b"})",
      R"({"\u0069d":"x"})",
      "{\"id\":\"\u00e9\"}",
      "{\"id\":\"x\",\"a\":\"\x7f\"}",
      "\xef\xbb\xbf{\"id\":\"x\"}",
      OfMembers(FlatAnswer::kMostMembers + 1),
      OfBytes(FlatAnswer::kMostBytes + 1),
      OfBytes(kMaxBody),
      // of no use
      "",
      " ",
      "null",
      R"("x")",
      "{",
      "}",
      "{,}",
      R"(["id","x"])",
      R"([{"id":"x"}])",
      R"({"id":"x","id":"x"})",
      R"({"id":"x","status":"a","status":"b"})",
      R"({"id":"x","a":null,"id":null})",
      R"({"id":"x"}{"id":"y"})",
      R"({"id":"x"}x)",
      R"({"id":"x"},)",
      R"({"id":"x",})",
      R"({,"id":"x"})",
      R"({"id":"x","a"})",
      R"({"id":"x","a":})",
      R"({"id":"x",:null})",
      R"({"id":"x" "a":null})",
      R"({"id" "x"})",
      R"({"id"::"x"})",
      R"({"id":"x","a":nul})",
      R"({"id":"x","a":nulll})",
      R"({"id":"x","a":True})",
      R"({"id":"x","a":true false})",
      R"({"id":"x","a":null"b":null})",
      R"({"id":"x","a":"b"c})",
      R"({'id':'x'})",
      R"({id:"x"})",
      R"({null:"x"})",
      R"({"id":"x"} // fine)",
      "{\"id\":\"a\nb\"}",
      "{\"id\":\"a\tb\"}",
      "{\"id\":\"x\"}\0"s,
      "{\"id\":\"a\0b\"}"s,
      "\0{\"id\":\"x\"}"s,
      "\v{\"id\":\"x\"}",
      "{\"id\":\"x\"}\f",
      "{\"id\":\"\xff\"}",
      "{\"id\":\"x\"}\xc2\xa0",
      OfBytes(kMaxBody + 1),
  };
  for (const std::string& body : bodies) EXPECT_FALSE(IsFlatAndAgrees(body)) << body.substr(0, 100);
}

TEST(FlatAnswer, EndsWithItsLastByte) {
  const std::string body = R"({"id":"x","status":"approved","test":true,"live":false,"n":null})";
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(IsFlatAndAgrees(body.substr(0, size))) << size;
    // Nor where the rest stands behind the view.
    EXPECT_FALSE(FlatAnswer(std::string_view(body).substr(0, size)).flat()) << size;
  }
}

TEST(FlatAnswer, EveryOtherByteAtEveryPlace) {
  const std::string seed = R"({"id":"x" ,"status":"ok","a":true,"b":false,"c":null})";
  int flat = 0;
  for (size_t at = 0; at < seed.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string body = seed;
      body[at] = static_cast<char>(byte);
      flat += IsFlatAndAgrees(body);
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(flat, 500);
}

TEST(FlatAnswer, RandomChangesAgreeWithTheSlowReaders) {
  const std::string marks = "\"\\{}[],: \n\t1/\x7f\0"s;
  const std::vector<std::string> words = {
      "true", "false", "null", "\"\"",   "\\u0041", "\u00e9",   "\ufeff",
      "/**/", "id",    "\"id", "\"y\",", ":null,",  ",\"id\":", "\"id\":\"y\",",
  };
  const std::vector<std::string> members = {
      R"(,"q":"r")", R"(,"q":null)",       R"(,"status":"s")", R"(,"status":true)", R"(,"id":"x")",
      R"(,"n":7)",   R"(,"n":{"id":"y"})", R"(,"n":[null])",   R"(,"n":"\u0041")",  ",\"n\":\"\u00e9\"",
  };
  std::mt19937 random(13);
  const auto below = [&random](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int flat = 0, usable = 0, usable_flat = 0;
  constexpr int kRounds = 40000;
  for (int round = 0; round < kRounds; ++round) {
    std::string body = FlatBodies()[below(FlatBodies().size() - 1)];  // the last is long
    for (size_t changes = 1 + below(3); changes > 0; --changes) {
      const size_t at = below(body.size() + 1);
      switch (below(5)) {
        case 0:
          body.erase(at, 1 + below(3));
          break;
        case 1:
          if (at < body.size()) body[at] = static_cast<char>(below(256));
          break;
        case 2:
          body.insert(at, below(2) == 0 ? std::string(1, marks[below(marks.size())]) : words[below(words.size())]);
          break;
        case 3:
          body.insert(at, body.substr(below(body.size() + 1), below(16)));
          break;
        case 4:
          body.insert(std::min(body.find_first_of(",}", at), body.size()), members[below(members.size())]);
          break;
      }
    }
    const bool is_flat = IsFlatAndAgrees(body);
    ASSERT_FALSE(HasFailure()) << "round " << round;
    const bool is_usable = ParseAnswer(body).has_value();
    flat += is_flat;
    usable += is_usable;
    usable_flat += is_flat && is_usable;
  }
  // Else the comparison proves nothing: all four kinds come.
  EXPECT_GT(usable_flat, kRounds / 20);
  EXPECT_GT(flat - usable_flat, kRounds / 100);
  EXPECT_GT(usable - usable_flat, kRounds / 100);
  EXPECT_LT(flat + usable - usable_flat, kRounds * 9 / 10);
}

}  // namespace
}  // namespace userintent::astra
