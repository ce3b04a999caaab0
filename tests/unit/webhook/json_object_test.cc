#include "server/webhook/json_object.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>

namespace userintent::webhook {
namespace {

using Kind = JsonValue::Kind;

// Nothing: no object, or none with a Python form.
std::optional<std::string> Form(std::string_view body) {
  const std::optional<JsonObject> object = JsonObject::Parse(body);
  if (!object || !object->plain()) return std::nullopt;
  return object->PythonForm();
}

bool IsObject(std::string_view body) { return JsonObject::Parse(body).has_value(); }

TEST(PythonForm, IsWrittenAsCPythonDoes) {
  // Each right side was printed by json.dumps(json.loads(left side)) of CPython.
  EXPECT_EQ(Form("{}"), "{}");
  EXPECT_EQ(Form(R"({"a":"b"})"), R"({"a": "b"})");
  EXPECT_EQ(Form(R"( { "z" : "1" , "a" : "2" } )"), R"({"z": "1", "a": "2"})");
  EXPECT_EQ(Form(R"({"a":{},"b":{"c":"d","e":"f"}})"), R"({"a": {}, "b": {"c": "d", "e": "f"}})");
  EXPECT_EQ(Form(R"({"":""})"), R"({"": ""})");
  EXPECT_EQ(Form(R"({"a":"\/ < & ' ~"})"), R"({"a": "/ < & ' ~"})");
  EXPECT_EQ(Form(R"({"a":"\" \\ \b\f\n\r\t"})"), R"({"a": "\" \\ \b\f\n\r\t"})");
  EXPECT_EQ(Form(R"({"a":"\u0000\u001F\u007f\u0041"})"), R"({"a": "\u0000\u001f\u007fA"})");
  EXPECT_EQ(Form("{\"a\":\"\x7f\"}"), R"({"a": "\u007f"})");
  EXPECT_EQ(Form("{\"\xc3\xa9\":\"\xe2\x82\xac \xf0\x9f\x98\x80\"}"), R"({"\u00e9": "\u20ac \ud83d\ude00"})");
  EXPECT_EQ(Form(R"({"a":"\uD83D\uDE00"})"), R"({"a": "\ud83d\ude00"})");
  EXPECT_EQ(Form("{\"a\":\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"),
            R"({"a": "\u0080\u07ff\u0800\uffff\ud800\udc00\udbff\udfff"})");
}

TEST(PythonForm, KeepsHalvesOfPairsThatStandAlone) {
  EXPECT_EQ(Form(R"({"a":"\ud800"})"), R"({"a": "\ud800"})");
  EXPECT_EQ(Form(R"({"a":"\udc00\ud800"})"), R"({"a": "\udc00\ud800"})");
  EXPECT_EQ(Form(R"({"a":"\ud800\ud83d\ude00"})"), R"({"a": "\ud800\ud83d\ude00"})");
  EXPECT_EQ(Form(R"({"a":"\ud800\u0041\udc00x"})"), R"({"a": "\ud800A\udc00x"})");
  EXPECT_EQ(Form(R"({"a":"\ud800\n"})"), R"({"a": "\ud800\n"})");
}

TEST(PythonForm, IsOfPlainObjectsOnly) {
  for (const std::string_view body :
       {R"({"a":1})", R"({"a":null})", R"({"a":true})", R"({"a":[]})", R"({"a":{"b":{}}})", R"({"a":{"b":1}})",
        R"({"a":{"b":null}})", R"({"a":"1","a":"2"})", R"({"a":"1","\u0061":"1"})", R"({"m":{"a":"1","a":"1"}})"}) {
    EXPECT_TRUE(IsObject(body)) << body;
    EXPECT_FALSE(Form(body)) << body;
  }
}

TEST(JsonObject, RefusesWhatIsNoObject) {
  for (const std::string_view body : {"",
                                      " ",
                                      "[]",
                                      "\"a\"",
                                      "1",
                                      "null",
                                      "{",
                                      "}",
                                      "{]",
                                      R"({"a"})",
                                      R"({"a":})",
                                      R"({"a":"b",})",
                                      R"({,"a":"b"})",
                                      R"({"a":"b"}})",
                                      R"({"a":"b"} x)",
                                      R"({"a":"b" "c":"d"})",
                                      R"({a:"b"})",
                                      R"({'a':'b'})",
                                      R"({"a":"b)",
                                      R"({"a":"\x"})",
                                      R"({"a":"\u12"})",
                                      R"({"a":"\u12g4"})",
                                      R"({"a":"\)",
                                      R"({"a":"\u12)",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":\"\t\"}",
                                      "\xef\xbb\xbf{}",
                                      R"({"a":01})",
                                      R"({"a":1.})",
                                      R"({"a":.5})",
                                      R"({"a":1e})",
                                      R"({"a":+1})",
                                      R"({"a":-})",
                                      R"({"a":NaN})",
                                      R"({"a":Infinity})",
                                      R"({"a":nul})",
                                      R"({"a":[1,]})",
                                      R"({"a":[1 2]})",
                                      R"({"a":[})"}) {
    EXPECT_FALSE(IsObject(body)) << body;
  }
  EXPECT_FALSE(IsObject(std::string_view("{\"a\":\"\0\"}", 9)));
  EXPECT_FALSE(IsObject(std::string_view("{}\0", 3)));
}

