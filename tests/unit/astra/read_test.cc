// What a GET of an intent came to: the table of reads, and what is kept of an answer.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/astra/answer.h"
#include "server/astra/classify.h"
#include "tests/unit/astra/answered.h"

namespace userintent::astra {
namespace {

ReadOutcome Read(const http::Outcome& exchange) { return ClassifyRead(exchange, "intent-1", kNow); }

TEST(ClassifyRead, EveryStatus) {
  for (int status = 200; status < 600; ++status) {
    ReadVerdict expected = ReadVerdict::kMisconfigured;
    if (status < 300) expected = ReadVerdict::kRead;
    if (status == 404) expected = ReadVerdict::kNotFound;
    if (status == 429) expected = ReadVerdict::kRateLimited;
    if (status == 401 || status == 403) expected = ReadVerdict::kCredentialsRejected;
    if (status == 408 || status >= 500) expected = ReadVerdict::kUnavailable;
    for (const char* const retry_after : {"", "17"}) {
      http::Outcome exchange = Answered(status);
      exchange.retry_after = retry_after;
      const ReadOutcome outcome = Read(exchange);
      EXPECT_EQ(outcome.verdict, expected) << status;
      EXPECT_EQ(outcome.http_status, status);
      EXPECT_EQ(outcome.astra_request_id, "req-1");
      EXPECT_FALSE(outcome.detail.empty());
      const bool waits = *retry_after != '\0' && (status == 429 || status == 503);
      EXPECT_EQ(outcome.retry_after, waits ? std::optional(absl::Seconds(17)) : std::nullopt) << status;
      EXPECT_EQ(outcome.astra_status, expected == ReadVerdict::kRead ? "pending" : "") << status;
    }
  }
}

TEST(ClassifyRead, OnlyTheIntentThatWasAskedForIsRead) {
  for (const char* const body :
       {"", "{}", "[]", "null", R"({"id":"intent-2"})", R"({"id":7})", R"(["intent-1"])", R"({"id":"intent-1"}x)",
        R"({"id":"intent-1","id":"intent-1"})", R"({"id":"intent-1","status":"a","status":"a"})",
        R"({"id":"intent-1","user_id":"a","user_id":"a"})", R"({"user_intent":{"id":"intent-1"}})"}) {
    EXPECT_EQ(Read(Answered(200, body)).verdict, ReadVerdict::kMisconfigured) << body;
  }
}

TEST(ClassifyRead, ACutBodyIsReadAgainAndOneThatIsTooLongIsNot) {
  http::Outcome cut = Answered(200);
  cut.body_complete = false;
  EXPECT_EQ(Read(cut).verdict, ReadVerdict::kUnavailable);
  cut.body = std::string(kMaxBody, ' ');
  EXPECT_EQ(Read(cut).verdict, ReadVerdict::kMisconfigured);
  EXPECT_EQ(http::Options().max_answer_bytes, kMaxBody) << "the client cuts a body elsewhere";
}

TEST(ClassifyRead, WithoutAnAnswer) {
  http::Outcome exchange;
  exchange.fate = http::Fate::kMaybeSent;
  EXPECT_EQ(Read(exchange).verdict, ReadVerdict::kUnavailable);
  exchange.fate = http::Fate::kRefused;
  EXPECT_EQ(Read(exchange).verdict, ReadVerdict::kUnavailable);
  exchange.fate = http::Fate::kNotSent;
  for (const auto cause : {http::NotSentCause::kResolve, http::NotSentCause::kConnect, http::NotSentCause::kTimeout,
                           http::NotSentCause::kTls, http::NotSentCause::kInternal}) {
    exchange.cause = cause;
    EXPECT_EQ(Read(exchange).verdict, ReadVerdict::kNotSent);
    EXPECT_FALSE(Read(exchange).repeat_pointless);
  }
  for (const auto cause : {http::NotSentCause::kUntrusted, http::NotSentCause::kForbiddenAddress}) {
    exchange.cause = cause;
    EXPECT_EQ(Read(exchange).verdict, ReadVerdict::kNotSent);
    EXPECT_TRUE(Read(exchange).repeat_pointless);
  }
}

TEST(ClassifyRead, WhatIsKept) {
  struct Case {
    std::string members, status, user_id;
    v1::VerificationType type = v1::VERIFICATION_TYPE_UNSPECIFIED;
  };
  const std::vector<Case> cases = {
      {"", "", ""},
      {R"(,"status":"pending","user_id":"user-1")", "pending", "user-1"},
      {R"(,"user_id":null,"status":null,"kyc_type":null)", "", ""},
      {R"(,"user_id":7)", "", ""},
      {R"(,"user_id":"")", "", ""},
      {R"(,"user_id":"a\nb")", "", ""},
      {R"(,"user_id":")" + std::string(257, 'u') + R"(")", "", ""},
      {R"(,"user":{"user_id":"no"},"email":"ada@example.com","user_id":"user-1")", "", "user-1"},
      {R"(,"kyc_type":"verified")", "", "", v1::VERIFICATION_TYPE_VERIFIED},
      {R"(,"kyc_type":"unverified")", "", "", v1::VERIFICATION_TYPE_UNVERIFIED},
      {R"(,"kyc_type":"receive-only")", "", "", v1::VERIFICATION_TYPE_RECEIVE_ONLY},
      {R"(,"kyc_type":"Verified")", "", ""},
      {R"(,"kyc_type":"")", "", ""},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.members.substr(0, 60));
    const ReadOutcome outcome = Read(Answered(200, R"({"id":"intent-1")" + c.members + "}"));
    EXPECT_EQ(outcome.verdict, ReadVerdict::kRead);
    EXPECT_EQ(outcome.astra_status, c.status);
    EXPECT_EQ(outcome.user_id, c.user_id);
    EXPECT_EQ(outcome.verification_type, c.type);
  }
}

TEST(ClassifyRead, TheAttemptIdIsKeptWhereAstraNamesOne) {
  const std::string id = "00000000-0000-4000-8000-000000000001";
  const std::string member = "\"gateway_attempt_id\":\"" + id + "\"";
  const auto read = [](const std::string& members) {
    const ReadOutcome outcome = Read(Answered(200, R"({"id":"intent-1")" + members + "}"));
    EXPECT_EQ(outcome.verdict, ReadVerdict::kRead);
    return outcome.attempt_id;
  };
  EXPECT_EQ(read(R"(,"metadata":{"a":"b",)" + member + R"(,"c":{"d":[1]}},"status":"x")"), ParseUuid(id));
  for (const std::string& members :
       {std::string(), std::string(R"(,"metadata":null)"), absl::StrCat(",", member),
        absl::StrCat(R"(,"other":{)", member, "}"), absl::StrCat(R"(,"metadata":[{)", member, "}]"),
        absl::StrCat(R"(,"metadata":{"deeper":{)", member, "}}"),
        absl::StrCat(R"(,"metadata":{)", member, ",", member, "}"),
        absl::StrCat(R"(,"metadata":{"gateway_attempt_id":["a",")", id, R"("]})"),
        std::string(R"(,"metadata":{"gateway_attempt_id":"text"})"),
        absl::StrCat(R"(,"metadata":{},"x":{)", member, "}")}) {
    EXPECT_FALSE(read(members)) << members;
  }
}

TEST(ReadVerdictNames, AreThoseOfTheirVerdicts) {
  const std::pair<ReadVerdict, std::string_view> names[] = {
      {ReadVerdict::kRead, "read"},
      {ReadVerdict::kNotFound, "not_found"},
      {ReadVerdict::kNotSent, "not_sent"},
      {ReadVerdict::kUnavailable, "unavailable"},
      {ReadVerdict::kRateLimited, "rate_limited"},
      {ReadVerdict::kCredentialsRejected, "credentials_rejected"},
      {ReadVerdict::kMisconfigured, "misconfigured"},
  };
  EXPECT_EQ(std::size(names), std::size(kReadVerdictNames));
  for (const auto& [verdict, name] : names) EXPECT_EQ(kReadVerdictNames[static_cast<size_t>(verdict)], name);
}

}  // namespace
}  // namespace userintent::astra
