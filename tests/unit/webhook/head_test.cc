#include "server/webhook/head.h"

#include <gtest/gtest.h>

#include <optional>
#include <string_view>

namespace userintent::webhook {
namespace {

constexpr std::string_view kPath = "/astra/webhooks";

Head Good() {
  Head head{"POST", kPath, "HTTP/1.1"};
  head.Take("content-LENGTH", "10");
  return head;
}

HeadVerdict Judge(const Head& head) { return JudgeHead(head, kPath); }

TEST(Head, GoodOnesAreRead) {
  const HeadVerdict verdict = Judge(Good());
  EXPECT_FALSE(verdict.refusal);
  EXPECT_TRUE(verdict.read_body);
  EXPECT_EQ(verdict.length, 10U);
}

TEST(Head, WhatIsRefusedWithoutHarmIsReadFirst) {
  Head head = Good();
  head.path = "/astra/webhooks/";
  EXPECT_EQ(Judge(head).refusal, Answer::kNotFound);
  EXPECT_TRUE(Judge(head).read_body);
  head = Good();
  head.method = "PUT";
  EXPECT_EQ(Judge(head).refusal, Answer::kWrongMethod);
  EXPECT_TRUE(Judge(head).read_body);
  const Head get{"GET", kPath, "HTTP/1.1"};
  EXPECT_EQ(Judge(get).refusal, Answer::kWrongMethod);
  EXPECT_TRUE(Judge(get).read_body);
}

TEST(Head, TheEndOfTheBodyMustBeKnown) {
  const auto judge = [](auto change) {
    Head head{"POST", kPath, "HTTP/1.1"};
    change(head);
    const HeadVerdict verdict = Judge(head);
    EXPECT_FALSE(verdict.read_body);
    return verdict.refusal;
  };
  EXPECT_EQ(judge([](Head&) {}), Answer::kNoLength);
  EXPECT_EQ(judge([](Head& head) { head.Take("Transfer-Encoding", "chunked"); }), Answer::kNoLength);
  EXPECT_EQ(judge([](Head& head) {
              head.Take("Transfer-Encoding", "chunked");
              head.Take("Content-Length", "5");
            }),
            Answer::kBadRequest);
  EXPECT_EQ(judge([](Head& head) {
              head.Take("Content-Length", "5");
              head.Take("Content-Length", "5");
            }),
            Answer::kBadRequest);
  for (const std::string_view text : {"", "-1", "+5", "5 ", "0x10", "5,5", "1e3"}) {
    EXPECT_EQ(judge([text](Head& head) { head.Take("Content-Length", text); }), Answer::kBadRequest) << text;
  }
  for (const std::string_view text : {"65537", "4294967296", "18446744073709551616", "99999999999999999999999"}) {
    EXPECT_EQ(judge([text](Head& head) { head.Take("Content-Length", text); }), Answer::kTooLarge) << text;
  }
}

TEST(Head, TwoHostsAreRefusedUnread) {
  Head head = Good();
  head.Take("Host", "a.example");
  EXPECT_FALSE(Judge(head).refusal);
  head.Take("host", "a.example");
  EXPECT_EQ(Judge(head).refusal, Answer::kBadRequest);
  EXPECT_FALSE(Judge(head).read_body);
}

TEST(Head, TheTargetMayBeTheWholeUri) {
  for (const std::string_view target : {"http://a.example/astra/webhooks", "HTTPS://a.example:8443/astra/webhooks"}) {
    Head head = Good();
    head.path = target;
    EXPECT_FALSE(Judge(head).refusal) << target;
  }
  for (const std::string_view target : {"http://a.example", "http://a.example/", "http:///x", "http:/astra/webhooks",
                                        "ftp://a.example/astra/webhooks", "http://a.example/astra/webhooks/", ""}) {
    Head head = Good();
    head.path = target;
    EXPECT_EQ(Judge(head).refusal, Answer::kNotFound) << target;
  }
}

TEST(Head, BlanksRoundASignatureAreNoPartOfIt) {
  Head head;
  head.Take("astra-verification", " c2ln\t");
  EXPECT_EQ(head.signature.value, "c2ln");
}

TEST(Head, SixtyFourKibibytesAreNotTooMany) {
  Head head{"POST", kPath, "HTTP/1.1"};
  head.Take("Content-Length", "65536");
  EXPECT_FALSE(Judge(head).refusal);
}

TEST(Head, AnotherPathDoesNotMakeABadBodyReadable) {
  Head head{"POST", "/", "HTTP/1.1"};
  head.Take("Transfer-Encoding", "chunked");
  EXPECT_EQ(Judge(head).refusal, Answer::kNotFound);
  EXPECT_FALSE(Judge(head).read_body);
}

TEST(Head, OtherVersionsAreRefused) {
  Head head = Good();
  head.version = "HTTP/1.0";
  EXPECT_EQ(Judge(head).refusal, Answer::kWrongVersion);
  EXPECT_FALSE(Judge(head).read_body);
}

}  // namespace
}  // namespace userintent::webhook
