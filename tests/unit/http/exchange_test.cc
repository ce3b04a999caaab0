// What becomes of one exchange, whichever library carries it: the facts that decide its Fate, the limits of its answer,
// and the deadlines of all exchanges of a client.
#include "server/http/exchange.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "server/http/exchanges.h"

namespace userintent::http {
namespace {

using std::chrono::milliseconds;
using Sending = Exchange::Sending;
using End = Exchange::End;

// ---- the outcome

TEST(Exchange, ItsFateFollowsFromWhatWasSentAndWhatCame) {
  const struct {
    const char* name;
    Sending sending;
    int status;  // 0: no final answer
    End end;
    Fate fate;
    bool complete;
  } kCases[] = {
      {"nothing happened", Sending::kUnsent, 0, End::kBroken, Fate::kNotSent, false},
      {"a connection had it, and nothing left", Sending::kReleased, 0, End::kBroken, Fate::kNotSent, false},
      {"refused before it left", Sending::kReleased, 0, End::kRefused, Fate::kNotSent, false},
      {"refused", Sending::kMaybeSent, 0, End::kRefused, Fate::kRefused, false},
      {"lost", Sending::kMaybeSent, 0, End::kBroken, Fate::kMaybeSent, false},
      {"ended without an answer", Sending::kMaybeSent, 0, End::kComplete, Fate::kMaybeSent, false},
      {"answered", Sending::kMaybeSent, 201, End::kComplete, Fate::kAnswered, true},
      {"answered, then lost", Sending::kMaybeSent, 201, End::kBroken, Fate::kAnswered, false},
      {"answered, then refused", Sending::kMaybeSent, 201, End::kRefused, Fate::kAnswered, false},
      {"answered before it left", Sending::kReleased, 413, End::kComplete, Fate::kAnswered, true},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.name);
    Exchange exchange;
    exchange.sending = c.sending;
    if (c.status != 0) exchange.TakeStatus(c.status);
    exchange.Finish(c.end, NotSentCause::kTls, "why");
    EXPECT_EQ(exchange.outcome.fate, c.fate);
    EXPECT_EQ(exchange.outcome.cause, c.fate == Fate::kNotSent ? NotSentCause::kTls : NotSentCause::kNone);
    EXPECT_EQ(exchange.outcome.body_complete, c.complete);
    EXPECT_EQ(exchange.outcome.status, c.status);
    EXPECT_EQ(exchange.outcome.detail == "why", c.fate == Fate::kNotSent || c.fate == Fate::kMaybeSent);
  }
}

TEST(Exchange, AnAnswerBeyondALimitIsNotComplete) {
  Exchange head;
  head.sending = Sending::kMaybeSent;
  head.TakeStatus(429);
  EXPECT_TRUE(head.TakeHeadBytes(60, 100));
  EXPECT_TRUE(head.TakeHeadBytes(40, 100));
  EXPECT_FALSE(head.TakeHeadBytes(1, 100));
  head.Finish(End::kComplete, NotSentCause::kNone, "");
  EXPECT_EQ(head.outcome.status, 429);
  EXPECT_FALSE(head.outcome.body_complete);
  EXPECT_EQ(head.outcome.detail, "answer head over the limit");

  Exchange body;
  body.sending = Sending::kMaybeSent;
  body.TakeStatus(201);
  EXPECT_TRUE(body.TakeBody("abc", 5));
  EXPECT_TRUE(body.TakeBody("de", 5));
  EXPECT_FALSE(body.TakeBody("f", 5));
  body.Finish(End::kComplete, NotSentCause::kNone, "");
  EXPECT_EQ(body.outcome.body, "abcde");
  EXPECT_FALSE(body.outcome.body_complete);
  EXPECT_EQ(body.outcome.detail, "answer body over the limit");
}

TEST(Exchange, AMalformedAnswerIsNamed) {
  Exchange exchange;
  exchange.sending = Sending::kMaybeSent;
  exchange.TakeStatus(201);
  exchange.fault = "malformed answer: for a test";
  exchange.Finish(End::kBroken, NotSentCause::kNone, "");
  EXPECT_EQ(exchange.outcome.detail, "malformed answer: for a test");
}

TEST(Exchange, TheFirstOfEachFieldIsKept) {
  Exchange exchange;
  for (const char* value : {"first", "second"}) {
    exchange.TakeField(503, "REQUEST-id", value);
    exchange.TakeField(503, "retry-After", value);
    exchange.TakeField(503, "date", value);
    exchange.TakeField(503, "requestxid", value);
    exchange.TakeField(503, "x", value);
  }
  EXPECT_EQ(exchange.outcome.request_id, "first");
  EXPECT_EQ(exchange.outcome.retry_after, "first");
  EXPECT_EQ(exchange.outcome.date, "first");
  Exchange created;
  created.TakeField(201, "date", "unused");
  EXPECT_EQ(created.outcome.date, "");
}

TEST(Exchange, RequestsThatCannotBeSentAreNoticed) {
  const auto request = [](Method method, std::string path, std::string name, std::string value, std::string body) {
    return Request{std::move(path), {{std::move(name), std::move(value)}}, std::move(body), false, method};
  };
  EXPECT_TRUE(Exchange().Take(request(Method::kPost, "/a", "n", "v", "b")));
  EXPECT_TRUE(Exchange().Take(request(Method::kGet, "/a", "n", "v", "")));
  EXPECT_FALSE(Exchange().Take(request(Method::kPost, "/a", "n", "v", "")));
  EXPECT_FALSE(Exchange().Take(request(Method::kGet, "/a", "n", "v", "b")));
  EXPECT_FALSE(Exchange().Take(request(Method::kGet, "/a\r\n", "n", "v", "")));
  EXPECT_FALSE(Exchange().Take(request(Method::kGet, "/a", "", "v", "")));
  EXPECT_FALSE(Exchange().Take(request(Method::kGet, "/a", "n\n", "v", "")));
  EXPECT_FALSE(Exchange().Take(request(Method::kGet, "/a", "n", std::string("v\0", 2), "")));
}

TEST(Exchange, TheRequestIsGoneOnceItIsFinished) {
  Exchange exchange;
  ASSERT_TRUE(exchange.Take(Request{"/a", {{"authorization", "a secret of some length"}}, "a body"}));
  exchange.Finish(End::kBroken, NotSentCause::kConnect, "");
  EXPECT_TRUE(exchange.request.headers.empty());
  EXPECT_TRUE(exchange.request.body.empty());
}

// ---- all exchanges of a client

struct Plain : Exchange {
  bool RequestLeft() const { return left; }

