#include "server/astra/answer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace userintent::astra {
namespace {

using std::string_literals::operator""s;

std::string Nested(int depth_of_innermost) {  // the outermost object is depth 1
  const int arrays = depth_of_innermost - 1;
  return R"({"id":"x","deep":)" + std::string(static_cast<size_t>(arrays), '[') +
         std::string(static_cast<size_t>(arrays), ']') + "}";
}

TEST(ParseAnswer, Usable) {
  struct Case {
    std::string body, id, status;
  };
  const std::vector<Case> cases = {
      {R"({"id":"1a908838d703473ab52e6884c001e447"})", "1a908838d703473ab52e6884c001e447", ""},
      {R"({"id":"x","status":"pending"})", "x", "pending"},
      {R"({"status":"approved","id":"x"})", "x", "approved"},
      {" \r\n\t{ \"id\" : \"x\" , \"n\" : -1.5e3 }\n", "x", ""},
      {R"({"id":"x","status":"a word of the future!"})", "x", "a word of the future!"},
      {R"({"id":"\u00e9\ud83d\ude00 \/"})", "\u00e9\U0001F600 /", ""},
      {"{\"id\":\"\u00e9\"}", "\u00e9", ""},
      {R"({"id":")" + std::string(256, 'i') + R"("})", std::string(256, 'i'), ""},
      {R"({"\u0069d":"x"})", "x", ""},
      // Only the members of the outermost object count.
      {R"({"a":{"id":"no","status":"no"},"b":[{"id":1,"id":2},"id"],"id":"x"})", "x", ""},
      {R"({"id":"x","user":{"id":"no"},"status":"retry"})", "x", "retry"},
      {R"({"x":1,"x":2,"id":"x"})", "x", ""},
      {R"({"ID":"no","id":"x"})", "x", ""},
      {Nested(16), "x", ""},
      // A status that is not fit to keep does not cost the id.
      {R"({"id":"x","status":null})", "x", ""},
      {R"({"id":"x","status":7})", "x", ""},
      {R"({"id":"x","status":["pending"]})", "x", ""},
      {R"({"id":"x","status":{"id":"no","status":"pending"}})", "x", ""},
      {R"({"id":"x","status":""})", "x", ""},
      {R"({"id":"x","status":"a","status":"b"})", "x", ""},
      {R"({"status":"a","status":null,"id":"x","status":"a"})", "x", ""},
      {R"({"id":"x","status":"caf\u00e9"})", "x", ""},
      {R"({"id":"x","status":"a\nb"})", "x", ""},
      {R"({"id":"x","status":"a\u007fb"})", "x", ""},
      {R"({"id":"x","status":")" + std::string(64, 's') + R"("})", "x", std::string(64, 's')},
      {R"({"id":"x","status":")" + std::string(65, 's') + R"("})", "x", ""},
      {R"({"id":"x","pad":")" + std::string(64 * 1024 - 19, 'p') + R"("})", "x", ""},  // 64 KiB to the byte
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.body.substr(0, 100));
    const std::optional<Answer> answer = ParseAnswer(c.body);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->id, c.id);
    EXPECT_EQ(answer->status, c.status);
  }
  EXPECT_EQ(cases.back().body.size(), 64u * 1024);
}