TEST(JsonObject, RefusesWhatIsNotUtf8) {
  for (const std::string_view bytes :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    const std::string text(bytes);
    EXPECT_FALSE(IsObject("{\"a\":\"" + text + "\"}"));
    EXPECT_FALSE(IsObject("{\"" + text + "\":\"a\"}"));
    EXPECT_FALSE(IsObject("{\"a\":[{\"b\":\"" + text + "\"}]}")) << "also where nobody looks";
  }
}

TEST(JsonObject, PassesOverValuesOfEveryKind) {
  const std::optional<JsonObject> object = JsonObject::Parse(
      R"({"n":[-0.5e+3,0,10,1E9,true,false,null,"x",{"y":["\ud800"]},[]],"t":"text","d":{"s":"v","o":{"p":"q"},"l":[]},"z":null})");
  ASSERT_TRUE(object);
  ASSERT_EQ(object->members().size(), 4U);
  EXPECT_EQ(object->members()[0].value.kind, Kind::kOther);
  EXPECT_EQ(object->members()[1].value.text, "text");
  EXPECT_EQ(object->members()[2].value.kind, Kind::kObject);
  ASSERT_EQ(object->members()[2].value.members.size(), 3U);
  EXPECT_EQ(object->members()[2].value.members[0].value.text, "v");
  EXPECT_EQ(object->members()[2].value.members[1].value.kind, Kind::kOther);
  EXPECT_EQ(object->members()[3].value.kind, Kind::kNull);
}

TEST(JsonObject, IsNestedSoDeepAndNoDeeper) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']') +
           "}";
  };
  EXPECT_TRUE(IsObject(nested(64)));
  EXPECT_FALSE(IsObject(nested(65)));
  EXPECT_FALSE(IsObject(nested(30'000)));
  std::string objects;
  for (int i = 0; i < 30'000; ++i) objects += "{\"\":";
  EXPECT_FALSE(IsObject(objects));
}

TEST(JsonObject, KeepsTheOrderAndDoubleNames) {
  const std::optional<JsonObject> object = JsonObject::Parse(R"({"b":"1","a":"2","b":"3"})");
  ASSERT_TRUE(object);
  ASSERT_EQ(object->members().size(), 3U);
  EXPECT_EQ(object->members()[0].value.text, "1");
  EXPECT_EQ(object->members()[2].name, "b");
  EXPECT_EQ(object->members()[2].value.text, "3");
}

}  // namespace
}  // namespace userintent::webhook
