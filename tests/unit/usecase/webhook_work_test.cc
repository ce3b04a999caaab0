// What becomes of webhooks: with a ledger in memory, and with a clock and an Astra of the test's own. Nothing sleeps.
#include "server/usecase/webhook_work.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/memory_ledger.h"
#include "tests/unit/usecase/fake_loop.h"
#include "tests/unit/usecase/fake_reads.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using ledger::State;
using testing::ElementsAre;
using testing::IsEmpty;

const FakeLoop* clock_of_tests = nullptr;

// Goes with the loop's clock, and is behind the real one, by which readings are dated.
absl::Time WallClock() {
  return absl::FromUnixSeconds(1'700'000'000) + absl::FromChrono(clock_of_tests->Now().time_since_epoch());
}

class Watcher final : public WebhookObserver, public SettleObserver {
 public:
  void OnWebhookEnded(WebhookResult result) override { ended.push_back(result); }
  void OnSettled(SettleWay way, const ledger::Key& key, const ledger::SettleAnswer& answer) override {
    EXPECT_EQ(way, SettleWay::kWebhook);
    settled.emplace_back(key.request_id, answer.verdict);
  }
  void OnWebhookBacklog(size_t now_waiting, absl::Time now_oldest) override {
    waiting = now_waiting;
    oldest = now_oldest;
  }

  std::vector<WebhookResult> ended;
  std::vector<std::pair<Uuid, ledger::SettleVerdict>> settled;
  size_t waiting = 0;
  absl::Time oldest;
};

Uuid Id(uint8_t number) {
  Uuid id{};
  id[15] = number;
  return id;
}

class WebhookWorkTest : public testing::Test {
 protected:
  explicit WebhookWorkTest(double rate = 0) : reads_(ledger_, admission_, read_watcher_, rate) {
    clock_of_tests = &loop_;
    work_.Start();
    loop_.Settle();
  }

  // Row `number` has the attempt id of that number, and the intent where it has one.
  void Row(uint8_t number, State state, const std::string& intent = "") {
    ledger::BeginRequest begin;
    begin.key = {"local", Id(number)};
    begin.attempt_id = Id(number);
    begin.current.content[0] = begin.current.person[0] = begin.current.email[0] = number;
    begin.verification_type = v1::VERIFICATION_TYPE_UNVERIFIED;
    begin.now = WallClock();
    ledger_.Begin(begin, loop_, [](const ledger::BeginAnswer&) {});
    if (state != State::kSending) Finish(number, state, intent);
    loop_.Settle();
  }
  void Finish(uint8_t number, State state, const std::string& intent = "") {
    ledger::FinishRequest finish;
    finish.key = {"local", Id(number)};
    finish.state = state;
    finish.reason = state == State::kSucceeded ? 0 : v1::ERROR_REASON_OUTCOME_UNKNOWN;
    finish.answer.user_intent_id = intent;
    finish.answer.astra_status = intent.empty() ? "" : "pending";
    finish.answer.at = finish.now = WallClock();
    ledger_.Finish(finish, loop_, [](const ledger::FinishAnswer& answer) { ASSERT_TRUE(answer.committed); });
    loop_.Settle();
  }
  ledger::Record Look(uint8_t number) {
    ledger::Record record;
    ledger_.Get({"local", Id(number)}, loop_, [&](ledger::GetAnswer answer) { record = *std::move(answer.record); });
    loop_.Settle();
    return record;
  }

  void Webhook(const std::string& id, const std::string& intent, std::optional<uint8_t> attempt = std::nullopt,
               const std::string& type = "user_intent_updated") {
    ledger::Webhook webhook{id, type, intent, attempt ? std::optional(Id(*attempt)) : std::nullopt, WallClock()};
    ledger_.Receive(std::move(webhook), loop_, [this](ledger::Receipt receipt) {
      if (receipt == ledger::Receipt::kStored) work_.Wake();
    });
    loop_.Settle();
  }

  FakeLoop loop_;
  FakeAstraReads astra_;
  ledger::MemoryLedger ledger_;
  AdmissionControl admission_{AdmissionControl::Options{2, 100ms}};
  ReadWatcher read_watcher_;
  IntentReads reads_;
  Watcher watcher_;
  WebhookWork work_{{{loop_, astra_}, ledger_, ledger_, reads_, admission_, watcher_, watcher_, &WallClock}};
};

TEST_F(WebhookWorkTest, AKnownIntentIsReadAndRecorded) {
  Row(1, State::kSucceeded, "intent-1");
  loop_.Advance(1s);
  Webhook("w1", "intent-1", 1);
  ASSERT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(astra_.gets[0].id, "intent-1");
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_EQ(Look(1).latest.astra_status, "approved");
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kRead));
  EXPECT_EQ(read_watcher_.askers, std::vector{Asker::kWebhook});
  loop_.Advance(1h);
  EXPECT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(watcher_.waiting, 0u);
}

