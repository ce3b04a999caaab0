// The word for what kept an exchange from having a whole answer: every fate and every cause has one, and it is on the
// list that metrics are registered by.
#include "server/astra/error_type.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>

#include "gtest/gtest.h"
#include "server/astra/classify.h"
#include "server/http/exchange_text.h"

namespace userintent::astra {
namespace {

http::Outcome Of(http::Fate fate) {
  http::Outcome exchange;
  exchange.fate = fate;
  return exchange;
}

TEST(ErrorType, AWholeAnswerHasNone) {
  http::Outcome exchange = Of(http::Fate::kAnswered);
  for (const int status : {200, 302, 404, 503}) {
    exchange.status = status;
    exchange.body_complete = true;
    EXPECT_EQ(ErrorTypeOf(exchange), "");
    exchange.body_complete = false;
    EXPECT_EQ(ErrorTypeOf(exchange), "answer_cut");
  }
}

TEST(ErrorType, TimeoutsAreToldFromLosses) {
  http::Outcome exchange = Of(http::Fate::kMaybeSent);
  exchange.detail = http::kNoAnswer;
  EXPECT_EQ(ErrorTypeOf(exchange), "timeout");
  exchange.detail = "stream reset";
  EXPECT_EQ(ErrorTypeOf(exchange), "connection_lost");
  EXPECT_EQ(ErrorTypeOf(Of(http::Fate::kRefused)), "refused_stream");
}

TEST(ErrorType, EveryCauseHasAWordOfItsOwn) {
  std::set<std::string> words;
  for (int cause = 1; cause <= static_cast<int>(http::NotSentCause::kInternal); ++cause) {
    http::Outcome exchange = Of(http::Fate::kNotSent);
    exchange.cause = static_cast<http::NotSentCause>(cause);
    const std::string_view word = ErrorTypeOf(exchange);
    EXPECT_NE(std::find(std::begin(kErrorTypes), std::end(kErrorTypes), word), std::end(kErrorTypes)) << word;
    EXPECT_TRUE(words.emplace(word).second) << word;
  }
  EXPECT_EQ(words.size() + 4, std::size(kErrorTypes));  // with those of the other fates
}

TEST(ErrorType, OutcomesTellIt) {
  const http::Outcome exchange = Of(http::Fate::kRefused);
  EXPECT_EQ(Classify(exchange, std::nullopt, absl::UnixEpoch()).error_type, "refused_stream");
  EXPECT_EQ(ClassifyRead(exchange, "id", absl::UnixEpoch()).error_type, "refused_stream");
}

}  // namespace
}  // namespace userintent::astra
