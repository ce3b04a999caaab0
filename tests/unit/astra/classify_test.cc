#include "server/astra/classify.h"

#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/astra/retry_after.h"
#include "tests/unit/astra/answered.h"

namespace userintent::astra {
namespace {

struct RetryAfterCase {
  std::string header;
  std::optional<absl::Duration> parsed;
};

const std::vector<RetryAfterCase>& RetryAfterCases() {
  static const auto* const cases = new std::vector<RetryAfterCase>{
      {"", std::nullopt},
      {"17", absl::Seconds(17)},
      {"Sun, 06 Nov 1994 08:49:37 GMT", absl::Seconds(37)},
      {"Sun, 06 Nov 1994 08:00:00 GMT", absl::ZeroDuration()},
      {"in a while", std::nullopt},
  };
  return *cases;
}

// The contract's rows, written out once more and in another shape than the code: a list of statuses a row.
Verdict Expected(int status, bool complete, bool retry_after) {
  struct Row {
    std::vector<int> statuses;
    Verdict verdict;
  };
  static const auto* const rows = new std::vector<Row>{
      {{429}, Verdict::kRateLimited},
      {{400, 422}, Verdict::kRejected},
      {{401, 403}, Verdict::kCredentialsRejected},
      {{404, 405, 406, 410, 418}, Verdict::kMisconfigured},
  };
  if (status / 100 == 2) return complete ? Verdict::kCreated : Verdict::kUnknown;
  if (status == 503 && retry_after) return Verdict::kUnavailable;
  if (status / 100 == 3 && status != 303) return Verdict::kMisconfigured;
  for (const Row& row : *rows) {
    for (const int s : row.statuses) {
      if (s == status) return row.verdict;
    }
  }
  return Verdict::kUnknown;
}

TEST(Classify, EveryStatus) {
  int rows = 0;
  for (int status = 200; status <= 599; ++status) {
    for (const bool complete : {true, false}) {
      for (const RetryAfterCase& retry_after : RetryAfterCases()) {
        SCOPED_TRACE(testing::Message() << status << (complete ? " complete " : " cut ") << retry_after.header);
        http::Outcome exchange = Answered(status);
        exchange.body_complete = complete;
        exchange.retry_after = retry_after.header;
        const Outcome outcome = Classify(exchange, std::nullopt, kNow);
        const Verdict expected = Expected(status, complete, retry_after.parsed.has_value());
        ASSERT_EQ(outcome.verdict, expected);
        EXPECT_EQ(outcome.http_status, status);
        EXPECT_EQ(outcome.confirmed, status < 300);
        EXPECT_EQ(outcome.user_intent_id, expected == Verdict::kCreated ? "intent-1" : "");
        EXPECT_EQ(outcome.astra_status, expected == Verdict::kCreated ? "pending" : "");
        EXPECT_EQ(outcome.astra_request_id, "req-1");
        EXPECT_EQ(outcome.retry_after, status == 429 || status == 503 ? retry_after.parsed : std::nullopt);
        EXPECT_FALSE(outcome.repeat_pointless);
        EXPECT_FALSE(outcome.cancelled);
        EXPECT_FALSE(outcome.detail.empty());
        ++rows;
      }
    }
  }
  EXPECT_EQ(rows, 400 * 2 * 5);
}

// The rows that may be sent again, spelled out: a change here is a change of the promise.
TEST(Classify, NothingElseAllowsAnotherSend) {
  const auto may_be_sent_again = [](Verdict verdict) {
    switch (verdict) {
      case Verdict::kCreated:
      case Verdict::kLimitReached:
      case Verdict::kRejected:
      case Verdict::kUnknown:
        return false;
      case Verdict::kCredentialsRejected:
      case Verdict::kMisconfigured:
      case Verdict::kRateLimited:
      case Verdict::kUnavailable:
      case Verdict::kRefused:
      case Verdict::kNotSent:
        return true;
    }
    return true;
  };
  std::vector<int> again;
  for (int status = 400; status <= 599; ++status) {
    http::Outcome exchange = Answered(status);
    exchange.retry_after = "1";
    if (may_be_sent_again(Classify(exchange, std::nullopt, kNow).verdict)) again.push_back(status);
  }
  EXPECT_EQ(again, (std::vector<int>{401, 403, 404, 405, 406, 410, 418, 429, 503}));
}

TEST(Classify, NumbersThatAreNoFinalStatus) {
  for (const int status : {-1, 0, 1, 99, 100, 101, 103, 199, 600, 601, 999, 2000, 2147483647}) {
    http::Outcome exchange = Answered(status);
    exchange.retry_after = "1";
    const Outcome outcome = Classify(exchange, std::nullopt, kNow);
    EXPECT_EQ(outcome.verdict, Verdict::kUnknown) << status;
    EXPECT_FALSE(outcome.confirmed) << status;
    EXPECT_EQ(outcome.retry_after, std::nullopt) << status;
  }
}

TEST(Classify, SuccessNeedsAUsableId) {
  for (const std::string body : {"", "{}", R"({"id":7})", R"({"id":""})", "<html>Created</html>", R"({"id":"a"} {})",
                                 R"({"id":"a","id":"b"})"}) {
    for (const int status : {200, 201, 202, 204, 299}) {
      const Outcome outcome = Classify(Answered(status, body), std::nullopt, kNow);
      EXPECT_EQ(outcome.verdict, Verdict::kUnknown) << status << body;
      EXPECT_TRUE(outcome.confirmed) << status << body;
      EXPECT_EQ(outcome.user_intent_id, "") << status << body;
      EXPECT_EQ(outcome.astra_request_id, "req-1") << status << body;
    }
  }
}

// An edge's refusal reads like wrong credentials; the verdict stays, and the log tells them apart.
TEST(Classify, ARefusalThatIsNotAstrasIsToldApart) {
  for (const int status : {401, 403}) {
    for (const std::string body : {"", "<html>Request blocked</html>", R"({"message":"Forbidden"})"}) {
      const Outcome outcome = Classify(Answered(status, body), std::nullopt, kNow);
      EXPECT_EQ(outcome.verdict, Verdict::kCredentialsRejected);
      EXPECT_TRUE(outcome.not_astras) << body;
      EXPECT_EQ(outcome.detail, "refused without an error of Astra's: perhaps by an edge in front of it");
    }
    const Outcome astras = Classify(Answered(status, R"({"code":403,"name":"Forbidden"})"), std::nullopt, kNow);
    EXPECT_FALSE(astras.not_astras);
    EXPECT_EQ(astras.detail, "credentials rejected");
  }
  EXPECT_FALSE(Classify(Answered(404, "<html>"), std::nullopt, kNow).not_astras);
}

// Whoever answers may have another idea of the time than we have.
TEST(Classify, ADateIsOneOfTheAnswerersClock) {
  http::Outcome exchange = Answered(503);
  exchange.retry_after = "Sun, 06 Nov 2044 08:00:07 GMT";
  exchange.date = "Sun, 06 Nov 2044 08:00:00 GMT";
  EXPECT_EQ(Classify(exchange, std::nullopt, kNow).retry_after, absl::Seconds(7));
  exchange.date = "whenever";
  EXPECT_EQ(Classify(exchange, std::nullopt, kNow).retry_after, kMaxRetryAfter);
  exchange.retry_after = "5";
  exchange.date = "Sun, 06 Nov 2044 08:00:00 GMT";
  EXPECT_EQ(Classify(exchange, std::nullopt, kNow).retry_after, absl::Seconds(5));
}

// Which fault cost the id is in the log.
TEST(Classify, ABrokenAnswerKeepsItsCause) {
  http::Outcome exchange = Answered(201);
  exchange.body_complete = false;
  exchange.detail = "malformed answer: less body than announced";
  EXPECT_EQ(Classify(exchange, std::nullopt, kNow).detail, exchange.detail);
  EXPECT_TRUE(Classify(exchange, std::nullopt, kNow).confirmed);
}

// Error bodies do not matter to the verdict, whatever they are.
TEST(Classify, ErrorBodyDoesNotDecide) {
  for (const std::string body : {"", "<html>", R"({"id":"intent-1"})", "\xff"}) {
    for (int status = 300; status <= 599; ++status) {
      EXPECT_EQ(Classify(Answered(status, body), std::nullopt, kNow).verdict, Expected(status, true, false))
          << status << body;
    }
  }
}

TEST(Classify, NotSent) {
  using Cause = http::NotSentCause;
  struct Case {
    Cause cause;
    bool pointless, cancelled;
  };
  for (const Case& c : std::vector<Case>{{Cause::kNone, false, false},
                                         {Cause::kResolve, false, false},
                                         {Cause::kConnect, false, false},
                                         {Cause::kTimeout, false, false},
                                         {Cause::kTls, false, false},
                                         {Cause::kUntrusted, true, false},
                                         {Cause::kForbiddenAddress, true, false},
                                         {Cause::kCancelled, false, true},
                                         {Cause::kLeaseOver, true, false},
                                         {Cause::kInternal, false, false}}) {
    SCOPED_TRACE(static_cast<int>(c.cause));
    http::Outcome exchange;
    exchange.fate = http::Fate::kNotSent;
    exchange.cause = c.cause;
    exchange.detail = "step";
    const Outcome outcome = Classify(exchange, std::nullopt, kNow);
    EXPECT_EQ(outcome.verdict, Verdict::kNotSent);
    EXPECT_EQ(outcome.repeat_pointless, c.pointless);
    EXPECT_EQ(outcome.cancelled, c.cancelled);
    EXPECT_EQ(outcome.lease_over, c.cause == Cause::kLeaseOver);
    EXPECT_EQ(outcome.detail, "step");
    EXPECT_EQ(outcome.http_status, 0);
    EXPECT_FALSE(outcome.confirmed);
  }
}

TEST(Classify, ARefusedStreamIsNeitherAnAnswerNorUnknown) {
  http::Outcome exchange = Answered(201);
  exchange.fate = http::Fate::kRefused;
  exchange.cause = http::NotSentCause::kUntrusted;
  exchange.retry_after = "1";
  const Outcome outcome = Classify(exchange, LimitRule{201, "intent"}, kNow);
  EXPECT_EQ(outcome.verdict, Verdict::kRefused);
  EXPECT_EQ(outcome.detail, "refused unprocessed");
  EXPECT_EQ(outcome.http_status, 0);
  EXPECT_FALSE(outcome.confirmed);
  EXPECT_FALSE(outcome.repeat_pointless);
  EXPECT_EQ(outcome.retry_after, std::nullopt);
  EXPECT_EQ(outcome.user_intent_id, "");
}

// The claims that do not belong to this fate must not leak into the verdict.
TEST(Classify, MaybeSentIsUnknownWhateverElseIsSet) {
  http::Outcome exchange;
  EXPECT_EQ(Classify(exchange, std::nullopt, kNow).verdict, Verdict::kUnknown);
  for (const int status : {201, 400, 401, 429, 503}) {
    exchange = Answered(status);
    exchange.fate = http::Fate::kMaybeSent;
    exchange.cause = http::NotSentCause::kCancelled;
    exchange.retry_after = "1";
    const Outcome outcome = Classify(exchange, LimitRule{status, "intent"}, kNow);
    EXPECT_EQ(outcome.verdict, Verdict::kUnknown);
    EXPECT_EQ(outcome.http_status, 0);
    EXPECT_FALSE(outcome.confirmed);
    EXPECT_FALSE(outcome.cancelled);
    EXPECT_EQ(outcome.retry_after, std::nullopt);
    EXPECT_EQ(outcome.user_intent_id, "");
    EXPECT_FALSE(outcome.detail.empty());
  }
}

TEST(Classify, LimitRule) {
  const LimitRule rule{400, "attempts"};
  const std::string says_so = R"({"description":"3 attempts used"})";
  Outcome outcome = Classify(Answered(400, says_so), rule, kNow);
  EXPECT_EQ(outcome.verdict, Verdict::kLimitReached);
  EXPECT_EQ(outcome.detail, "answer matches --astra_limit_error");
  EXPECT_EQ(outcome.http_status, 400);
  EXPECT_FALSE(outcome.confirmed);
  EXPECT_EQ(outcome.astra_request_id, "req-1");

  EXPECT_EQ(Classify(Answered(400, says_so), std::nullopt, kNow).verdict, Verdict::kRejected);
  EXPECT_EQ(Classify(Answered(400, "{}"), rule, kNow).verdict, Verdict::kRejected);
  EXPECT_EQ(Classify(Answered(422, says_so), rule, kNow).verdict, Verdict::kRejected);
  EXPECT_EQ(Classify(Answered(201, says_so), rule, kNow).verdict, Verdict::kUnknown);

  http::Outcome cut = Answered(400, says_so);  // a cut body decides nothing
  cut.body_complete = false;
  EXPECT_EQ(Classify(cut, rule, kNow).verdict, Verdict::kRejected);
}

TEST(Classify, LimitRuleBeatsTheTable) {
  for (int status = 400; status <= 499; ++status) {
    http::Outcome exchange = Answered(status, "attempts");
    exchange.retry_after = "5";
    const Outcome outcome = Classify(exchange, LimitRule{status, "attempts"}, kNow);
    EXPECT_EQ(outcome.verdict, Verdict::kLimitReached) << status;
    EXPECT_EQ(outcome.retry_after, std::nullopt) << status;
  }
}

TEST(Classify, RequestIdIsKeptOnlyWhenPrintable) {
  const std::vector<std::pair<std::string, bool>> cases = {
      {"", false},
      {"a", true},
      {"A b~!", true},
      {std::string(128, 'x'), true},
      {std::string(129, 'x'), false},
      {"a\tb", false},
      {"a\nb", false},
      {"a\x7f", false},
      {"caf\u00e9", false},
      {std::string("a\0b", 3), false},
  };
  for (const auto& [text, kept] : cases) {
    for (const int status : {201, 400, 500}) {
      http::Outcome exchange = Answered(status);
      exchange.request_id = text;
      EXPECT_EQ(Classify(exchange, std::nullopt, kNow).astra_request_id, kept ? text : "");
    }
  }
}

TEST(Classify, RandomExchanges) {
  std::mt19937 random(23);
  const auto below = [&random](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
  const auto noise = [&](int most) {
    std::string text(static_cast<size_t>(below(most)), '\0');
    for (char& c : text) c = static_cast<char>(below(256));
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    http::Outcome exchange;
    exchange.fate = static_cast<http::Fate>(below(3));
    exchange.cause = static_cast<http::NotSentCause>(below(9));
    exchange.status = below(700);
    exchange.body_complete = below(2) == 0;
    exchange.body = noise(200);
    exchange.request_id = noise(200);
    exchange.retry_after = noise(40);
    const Outcome outcome = Classify(exchange, LimitRule{400 + below(100), "x"}, kNow);
    ASSERT_NE(outcome.verdict, Verdict::kCreated);
    if (outcome.confirmed) {
      ASSERT_EQ(outcome.verdict, Verdict::kUnknown);
    }
    if (outcome.verdict == Verdict::kNotSent) {
      ASSERT_EQ(exchange.fate, http::Fate::kNotSent);
    }
    for (const char c : outcome.astra_request_id) ASSERT_TRUE(c >= 0x20 && c < 0x7f);
    ASSERT_LE(outcome.astra_request_id.size(), 128u);
    if (outcome.retry_after.has_value()) {
      ASSERT_GE(*outcome.retry_after, absl::ZeroDuration());
    }
  }
}

TEST(VerdictNames, AreThoseOfTheirVerdicts) {
  const std::pair<Verdict, std::string_view> names[] = {
      {Verdict::kCreated, "created"},
      {Verdict::kLimitReached, "limit_reached"},
      {Verdict::kRejected, "rejected"},
      {Verdict::kCredentialsRejected, "credentials_rejected"},
      {Verdict::kMisconfigured, "misconfigured"},
      {Verdict::kRateLimited, "rate_limited"},
      {Verdict::kUnavailable, "unavailable"},
      {Verdict::kRefused, "refused"},
      {Verdict::kNotSent, "not_sent"},
      {Verdict::kUnknown, "unknown"},
  };
  EXPECT_EQ(std::size(names), std::size(kVerdictNames));
  for (const auto& [verdict, name] : names) EXPECT_EQ(kVerdictNames[static_cast<size_t>(verdict)], name);
}

}  // namespace
}  // namespace userintent::astra