TEST_F(WebhookWorkTest, AnUnknownOutcomeIsSettled) {
  Row(1, State::kUnknown);
  Webhook("w1", "intent-1", 1);
  ASSERT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(Look(1).state, State::kUnknown) << "not by the webhook's word";
  astra_.AnswerStatus("pending", "user-1");
  loop_.Settle();
  const ledger::Record record = Look(1);
  EXPECT_EQ(record.state, State::kSucceeded);
  EXPECT_EQ(record.answer.user_intent_id, "intent-1");
  EXPECT_TRUE(record.answer.confirmed);
  EXPECT_EQ(record.latest.astra_status, "pending");
  EXPECT_EQ(record.latest.user_id, "user-1");
  EXPECT_EQ(record.latest.verification_type, v1::VERIFICATION_TYPE_UNVERIFIED);
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kSettled));
  ASSERT_EQ(watcher_.settled.size(), 1u);
  EXPECT_EQ(watcher_.settled[0], std::pair(Id(1), ledger::SettleVerdict::kSettled));
}

TEST_F(WebhookWorkTest, WithoutAGetNothingIsSettled) {
  Row(1, State::kUnknown);
  Webhook("w1", "intent-1", 1);
  astra_.Answer(ReadVerdict::kNotFound, 404);
  loop_.Settle();
  EXPECT_EQ(Look(1).state, State::kUnknown);
  EXPECT_THAT(watcher_.ended, IsEmpty());
}

TEST_F(WebhookWorkTest, ARowThatStillRunsIsAskedAgainSoon) {
  Row(1, State::kSending);
  Webhook("w1", "intent-1", 1);
  loop_.Advance(30s);
  EXPECT_THAT(astra_.gets, IsEmpty());
  EXPECT_EQ(watcher_.waiting, 1u);
  Finish(1, State::kUnknown);
  loop_.Advance(1500ms);
  ASSERT_EQ(astra_.gets.size(), 1u);
  astra_.AnswerStatus("pending");
  loop_.Settle();
  EXPECT_EQ(Look(1).state, State::kSucceeded);
}

TEST_F(WebhookWorkTest, ARowThatSaysOtherwiseIsMarkedAndKept) {
  Row(1, State::kFailed);
  Row(2, State::kSucceeded, "intent-2");
  Webhook("w1", "intent-1", 1);
  astra_.AnswerStatus("pending");
  loop_.Settle();
  Webhook("w2", "intent-3", 2);
  astra_.AnswerStatus("pending");
  loop_.Settle();
  EXPECT_EQ(Look(1).state, State::kFailed);
  EXPECT_EQ(Look(2).answer.user_intent_id, "intent-2");
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kConflict, WebhookResult::kConflict));
}

TEST_F(WebhookWorkTest, AnotherRequestsIntentIsNoProof) {
  Row(1, State::kUnknown);
  Row(2, State::kSucceeded, "intent-2");
  Webhook("w1", "intent-2", 1);
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_EQ(Look(1).state, State::kUnknown);
  EXPECT_EQ(Look(2).latest.astra_status, "approved") << "the reading is as good as any";
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kConflict));
}

TEST_F(WebhookWorkTest, AnIntentThatAstraSaysAnotherPostMadeIsNoProof) {
  for (const uint8_t made_by : {uint8_t{9}, uint8_t{1}}) {
    Row(made_by == 1 ? 1 : 2, State::kUnknown);
    Webhook(made_by == 1 ? "w1" : "w2", made_by == 1 ? "intent-1" : "intent-9", made_by == 1 ? 1 : 2);
    astra::ReadOutcome outcome;
    outcome.verdict = ReadVerdict::kRead;
    outcome.http_status = 200;
    outcome.attempt_id = Id(made_by);
    astra_.Answer(outcome);
    loop_.Settle();
  }
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kConflict, WebhookResult::kSettled));
  EXPECT_EQ(Look(2).state, State::kUnknown);
  EXPECT_EQ(Look(1).state, State::kSucceeded);
}

TEST_F(WebhookWorkTest, WhatSaysNothingOfTheLedgersRowsIsDone) {
  Row(1, State::kSucceeded, "intent-1");
  Webhook("w1", "intent-9", 9);
  Webhook("w2", "intent-9");
  Webhook("w3", "intent-1", 1, "user_updated");
  Webhook("w4", "intent-1", 1, "something_new");
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kForeign, WebhookResult::kForeign, WebhookResult::kIgnored,
                                          WebhookResult::kIgnored));
  EXPECT_THAT(astra_.gets, IsEmpty());
}

