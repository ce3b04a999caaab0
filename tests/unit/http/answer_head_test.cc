// The rules for one HTTP/2 answer, field by field: what counts, what is ignored, what makes it malformed and why.
#include "server/http/answer_head.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace userintent::http {
namespace {

using Field = AnswerHead::Field;
using Fields = std::vector<std::pair<std::string_view, std::string_view>>;

// What becomes of the last field.
Field ReadAll(AnswerHead& head, const Fields& fields, std::string* last = nullptr) {
  head.Begin();
  Field verdict = Field::kSkip;
  for (auto [name, value] : fields) {
    verdict = head.Read(name, &value);
    if (last != nullptr) *last = value;
    if (verdict == Field::kMalformed) break;
  }
  return verdict;
}

TEST(AnswerHead, BlanksAroundAValueAreNotPartOfIt) {
  for (const char* value : {"2", "2 ", " 2", "\t2", "2\t \t"}) {
    AnswerHead head;
    std::string last;
    EXPECT_EQ(ReadAll(head, {{":status", "503"}, {"retry-after", value}}, &last), Field::kTake);
    EXPECT_EQ(last, "2");
    EXPECT_TRUE(head.EndHead(true) && head.EndBody());
  }
}

TEST(AnswerHead, FieldsOfTheConnectionAreIgnored) {
  for (const char* name : {"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}) {
    AnswerHead head;
    EXPECT_EQ(ReadAll(head, {{":status", "201"}, {name, "x"}}), Field::kIgnore) << name;
    EXPECT_TRUE(head.EndHead(false) && head.ReadBody(1) && head.EndBody());
    EXPECT_EQ(head.status(), 201);
  }
}

TEST(AnswerHead, FieldsThatNobodyCanReadAreIgnored) {
  const std::pair<std::string_view, std::string_view> kFields[] = {
      {"x y", "1"}, {"", "1"}, {"x", "a\x01"}, {"x", std::string_view("a\0b", 3)}, {"retry-after", "2\r\nx: y"},
  };
  for (const auto& field : kFields) {
    AnswerHead head;
    EXPECT_EQ(ReadAll(head, {{":status", "201"}, field}), Field::kIgnore) << field.first;
  }
}

TEST(AnswerHead, EveryFaultHasAName) {
  const std::pair<Fields, std::string_view> kHeads[] = {
      {{{"request-id", "x"}, {":status", "201"}}, "malformed answer: no status before other fields"},
      {{{":status", "201"}, {":path", "/"}}, "malformed answer: unknown pseudo-header field"},
      {{{":status", "201"}, {":status", "201"}}, "malformed answer: status twice"},
      {{{":status", "2x1"}}, "malformed answer: status is none"},
      {{{":status", "201 "}}, "malformed answer: status is none"},
      {{{":status", "099"}}, "malformed answer: status is none"},
      {{{":status", "101"}}, "malformed answer: status is none"},
      {{{":status", "201"}, {"X", "1"}}, "malformed answer: field name in upper case"},
      {{{":status", "201"}, {"content-length", "-1"}}, "malformed answer: content-length is none"},
      {{{":status", "201"}, {"content-length", ""}}, "malformed answer: content-length is none"},
      {{{":status", "201"}, {"content-length", "5"}, {"content-length", "6"}},
       "malformed answer: content-length is none"},
      {{{":status", "201"}, {"content-length", "9999999999999999999"}}, "malformed answer: content-length is none"},
  };
  for (const auto& [fields, fault] : kHeads) {
    AnswerHead head;
    EXPECT_EQ(ReadAll(head, fields), Field::kMalformed) << fault;
    EXPECT_EQ(head.fault(), fault);
  }
}

TEST(AnswerHead, StatusAfterOtherFieldsOfAnInterimHead) {
  AnswerHead head;
  EXPECT_EQ(ReadAll(head, {{":status", "103"}, {"link", "x"}}), Field::kSkip);
  EXPECT_TRUE(head.EndHead(false));
  EXPECT_FALSE(head.done());
  EXPECT_EQ(ReadAll(head, {{":status", "201"}, {"request-id", "x"}}), Field::kTake);
  EXPECT_TRUE(head.EndHead(false));
  EXPECT_TRUE(head.done());
  EXPECT_EQ(ReadAll(head, {{"x", "1"}, {"connection", "close"}}), Field::kIgnore);  // trailers
  EXPECT_TRUE(head.EndHead(true));
  EXPECT_EQ(head.status(), 201);
}

TEST(AnswerHead, TheEndHasToFit) {
  AnswerHead no_status;
  no_status.Begin();
  EXPECT_FALSE(no_status.EndHead(true));
  EXPECT_EQ(no_status.fault(), "malformed answer: no status");

  AnswerHead interim;
  ReadAll(interim, {{":status", "103"}});
  EXPECT_FALSE(interim.EndHead(true));

  AnswerHead early;
  EXPECT_FALSE(early.ReadBody(1));

  AnswerHead trailers;
  ReadAll(trailers, {{":status", "201"}});
  EXPECT_TRUE(trailers.EndHead(false));
  EXPECT_EQ(ReadAll(trailers, {{":status", "201"}}), Field::kMalformed);

  AnswerHead within;
  ReadAll(within, {{":status", "201"}});
  EXPECT_TRUE(within.EndHead(false));
  within.Begin();
  EXPECT_FALSE(within.EndHead(false));
}

TEST(AnswerHead, AnnouncedLengthsHold) {
  for (const int sent : {2, 3, 4}) {
    AnswerHead head;
    ReadAll(head, {{":status", "201"}, {"content-length", "3"}, {"content-length", "3 "}});
    EXPECT_TRUE(head.EndHead(false));
    EXPECT_EQ(head.ReadBody(static_cast<size_t>(sent)), sent <= 3);
    if (sent <= 3) {
      EXPECT_EQ(head.EndBody(), sent == 3);
    }
  }
  for (const char* status : {"204", "304"}) {
    AnswerHead head;
    ReadAll(head, {{":status", status}, {"content-length", "12"}});
    EXPECT_TRUE(head.EndHead(true) && head.EndBody());
  }
}

}  // namespace
}  // namespace userintent::http