const std::vector<std::string>& HostileBodies() {
  static const auto* const bodies = new std::vector<std::string>{
      "",
      " ",
      "\n",
      "null",
      "true",
      "7",
      R"("x")",
      R"(["id","x"])",
      R"([{"id":"x"}])",
      "{}",
      R"({"ID":"x"})",
      R"({"id":""})",
      R"({"id":7})",
      R"({"id":7.5})",
      R"({"id":-7})",
      R"({"id":null})",
      R"({"id":true})",
      R"({"id":["x"]})",
      R"({"id":[]})",
      R"({"id":{}})",
      R"({"id":{"id":"x"}})",
      R"({"data":{"id":"x"}})",
      // said twice
      R"({"id":"x","id":"x"})",
      R"({"id":"x","id":"y"})",
      R"({"id":null,"id":"x"})",
      R"({"id":"x","\u0069\u0064":"y"})",
      R"({"id":"x","a":{"id":"z"},"id":"y"})",
      // control characters
      R"({"id":"a\nb"})",
      R"({"id":"a\u0000b"})",
      R"({"id":"\u0000"})",
      R"({"id":"a\u001fb"})",
      R"({"id":"a\u007fb"})",
      R"({"id":"a\u0080b"})",
      R"({"id":"a\u009f"})",
      "{\"id\":\"a\xc2\x85\"}",
      "{\"id\":\"a\nb\"}",
      "{\"id\":\"a\0b\"}"s,
      // sizes
      R"({"id":")" + std::string(257, 'i') + R"("})",
      R"({"id":"x","pad":")" + std::string(64 * 1024 - 18, 'p') + R"("})",
      R"({"id":"x"})" + std::string(70000, ' '),
      // not one JSON value
      R"({"id":"x"}{"id":"y"})",
      R"({"id":"x"} x)",
      R"({"id":"x"},)",
      R"({"id":"x"}])",
      "{\"id\":\"x\"}\0"s,
      "{\"id\":\"x\"}\0{\"id\":\"y\"}"s,
      "{\"id\":\"x\"}\0<html>"s,
      "\0{\"id\":\"x\"}"s,
      R"({"id":"x")",
      R"({"id":"x)",
      R"({"id":"x",})",
      R"({"id":"x","a"})",
      R"({"id":"x","a":})",
      R"({"id":"x" "a":1})",
      R"({'id':'x'})",
      R"({id:"x"})",
      R"({"id":"x","n":NaN})",
      R"({"id":"x","n":01})",
      R"({"id":"x","n":+1})",
      R"({"id":"x","n":.5})",
      R"({"id":"x","n":tru})",
      R"({"id":"x"} // fine)",
      R"(/* fine */ {"id":"x"})",
      R"(id=x)",
      R"()]}',{"id":"x"})",
      "<!doctype html><html><body>{\"id\":\"x\"}</body></html>",
      "HTTP/1.1 201 Created\r\n\r\n{\"id\":\"x\"}",
      // not UTF-8
      "{\"id\":\"\xff\"}",
      "{\"id\":\"\xc3\"}",
      "{\"id\":\"\xc0\xaf\"}",
      "{\"id\":\"\xed\xa0\x80\"}",
      "{\"id\":\"\xf4\x90\x80\x80\"}",
      "{\"id\":\"x\",\"other\":\"\x80\"}",
      "{\"id\":\"x\",\"\xff\":1}",
      R"({"id":"\ud800"})",
      R"({"id":"\udc00\ud800"})",
      R"({"id":"\u00g0"})",
      R"({"id":"\x41"})",
      "{\0\"\0i\0d\0\"\0:\0\"\0x\0\"\0}\0"s,  // UTF-16
      "\xff\xfe{\"id\":\"x\"}",
      // depth
      Nested(17),
      Nested(30000),
      R"({"id":"x","deep":)" + std::string(60000, '['),
      std::string(65536, '['),
      std::string(65536, '{'),
      [] {
        std::string objects = R"({"id":"x")";
        for (int i = 0; i < 8000; ++i) objects += R"(,"a":{"a":1)";
        return objects.substr(0, 65536);
      }(),
      [] {
        std::string objects;
        for (int i = 0; i < 13000; ++i) objects += R"({"a":)";
        return objects;
      }(),
  };
  return *bodies;
}

TEST(ParseAnswer, Unusable) {
  for (const std::string& body : HostileBodies()) {
    EXPECT_FALSE(ParseAnswer(body).has_value()) << body.size() << " bytes: " << body.substr(0, 100);
  }
}

// What a careful reader that builds the whole document says about the same bytes.
std::optional<std::string> IdBySlowReader(const std::string& body) {
  if (body.find('\0') != std::string::npos) return std::nullopt;
  int ids = 0, statuses = 0;
  bool too_deep = false;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= 16) too_deep = true;
    if (event == Event::key && depth == 1) {
      ids += value == "id";
      statuses += value == "status";
    }
    return true;
  };
  const nlohmann::json document = nlohmann::json::parse(body, watch, /*allow_exceptions=*/false);
  if (document.is_discarded() || too_deep || !document.is_object() || ids != 1 || statuses > 1) return std::nullopt;
  const auto id = document.find("id");
  if (id == document.end() || !id->is_string()) return std::nullopt;
  const std::string text = *id;
  if (text.empty() || text.size() > 256) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == 0x7f) return std::nullopt;
    if (byte == 0xc2 && static_cast<unsigned char>(text[i + 1]) <= 0x9f) return std::nullopt;
  }
  return text;
}

TEST(ParseAnswer, RandomBytes) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> byte(0, 255), length(0, 300);
  for (int round = 0; round < 20000; ++round) {
    std::string body(static_cast<size_t>(length(random)), '\0');
    std::generate(body.begin(), body.end(), [&] { return static_cast<char>(byte(random)); });
    ASSERT_FALSE(ParseAnswer(body).has_value());  // no room for a lucky one: the seed is fixed
    ErrorBodyContains(body, "attempts");
  }
}