TEST_F(WebhookWorkTest, OneGetServesAllThatCameBeforeIt) {
  Row(1, State::kSucceeded, "intent-1");
  for (const char* const id : {"w1", "w2", "w3"}) Webhook(id, "intent-1");
  ASSERT_EQ(astra_.gets.size(), 1u);
  astra_.AnswerStatus("approved");
  loop_.Advance(0s);
  // The others came after the first GET began, so one more is made for them, a moment later.
  EXPECT_EQ(astra_.gets.size(), 1u);
  loop_.Advance(1500ms);
  ASSERT_EQ(astra_.gets.size(), 2u);
  astra_.AnswerStatus("rejected");
  loop_.Advance(1500ms);
  EXPECT_EQ(astra_.gets.size(), 2u);
  EXPECT_EQ(watcher_.ended.size(), 3u);
  EXPECT_EQ(Look(1).latest.astra_status, "rejected");
}

TEST_F(WebhookWorkTest, AGetThatBeganEarlierIsNotJoined) {
  Row(1, State::kSucceeded, "intent-1");
  reads_.Read({loop_, astra_}, {Asker::kFollowUp, "intent-1", std::make_shared<const ledger::Record>(Look(1))},
              [](const Result<ledger::Reading>&) {});
  ASSERT_EQ(astra_.gets.size(), 1u);
  Webhook("w1", "intent-1");
  loop_.Advance(1s);
  EXPECT_EQ(astra_.gets.size(), 1u);
  EXPECT_THAT(watcher_.ended, IsEmpty());
  astra_.AnswerStatus("pending");
  loop_.Advance(1s);
  ASSERT_EQ(astra_.gets.size(), 2u);
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_EQ(Look(1).latest.astra_status, "approved");
}

TEST_F(WebhookWorkTest, AFailingAstraIsAskedForADay) {
  Row(1, State::kSucceeded, "intent-1");
  Webhook("w1", "intent-1");
  size_t answered = 0;
  const SteadyTime start = loop_.Now();
  while (watcher_.ended.empty() && loop_.Now() - start < 48h) {
    if (astra_.gets.size() > answered) {
      answered = astra_.gets.size();
      astra_.Answer(ReadVerdict::kUnavailable, 503);
    }
    loop_.Advance(1s);
  }
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kGivenUp));
  EXPECT_GE(loop_.Now() - start, 24h);
  EXPECT_LE(loop_.Now() - start, 25h);
  EXPECT_GT(answered, 30u);
  EXPECT_LT(answered, 150u);
}

TEST_F(WebhookWorkTest, AnIntentThatAstraDoesNotKnowIsAskedForAnHour) {
  Row(1, State::kUnknown);
  Webhook("w1", "intent-1", 1);
  size_t answered = 0;
  const SteadyTime start = loop_.Now();
  while (watcher_.ended.empty() && loop_.Now() - start < 48h) {
    if (astra_.gets.size() > answered) {
      answered = astra_.gets.size();
      astra_.Answer(ReadVerdict::kNotFound, 404);
    }
    loop_.Advance(1s);
  }
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kOrphan));
  EXPECT_GE(loop_.Now() - start, 1h);
  EXPECT_LE(loop_.Now() - start, 3h);
  EXPECT_EQ(Look(1).state, State::kUnknown);
}

TEST_F(WebhookWorkTest, ManyAtOnceAreAllWorkedOn) {
  for (uint8_t n = 1; n <= 200; ++n) Row(n, State::kSucceeded, "intent-" + std::to_string(n));
  for (uint8_t n = 1; n <= 200; ++n) Webhook("w" + std::to_string(n), "intent-" + std::to_string(n), n);
  EXPECT_LE(astra_.gets.size(), 64u);
  for (size_t i = 0; i < astra_.gets.size(); ++i) {
    astra::ReadOutcome outcome;
    outcome.verdict = ReadVerdict::kRead;
    outcome.http_status = 200;
    outcome.astra_status = "approved";
    std::exchange(astra_.gets[i].done, nullptr)(outcome);
    loop_.Settle();
  }
  EXPECT_EQ(astra_.gets.size(), 200u);
  EXPECT_EQ(watcher_.ended.size(), 200u);
  for (uint8_t n = 1; n <= 200; ++n) EXPECT_EQ(Look(n).latest.astra_status, "approved");
}

