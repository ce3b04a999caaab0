#include "server/webhook/event.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "server/base/uuid.h"

namespace userintent::webhook {
namespace {

constexpr std::string_view kAttempt = "0b6c0e5f-52f4-4c39-9d43-f0a0a6a1c3c5";

std::optional<ledger::Webhook> Read(std::string_view body) {
  const std::optional<JsonObject> object = JsonObject::Parse(body);
  return object ? ReadEvent(*object, absl::UnixEpoch()) : std::nullopt;
}

std::string Body(std::string_view more) {
  return R"({"webhook_type":"user_intent_updated","webhook_id":"w1","user_id":"i1","resource_id":"i1")" +
         std::string(more) + "}";
}

TEST(Event, HoldsWhatIsUsedAndNothingElse) {
  const auto webhook = Read(Body(R"(,"metadata":{"name":"x","gateway_attempt_id":")" + std::string(kAttempt) +
                                 R"("},"more":[1,{"a":null}],"user_id":7)"));
  ASSERT_TRUE(webhook);
  EXPECT_EQ(webhook->type, "user_intent_updated");
  EXPECT_EQ(webhook->id, "w1");
  EXPECT_EQ(webhook->resource_id, "i1");
  EXPECT_EQ(webhook->attempt_id, ParseUuid(kAttempt));
  EXPECT_EQ(webhook->received, absl::UnixEpoch());
}

TEST(Event, AnIdOfAnIntentIsWhateverAstraCalledIt) {
  const auto webhook = Read(R"({"webhook_type":"t","webhook_id":"w1","resource_id":"\u00efd-2 b"})");
  ASSERT_TRUE(webhook);
  EXPECT_EQ(webhook->resource_id, "\u00efd-2 b");
}

TEST(Event, AttemptIdIsOptional) {
  for (const std::string_view more :
       {"", R"(,"metadata":null)", R"(,"metadata":{})", R"(,"metadata":{"a":"b","c":1})",
        R"(,"metadata":{"gateway_attempt_id":"not-a-uuid"})", R"(,"metadata":{"gateway_attempt_id":5})"}) {
    const auto webhook = Read(Body(more));
    ASSERT_TRUE(webhook) << more;
    EXPECT_FALSE(webhook->attempt_id) << more;
  }
}

TEST(Event, RefusesAnotherShape) {
  const std::string attempt = "\"gateway_attempt_id\":\"" + std::string(kAttempt) + "\"";
  for (const std::string& body :
       {std::string("{}"), Body(R"(,"webhook_id":"w2")"), Body(R"(,"webhook_id":"w1")"), Body(R"(,"resource_id":null)"),
        Body(R"(,"webhook_type":"x")"), Body(R"(,"metadata":[])"), Body(R"(,"metadata":"x")"), Body(R"(,"metadata":1)"),
        Body(R"(,"metadata":{},"metadata":{})"), Body(absl::StrCat(",\"metadata\":{", attempt, ",", attempt, "}")),
        std::string(R"({"webhook_id":"w1","resource_id":"i1"})"),
        std::string(R"({"webhook_type":"t","resource_id":"i1"})"),
        std::string(R"({"webhook_type":"t","webhook_id":"w1"})"),
        std::string(R"({"webhook_type":"","webhook_id":"w1","resource_id":"i1"})"),
        std::string(R"({"webhook_type":"t","webhook_id":"a\nb","resource_id":"i1"})"),
        std::string(R"({"webhook_type":"t","webhook_id":"w\u00e9","resource_id":"i1"})"),
        std::string(R"({"webhook_type":"t","webhook_id":"w1","resource_id":["i1"]})"),
        std::string(R"({"webhook_type":"t","webhook_id":"w1","resource_id":"i\n1"})"),
        // Half a surrogate pair, which CPython writes and no database takes.
        std::string(R"({"webhook_type":"t","webhook_id":"w1","resource_id":"i\ud8001"})"),
        std::string(R"({"webhook_type":"t","webhook_id":"w1","resource_id":")") + std::string(257, 'i') + "\"}",
        std::string(R"({"webhook_type":7,"webhook_id":"w1","resource_id":"i1"})")}) {
    EXPECT_FALSE(Read(body)) << body;
  }
}

TEST(Event, LengthsAreBounded) {
  const auto body = [](size_t type, size_t id, size_t resource) {
    return R"({"webhook_type":")" + std::string(type, 't') + R"(","webhook_id":")" + std::string(id, 'w') +
           R"(","resource_id":")" + std::string(resource, 'i') + "\"}";
  };
  EXPECT_TRUE(Read(body(128, 128, 256)));
  EXPECT_FALSE(Read(body(129, 128, 256)));
  EXPECT_FALSE(Read(body(128, 129, 256)));
  EXPECT_FALSE(Read(body(128, 128, 257)));
}

}  // namespace
}  // namespace userintent::webhook