  bool left = true;
  Link<Plain> in_waiting;
  Link<Plain> in_other;
};

class ExchangesTest : public ::testing::Test {
 protected:
  static Options Times() {
    Options options;
    options.connect_timeout = milliseconds(1000);
    options.exchange_timeout = milliseconds(5000);
    return options;
  }
  Plain& Add() {
    return exchanges_.Add([this](Outcome outcome) { outcomes_.push_back(std::move(outcome)); });
  }
  void EndOne(Plain& exchange) {
    ended_.push_back(exchange.id);
    exchange.Finish(End::kBroken, NotSentCause::kTimeout, "");
    exchanges_.MoveToEnded(exchange);
  }
  auto End() {
    return [this](Plain& exchange) { EndOne(exchange); };
  }

  Exchanges<Plain> exchanges_{Times()};
  std::vector<Client::ExchangeId> ended_;
  std::vector<Outcome> outcomes_;
};

TEST_F(ExchangesTest, WhatWaitsAloneEndsWithTheConnectTimeout) {
  EXPECT_EQ(exchanges_.NextDeadline(), std::nullopt);
  Plain& first = Add();
  const SteadyTime due = first.waiting_since + milliseconds(1000);
  EXPECT_EQ(exchanges_.NextDeadline(), due);
  exchanges_.EndTiredOfWaiting(due - milliseconds(1), End());
  EXPECT_TRUE(ended_.empty());
  exchanges_.EndTiredOfWaiting(due, End());
  EXPECT_EQ(ended_, std::vector<Client::ExchangeId>{1});
  EXPECT_EQ(exchanges_.Find(1), nullptr);
}

TEST_F(ExchangesTest, WhatWaitsBesideOthersEndsWithTheExchangeTimeout) {
  Plain& under_way = Add();
  Plain& waiting = Add();
  exchanges_.LeaveWaiting(under_way);
  EXPECT_EQ(exchanges_.under_way(), 1u);
  EXPECT_EQ(exchanges_.WaitDeadline(), std::nullopt);
  const SteadyTime due = under_way.start + milliseconds(5000);
  EXPECT_EQ(exchanges_.NextDeadline(), due);
  exchanges_.EndTimedOut(due - milliseconds(1), End());
  EXPECT_TRUE(ended_.empty());
  const SteadyTime last = waiting.start + milliseconds(5000);
  exchanges_.EndTimedOut(last, End());
  EXPECT_EQ(ended_, (std::vector<Client::ExchangeId>{1, 2}));
}

TEST_F(ExchangesTest, OnceNoneIsUnderWayTheWaitBeginsAnew) {
  Plain& under_way = Add();
  Plain& waiting = Add();
  exchanges_.LeaveWaiting(under_way);
  const SteadyTime before = SteadyClock::now();
  EndOne(under_way);
  ASSERT_TRUE(exchanges_.WaitDeadline().has_value());
  EXPECT_GE(*exchanges_.WaitDeadline(), before + milliseconds(1000));
  EXPECT_EQ(exchanges_.FirstWaiting(), &waiting);
}

TEST_F(ExchangesTest, WhatEndsDuringTheDeliveryIsForTheNextOne) {
  Add();
  Plain& second = Add();
  exchanges_.MoveToEnded(second);
  bool nested = false;
  Plain& third = exchanges_.Add([&](Outcome) {
    nested = true;
    EndOne(*exchanges_.Find(1));
  });
  exchanges_.MoveToEnded(third);
  exchanges_.Deliver();
  EXPECT_TRUE(nested);
  EXPECT_EQ(outcomes_.size(), 1u);
  EXPECT_TRUE(exchanges_.HasEnded());
  exchanges_.Deliver();
  EXPECT_EQ(outcomes_.size(), 2u);
  EXPECT_FALSE(exchanges_.HasEnded());
}

// ---- late ones

class LateExchangesTest : public ExchangesTest {
 protected:
  static Options WithWindow() {
    Options options = Times();
    options.late_window = milliseconds(60000);
    options.max_late = 2;
    return options;
  }
  // One whose request has left, and whose answer is waited for.
  Plain& AddSent() {
    Plain& exchange = late_.Add([this](Outcome outcome) { outcomes_.push_back(std::move(outcome)); });
    Request request{"/a", {{"authorization", "a secret of some length"}}, "a body"};
    request.on_late = [this, id = exchange.id](Outcome outcome) { heard_.emplace_back(id, outcome.fate); };
    EXPECT_TRUE(exchange.Take(std::move(request)));
    late_.LeaveWaiting(exchange);
    exchange.sending = Sending::kMaybeSent;
    return exchange;
  }
  Plain& AddLate() {
    Plain& exchange = AddSent();
    late_.MoveToLate(exchange, "no answer");
    return exchange;
  }
  void EndLate(Plain& exchange, Exchange::End end = Exchange::End::kBroken) {
    ended_.push_back(exchange.id);
    exchange.Finish(end, NotSentCause::kTimeout, "");
    late_.MoveToEnded(exchange);
  }
  auto Ender() {
    return [this](Plain& exchange) { EndLate(exchange); };
  }
  Stats Counts() const {
    Stats stats;
    late_.CountInto(stats);
    return stats;
  }