TEST(ParseAnswer, RandomChangesAgreeWithASlowReader) {
  const std::vector<std::string> seeds = {
      R"({"id":"1a908838","status":"pending","user":{"id":"n","list":[1,2.5e1,true,null,"t\u00e9\n"]}})",
      R"({"a":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]],"id":"x"})",
      "{\"status\":\"\\ud83d\\ude00\",\"id\":\"\u00e9\u0085\"}",
  };
  const std::vector<std::string> pieces = {"\"",           "\\", "{",     "}",   "[",        "]",           ",", ":",
                                           "\"id\":\"y\"", "1",  "\\u00", "\0"s, "\xc3\xa9", "\"status\":", " "};
  std::mt19937 random(11);
  const auto below = [&random](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int usable = 0;
  for (int round = 0; round < 60000; ++round) {
    std::string body = seeds[below(seeds.size())];
    for (size_t changes = 1 + below(4); changes > 0; --changes) {
      const size_t at = below(body.size());
      switch (below(4)) {
        case 0:
          body.erase(at, 1 + below(3));
          break;
        case 1:
          body[at] = static_cast<char>(below(256));
          break;
        case 2:
          body.insert(at, pieces[below(pieces.size())]);
          break;
        case 3:
          body.insert(at, body.substr(below(body.size()), below(12)));
          break;
      }
      if (body.empty()) body = "{";
    }
    const std::optional<Answer> fast = ParseAnswer(body);
    const std::optional<std::string> slow = IdBySlowReader(body);
    ASSERT_EQ(fast.has_value(), slow.has_value()) << body;
    if (fast.has_value()) {
      ASSERT_EQ(fast->id, *slow) << body;
      ++usable;
    }
  }
  EXPECT_GT(usable, 1000);  // else the comparison proves nothing
  EXPECT_LT(usable, 59000);
}

TEST(LimitRule, Parses) {
  absl::StatusOr<LimitRule> rule = ParseLimitRule("400:attempts");
  ASSERT_TRUE(rule.ok()) << rule.status();
  EXPECT_EQ(rule->status, 400);
  EXPECT_EQ(rule->substring, "attempts");

  rule = ParseLimitRule("499: limit: 3 \u00e9");
  ASSERT_TRUE(rule.ok()) << rule.status();
  EXPECT_EQ(rule->status, 499);
  EXPECT_EQ(rule->substring, " limit: 3 \u00e9");

  EXPECT_TRUE(ParseLimitRule("422:" + std::string(256, 'x')).ok());
}

TEST(LimitRule, Refuses) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no colon"},           {"400", "no colon"},      {":x", "status"},
      {"399:x", "status"},        {"500:x", "status"},      {"0400:x", "status"},
      {"40:x", "status"},         {" 400:x", "status"},     {"400 :x", "status"},
      {"+40:x", "status"},        {"4x0:x", "status"},      {"200:x", "status"},
      {"4294967696:x", "status"}, {"400:", "blank"},        {"400:   ", "blank"},
      {"400:a\nb", "control"},    {"400:a\0b"s, "control"}, {"400:" + std::string(257, 'x'), "longer"},
  };
  for (const auto& [text, reason] : cases) {
    SCOPED_TRACE(text.substr(0, 20));
    const absl::StatusOr<LimitRule> rule = ParseLimitRule(text);
    ASSERT_FALSE(rule.ok());
    EXPECT_NE(rule.status().message().find("--astra_limit_error: "), std::string_view::npos);
    EXPECT_NE(rule.status().message().find(reason), std::string_view::npos) << rule.status();
  }
}

TEST(ErrorBody, IsAstras) {
  for (const char* body :
       {R"({"code":403,"name":"Forbidden","description":"x"})", R"({"status_code":403})",
        R"({"error":"invalid_client"})", R"({"error_description":null})", R"({"x":{},"name":"y"})"}) {
    EXPECT_TRUE(IsAstraError(body)) << body;
  }
  for (const char* body :
       {"", "{}", "<html>403 Forbidden</html>", R"("code")", R"(["code"])", R"([{"code":403}])", R"({"x":{"code":1}})",
        R"({"message":"Forbidden"})", R"({"code":403)", R"({"code":403} {})", R"({"x":"code"})", "code"}) {
    EXPECT_FALSE(IsAstraError(body)) << body;
  }
}

TEST(ErrorBody, Contains) {
  struct Case {
    std::string body;
    bool contains;
  };
  const std::vector<Case> cases = {
      // JSON: inside a string value, at any depth
      {R"({"code":400,"name":"Bad Request","description":"no more attempts left"})", true},
      {R"({"errors":[{"x":["attempts"]}]})", true},
      {R"("attempts")", true},
      {R"(["no","attempts","no"])", true},
      {R"({"description":"att\u0065mpts"})", true},
      {R"({"a":"attempts","a":"b"})", true},
      // JSON: not in a key, not across values, not in another case
      {R"({"attempts":3})", false},
      {R"({"attempts":"none"})", false},
      {R"(["atte","mpts"])", false},
      {R"({"description":"Attempts"})", false},
      {"{}", false},
      {"null", false},
      // not JSON: anywhere
      {"<html>no attempts left</html>", true},
      {"attempts", true},
      {R"({"attempts":3)", true},
      {R"({"attempts":3}})", true},
      {"{\"a\":\"\xff attempts\"}", true},
      {"{}\0attempts"s, true},
      {std::string(17, '[') + R"({"attempts":1})" + std::string(17, ']'), true},
      {"<html>att&#101;mpts</html>", false},
      {"", false},
  };
  for (const Case& c : cases) EXPECT_EQ(ErrorBodyContains(c.body, "attempts"), c.contains) << c.body;
}

}  // namespace
}  // namespace userintent::astra
