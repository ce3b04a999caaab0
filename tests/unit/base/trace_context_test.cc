// W3C's traceparent: what is one, what is none, and what is written.
#include "server/base/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace userintent {
namespace {

constexpr char kGood[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, Reads) {
  const std::optional<TraceContext> context = ParseTraceparent(kGood);
  ASSERT_TRUE(context);
  EXPECT_EQ(TraceIdText(context->trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(SpanIdText(context->span_id), "00f067aa0ba902b7");
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(TraceparentText(*context), kGood);
}

TEST(TraceContext, OnlyTheFirstFlagIsKnown) {
  const std::string but_flags(kGood, sizeof kGood - 3);
  for (const auto& [flags, sampled] : {std::pair("00", false), {"01", true}, {"02", false}, {"ff", true}}) {
    const std::optional<TraceContext> context = ParseTraceparent(but_flags + flags);
    ASSERT_TRUE(context) << flags;
    EXPECT_EQ(context->sampled, sampled) << flags;
    EXPECT_EQ(TraceparentText(*context), but_flags + (sampled ? "01" : "00"));
  }
}

TEST(TraceContext, IsNone) {
  const std::string good = kGood;
  EXPECT_FALSE(ParseTraceparent(""));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(ParseTraceparent(good.substr(0, length)));
  for (const char* const more : {"-", "0", " ", "-00"}) EXPECT_FALSE(ParseTraceparent(good + more)) << more;
  EXPECT_FALSE(ParseTraceparent(" " + good));
  // Each place with what must not stand there.
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char wrong : {'g', 'A', ' ', '_', '\n', '\0', '\x80'}) {
      std::string text = good;
      text[at] = wrong;
      EXPECT_FALSE(ParseTraceparent(text)) << text;
    }
  }
  EXPECT_FALSE(ParseTraceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
  EXPECT_FALSE(ParseTraceparent("ff" + good.substr(2)));
}

TEST(TraceContext, LaterVersionsAreReadAsFarAsTheyAreKnown) {
  const std::string later = "cc" + std::string(kGood).substr(2);
  for (const std::string& text : {later, later + "-", later + "-what-the-future-brings"}) {
    const std::optional<TraceContext> context = ParseTraceparent(text);
    ASSERT_TRUE(context) << text;
    EXPECT_EQ(TraceparentText(*context), kGood);
  }
  EXPECT_FALSE(ParseTraceparent(later + "x"));
  EXPECT_FALSE(ParseTraceparent(later.substr(0, 54)));
}

TEST(TraceContext, RandomIdsDiffer) {
  EXPECT_NE(NewTraceId(), NewTraceId());
  EXPECT_NE(NewSpanId(), NewSpanId());
  for (int i = 0; i < 1000; ++i) {
    TraceContext fresh{NewTraceId(), NewSpanId(), i % 2 == 0};
    const std::optional<TraceContext> read = ParseTraceparent(TraceparentText(fresh));
    ASSERT_TRUE(read);
    EXPECT_EQ(read->trace_id, fresh.trace_id);
    EXPECT_EQ(read->span_id, fresh.span_id);
    EXPECT_EQ(read->sampled, fresh.sampled);
  }
}

}  // namespace
}  // namespace userintent