  Exchanges<Plain> late_{WithWindow()};
  std::vector<std::pair<Client::ExchangeId, Fate>> heard_;
};

TEST_F(LateExchangesTest, OnlyAPostThatHasLeftAsAWholeIsListenedTo) {
  Plain& exchange = AddSent();
  EXPECT_TRUE(late_.MayListen(exchange));
  exchange.left = false;
  EXPECT_FALSE(late_.MayListen(exchange));
  exchange.left = true;
  exchange.sending = Sending::kReleased;
  EXPECT_FALSE(late_.MayListen(exchange));
  exchange.sending = Sending::kMaybeSent;
  EXPECT_FALSE(exchanges_.MayListen(exchange)) << "without a window";
  exchange.request.on_late = nullptr;
  EXPECT_FALSE(late_.MayListen(exchange));
}

TEST_F(LateExchangesTest, TheCallerHearsWhatIsKnownAndTheRequestIsGone) {
  Plain& silent = AddLate();
  Plain& begun = AddSent();
  begun.TakeStatus(201);
  begun.TakeBody("half", 100);
  late_.MoveToLate(begun, "no answer");
  for (const Plain* exchange : {&silent, &begun}) {
    EXPECT_TRUE(exchange->request.headers.empty());
    EXPECT_TRUE(exchange->request.body.empty());
  }
  late_.Deliver();
  ASSERT_EQ(outcomes_.size(), 2u);
  EXPECT_EQ(outcomes_[0].fate, Fate::kMaybeSent);
  EXPECT_EQ(outcomes_[0].detail, "no answer");
  EXPECT_EQ(outcomes_[1].fate, Fate::kAnswered);
  EXPECT_EQ(outcomes_[1].status, 201);
  EXPECT_EQ(outcomes_[1].body, "half");
  EXPECT_FALSE(outcomes_[1].body_complete);
  EXPECT_EQ(late_.Find(begun.id), &begun);
  EXPECT_EQ(begun.outcome.body, "half") << "the rest is to be added";
  EXPECT_EQ(late_.under_way(), 0u);
}

TEST_F(LateExchangesTest, OnlyProofIsTold) {
  Plain& answered = AddLate();
  Plain& refused = AddLate();
  answered.TakeStatus(201);
  EndLate(refused, Exchange::End::kRefused);
  EndLate(answered, Exchange::End::kComplete);
  EndLate(AddLate());
  late_.Deliver();
  EXPECT_EQ(heard_, (std::vector<std::pair<Client::ExchangeId, Fate>>{{2, Fate::kRefused}, {1, Fate::kAnswered}}));
  EXPECT_EQ(outcomes_.size(), 3u);
  EXPECT_EQ(Counts().late_lost, 1u);
  EXPECT_EQ(Counts().late_now, 0u);
}

TEST_F(LateExchangesTest, TheWindowEndsThem) {
  Plain& exchange = AddLate();
  const SteadyTime due = exchange.start + milliseconds(65000);
  EXPECT_EQ(late_.NextDeadline(), due);
  late_.EndTimedOut(due, Ender());
  late_.EndOldLate(due - milliseconds(1), Ender());
  EXPECT_TRUE(ended_.empty());
  late_.EndOldLate(due, Ender());
  EXPECT_EQ(ended_, std::vector<Client::ExchangeId>{1});
  EXPECT_EQ(Counts().late_silent, 1u);
}

TEST_F(LateExchangesTest, TheOldestGiveWay) {
  for (int i = 0; i < 3; ++i) AddLate();
  late_.EndOldLate(SteadyClock::now(), Ender());
  EXPECT_EQ(ended_, std::vector<Client::ExchangeId>{1}) << "over the limit";
  AddLate();
  late_.MakeWay(
      1, [](const Plain& exchange) { return exchange.id != 2; }, Ender());
  EXPECT_EQ(ended_, (std::vector<Client::ExchangeId>{1, 3}));
  late_.MakeWay(
      5, [](const Plain&) { return true; }, Ender());
  EXPECT_EQ(ended_, (std::vector<Client::ExchangeId>{1, 3, 2, 4}));
  EXPECT_EQ(Counts().late_gave_way, 4u);
  EXPECT_EQ(late_.NextDeadline(), std::nullopt);
}

// Those that wait must not take a late one for a sign that connections are healthy.
TEST_F(LateExchangesTest, TheyAreNotUnderWay) {
  Plain& timed_out = AddSent();
  Plain& waiting = late_.Add([](Outcome) {});
  EXPECT_EQ(late_.WaitDeadline(), std::nullopt);
  const SteadyTime before = SteadyClock::now();
  late_.MoveToLate(timed_out, "no answer");
  ASSERT_TRUE(late_.WaitDeadline().has_value());
  EXPECT_GE(*late_.WaitDeadline(), before + milliseconds(1000));
  EXPECT_EQ(late_.FirstWaiting(), &waiting);
}

TEST(LinkedList, KeepsTheOrderOfJoining) {
  Plain a, b, c;
  LinkedList<Plain, &Plain::in_other> list;
  const auto drained = [&] {
    std::vector<Plain*> order;
    while (!list.empty()) {
      order.push_back(list.front());
      list.Leave(*list.front());
    }
    return order;
  };
  for (Plain* leaver : {&a, &b, &c}) {
    for (Plain* joiner : {&a, &b, &c}) list.Join(*joiner);
    EXPECT_EQ(list.size(), 3u);
    list.Leave(*leaver);
    list.Leave(*leaver);  // it is not in: nothing happens
    EXPECT_FALSE(list.Has(*leaver));
    std::vector<Plain*> rest;
    for (Plain* one : {&a, &b, &c}) {
      if (one != leaver) rest.push_back(one);
    }
    EXPECT_EQ(drained(), rest);
  }
  for (Plain* joiner : {&c, &a}) list.Join(*joiner);
  EXPECT_EQ(drained(), (std::vector<Plain*>{&c, &a}));
}

}  // namespace
}  // namespace userintent::http