TEST_F(WebhookWorkTest, WhatAnEarlierProcessLeftIsTakenUp) {
  Row(1, State::kSucceeded, "intent-1");
  ledger_.Receive({"w1", "user_intent_updated", "intent-1", std::nullopt, WallClock()}, loop_, [](ledger::Receipt) {});
  loop_.Settle();
  EXPECT_THAT(astra_.gets, IsEmpty()) << "nobody woke the work";
  WebhookWork next({{loop_, astra_}, ledger_, ledger_, reads_, admission_, watcher_, watcher_, &WallClock});
  next.Start();
  loop_.Settle();
  EXPECT_EQ(astra_.gets.size(), 1u);
}

// Rows that succeeded are looked through in slices, with pauses between them, for one webhook at a time.
TEST_F(WebhookWorkTest, OneSearchThroughAllRowsAtATime) {
  constexpr int kRows = 2500;
  for (int i = 0; i < kRows; ++i) {
    ledger::BeginRequest begin;
    begin.key = {"local", Id(1)};
    begin.key.request_id[0] = begin.attempt_id[0] = static_cast<uint8_t>(i % 256);
    begin.key.request_id[1] = begin.attempt_id[1] = static_cast<uint8_t>(i / 256);
    begin.attempt_id[15] = 1;
    begin.current.email = {begin.key.request_id[0], begin.key.request_id[1]};
    begin.current.content = begin.current.person = begin.current.email;
    begin.now = WallClock();
    ledger_.Begin(begin, loop_, [](const ledger::BeginAnswer&) {});
    ledger::FinishRequest finish;
    finish.key = begin.key;
    finish.state = State::kSucceeded;
    finish.answer.user_intent_id = "intent-" + std::to_string(i);
    finish.answer.at = finish.now = WallClock();
    ledger_.Finish(finish, loop_, [](const ledger::FinishAnswer& answer) { ASSERT_TRUE(answer.committed); });
    loop_.Advance(1us);
  }
  Webhook("w1", "another", 1);  // the attempt of the oldest row
  Webhook("w2", "foreign", 99);
  loop_.Settle();
  EXPECT_THAT(watcher_.ended, IsEmpty());
  EXPECT_THAT(astra_.gets, IsEmpty()) << "the search goes on without a pause";
  for (int pause = 0; pause < 5 && astra_.gets.empty(); ++pause) loop_.Advance(10ms);
  ASSERT_EQ(astra_.gets.size(), 1u);
  astra_.AnswerStatus("pending");
  loop_.Settle();
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kConflict));
  for (int second = 0; second < 5; ++second) loop_.Advance(1s);
  EXPECT_THAT(watcher_.ended, ElementsAre(WebhookResult::kConflict, WebhookResult::kForeign));
  EXPECT_EQ(watcher_.waiting, 0u);
}

TEST_F(WebhookWorkTest, NothingBeginsWhileTheServerDrains) {
  Row(1, State::kSucceeded, "intent-1");
  admission_.Drain();
  Webhook("w1", "intent-1");
  loop_.Advance(1min);
  EXPECT_THAT(astra_.gets, IsEmpty());
}

TEST_F(WebhookWorkTest, StoppedWorkBeginsNothing) {
  Row(1, State::kSucceeded, "intent-1");
  work_.Stop();
  Webhook("w1", "intent-1");
  loop_.Advance(1min);
  EXPECT_THAT(astra_.gets, IsEmpty());
}

class WebhookWorkOnABudgetTest : public WebhookWorkTest {
 protected:
  WebhookWorkOnABudgetTest() : WebhookWorkTest(2) {}
};

TEST_F(WebhookWorkOnABudgetTest, ASpentBudgetIsNoFailure) {
  for (uint8_t n = 1; n <= 40; ++n) {
    Row(n, State::kSucceeded, "intent-" + std::to_string(n));
    Webhook("w" + std::to_string(n), "intent-" + std::to_string(n));
  }
  const SteadyTime start = loop_.Now();
  for (size_t i = 0; watcher_.ended.size() < 40 && loop_.Now() - start < 1h;) {
    if (i < astra_.gets.size()) {
      std::exchange(astra_.gets[i++].done, nullptr)([] {
        astra::ReadOutcome outcome;
        outcome.verdict = ReadVerdict::kRead;
        outcome.http_status = 200;
        return outcome;
      }());
      loop_.Settle();
    } else {
      loop_.Advance(100ms);
    }
  }
  EXPECT_EQ(watcher_.ended.size(), 40u);
  EXPECT_EQ(astra_.gets.size(), 40u);
  EXPECT_LE(loop_.Now() - start, 2min) << "two a second";
}

}  // namespace
}  // namespace userintent::usecase
