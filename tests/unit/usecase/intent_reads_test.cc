// Reads by several askers: who shares a GET with whom, for whom it is repeated, which rows get the reading, and who may
// take the budget's last tokens. With a clock and an Astra of the test's own; nothing sleeps.
#include "server/usecase/intent_reads.h"

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

constexpr Asker kOthers[] = {Asker::kWebhook, Asker::kWatched, Asker::kFollowUp};

// What one asker heard.
struct Heard {
  std::optional<Result<ledger::Reading>> result;
  IntentReads::Ticket ticket = 0;
  int times = 0;

  bool ok() const { return result && result->ok(); }
  v1::ErrorReason reason() const {
    return result && !result->ok() ? result->error().reason : v1::ERROR_REASON_UNSPECIFIED;
  }
};

class IntentReadsTest : public testing::Test {
 protected:
  explicit IntentReadsTest(double rate = 0) : reads_(ledger_, admission_, observer_, rate) {}

  // A row with "intent-1" that this caller created.
  std::shared_ptr<const ledger::Record> Row(const std::string& caller = "local") {
    ledger::BeginRequest begin;
    begin.key = {caller, *ParseUuid("00000000-0000-0000-0000-000000000001")};
    begin.current.content[0] = begin.current.person[0] = begin.current.email[0] = static_cast<uint8_t>(++rows_);
    begin.verification_type = v1::VERIFICATION_TYPE_UNVERIFIED;
    begin.now = created_;
    ledger_.Begin(begin, loop_, [](const ledger::BeginAnswer&) {});
    ledger::FinishRequest finish;
    finish.key = begin.key;
    finish.state = ledger::State::kSucceeded;
    finish.answer.user_intent_id = "intent-1";
    finish.answer.astra_status = "pending";
    finish.answer.at = finish.now = created_;
    ledger_.Finish(finish, loop_, [](const ledger::FinishAnswer& answer) { ASSERT_TRUE(answer.committed); });
    loop_.Settle();
    return Look(caller);
  }
  std::shared_ptr<const ledger::Record> Look(const std::string& caller = "local") {
    std::shared_ptr<const ledger::Record> row;
    ledger_.Get({caller, *ParseUuid("00000000-0000-0000-0000-000000000001")}, loop_, [&](ledger::GetAnswer answer) {
      row = std::make_shared<const ledger::Record>(*std::move(answer.record));
    });
    loop_.Settle();
    return row;
  }

  std::shared_ptr<Heard> Read(Asker asker, std::shared_ptr<const ledger::Record> record,
                              SteadyClock::duration deadline = 30s, const std::string& id = "intent-1") {
    auto heard = std::make_shared<Heard>();
    heard->ticket = reads_.Read({loop_, astra_}, {asker, id, std::move(record), loop_.Now() + deadline},
                                [heard](Result<ledger::Reading> result) {
                                  heard->result = std::move(result);
                                  ++heard->times;
                                });
    loop_.Settle();
    return heard;
  }

  const absl::Time created_ = absl::Now() - absl::Hours(1);
  int rows_ = 0;
  FakeLoop loop_;
  FakeAstraReads astra_;
  ledger::MemoryLedger ledger_;
  AdmissionControl admission_{AdmissionControl::Options{2, 100ms}};
  ReadWatcher observer_;
  IntentReads reads_;
};

TEST_F(IntentReadsTest, AnIntentWithoutARowIsReadAndNothingIsRecorded) {
  const auto heard = Read(Asker::kWebhook, nullptr);
  ASSERT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(astra_.gets[0].id, "intent-1");
  astra_.AnswerStatus("approved", "user-7");
  loop_.Settle();
  ASSERT_TRUE(heard->ok());
  const ledger::Reading& reading = heard->result->value();
  EXPECT_EQ(reading.astra_status, "approved");
  EXPECT_EQ(reading.user_id, "user-7");
  EXPECT_EQ(reading.verification_type, v1::VERIFICATION_TYPE_UNSPECIFIED);
  EXPECT_EQ(reading.status_since, reading.read_at);
  EXPECT_EQ(observer_.askers, std::vector{Asker::kWebhook});
  EXPECT_EQ(observer_.request_ids, std::vector{std::optional<Uuid>()});
}

TEST_F(IntentReadsTest, ACallerThatJoinsAWebhooksReadGetsItRecorded) {
  const auto row = Row();
  const auto webhook = Read(Asker::kWebhook, nullptr);
  const auto caller = Read(Asker::kCaller, row);
  ASSERT_EQ(astra_.gets.size(), 1u);
  astra_.AnswerStatus("pending");
  loop_.Settle();
  ASSERT_TRUE(webhook->ok() && caller->ok());
  EXPECT_EQ(caller->result->value().status_since, created_) << "the row knew this status";
  EXPECT_EQ(caller->result->value().verification_type, v1::VERIFICATION_TYPE_UNVERIFIED);
  EXPECT_EQ(webhook->result->value().status_since, webhook->result->value().read_at);
  EXPECT_GT(Look()->latest.read_at, created_);
}

TEST_F(IntentReadsTest, EveryRowThatItWasReadForGetsTheReading) {
  const auto mine = Row();
  const auto other = Row("dns:other");
  const auto first = Read(Asker::kFollowUp, mine);
  const auto second = Read(Asker::kFollowUp, other);
  Read(Asker::kCaller, mine);
  reads_.Leave("intent-1", second->ticket);
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_TRUE(first->ok());
  EXPECT_FALSE(second->result);
  EXPECT_EQ(Look()->latest.astra_status, "approved");
  EXPECT_EQ(Look("dns:other")->latest.astra_status, "approved") << "asked for, although nobody waits any more";
}

TEST_F(IntentReadsTest, OnlyCallersAreReadForAgain) {
  const auto row = Row();
  for (const Asker asker : kOthers) {
    const auto heard = Read(asker, row);
    astra_.Answer(ReadVerdict::kUnavailable, 503, absl::Seconds(2));
    loop_.Advance(1h);
    ASSERT_EQ(heard->reason(), v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    EXPECT_EQ(heard->result->error().retry_after, absl::Seconds(2));
  }
  EXPECT_EQ(astra_.gets.size(), 3u);
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(IntentReadsTest, AnotherAskerWithALaterDeadlineLengthensNothing) {
  const auto row = Row();
  for (const Asker asker : kOthers) {
    const auto other = Read(asker, row, 1h);
    const auto caller = Read(Asker::kCaller, row, 5s);
    astra_.Answer(ReadVerdict::kUnavailable, 503, absl::Seconds(7));
    loop_.Settle();
    ASSERT_EQ(caller->reason(), v1::ERROR_REASON_UPSTREAM_UNAVAILABLE) << "it would wait for its deadline";
    EXPECT_EQ(caller->result->error().retry_after, absl::Seconds(7));
    EXPECT_EQ(other->reason(), v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  }
}

TEST_F(IntentReadsTest, ACallerThatJoinsHasTheRepeatsThatAreLeft) {
  const auto row = Row();
  const auto other = Read(Asker::kWatched, row);
  const auto caller = Read(Asker::kCaller, row);
  astra_.Answer(ReadVerdict::kUnavailable, 500);
  loop_.Advance(2s);
  ASSERT_EQ(astra_.gets.size(), 2u);
  EXPECT_FALSE(other->result) << "it hears what the caller hears";
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_TRUE(caller->ok() && other->ok());
  EXPECT_EQ(observer_.askers, (std::vector{Asker::kWatched, Asker::kCaller}));
}

TEST_F(IntentReadsTest, WhenTheCallersHaveLeftNothingIsReadAgainForTheOthers) {
  const auto row = Row();
  const auto caller = Read(Asker::kCaller, row);
  const auto other = Read(Asker::kWebhook, row, 1h);
  astra_.Answer(ReadVerdict::kRateLimited, 429);
  loop_.Settle();
  reads_.Leave("intent-1", caller->ticket);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(other->reason(), v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  EXPECT_EQ(other->result->error().http_status, 429);
  EXPECT_FALSE(caller->result);
}

TEST_F(IntentReadsTest, ADrainWaitsForCallersAlone) {
  const auto row = Row();
  const auto other = Read(Asker::kFollowUp, row);
  EXPECT_EQ(reads_.waiting(), 0u);
  Read(Asker::kCaller, row);
  EXPECT_EQ(reads_.waiting(), 1u);
  reads_.AnswerAll();
  loop_.Settle();
  EXPECT_EQ(reads_.waiting(), 0u);
  EXPECT_EQ(other->reason(), v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_EQ(other->times, 1);
}

TEST_F(IntentReadsTest, WhileAstraWantsToBeLeftAloneOnlyCallersRead) {
  const auto row = Row();
  admission_.HoldBack(loop_.Now(), absl::Seconds(5));
  loop_.Advance(1s);
  for (const Asker asker : kOthers) {
    const auto heard = Read(asker, row);
    ASSERT_EQ(heard->reason(), v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
    EXPECT_EQ(heard->result->error().retry_after, absl::Seconds(4));
    EXPECT_EQ(heard->result->error().http_status, 0);
  }
  EXPECT_EQ(observer_.held_back, std::vector(std::begin(kOthers), std::end(kOthers)));
  EXPECT_TRUE(astra_.gets.empty());
  Read(Asker::kCaller, row);
  EXPECT_EQ(astra_.gets.size(), 1u);
}

class ReadBudgetTest : public IntentReadsTest {
 protected:
  ReadBudgetTest() : IntentReadsTest(10) {}

  // Whether this asker gets a GET.
  bool Gets(Asker asker) {
    const size_t before = astra_.gets.size();
    last_ = Read(asker, nullptr, 30s, "intent-" + std::to_string(++asked_));
    return astra_.gets.size() > before;
  }
  int Count(Asker asker) {
    int got = 0;
    while (Gets(asker)) ++got;
    return got;
  }

  int asked_ = 0;
  std::shared_ptr<Heard> last_;
};

TEST_F(ReadBudgetTest, TheOthersLeaveAReserveForCallers) {
  EXPECT_EQ(Count(Asker::kFollowUp), 10);
  EXPECT_EQ(Count(Asker::kWatched), 0);
  EXPECT_EQ(Count(Asker::kWebhook), 5);
  EXPECT_EQ(Count(Asker::kCaller), 5);
  loop_.Advance(1h);
  EXPECT_EQ(Count(Asker::kCaller), 20);
}

TEST_F(ReadBudgetTest, WhoFindsNoTokenIsToldWhenThereIsOne) {
  EXPECT_EQ(Count(Asker::kCaller), 20);
  const std::pair<Asker, int> waits[] = {
      {Asker::kCaller, 100}, {Asker::kWebhook, 600}, {Asker::kWatched, 1100}, {Asker::kFollowUp, 1100}};
  for (const auto& [asker, wait] : waits) {
    ASSERT_FALSE(Gets(asker));
    ASSERT_EQ(last_->reason(), v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
    EXPECT_EQ(last_->result->error().retry_after, absl::Milliseconds(wait));
    EXPECT_EQ(last_->result->error().http_status, 0);
    EXPECT_EQ(observer_.held_back.back(), asker);
  }
  loop_.Advance(599ms);
  EXPECT_FALSE(Gets(Asker::kWebhook));
  loop_.Advance(1ms);
  EXPECT_TRUE(Gets(Asker::kWebhook));
}

TEST(ReadBudget, AFullBucketIsEnoughForEverybody) {
  for (const double rate : {0.5, 1.0, 2.0}) {
    for (const Asker asker : kOthers) {
      ReadBudget budget(rate);
      const SteadyTime now{1h};
      EXPECT_EQ(budget.Take(now, asker), SteadyClock::duration::zero()) << rate;
    }
  }
  ReadBudget none(0);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(none.Take(SteadyTime{1h}, Asker::kFollowUp), SteadyClock::duration::zero());
}

int CountTokens(ReadBudget& budget, SteadyTime now, int replicas) {
  int tokens = 0;
  while (budget.Take(now, Asker::kCaller, replicas) == SteadyClock::duration::zero()) ++tokens;
  return tokens;
}

TEST(ReadBudget, ReplicasHaveEqualParts) {
  ReadBudget budget(12);
  SteadyTime now{1h};
  EXPECT_EQ(CountTokens(budget, now, 4), 6) << "twice a part of 3, though the bucket was full for one";
  EXPECT_EQ(CountTokens(budget, now += 1s, 4), 3);
  EXPECT_EQ(CountTokens(budget, now += 1s, 2), 6);
  EXPECT_EQ(CountTokens(budget, now += 1s, 1), 12);
  EXPECT_EQ(CountTokens(budget, now += 1h, 1), 24);
}

TEST(ReadBudget, APartThatIsLessThanATokenGivesOneNowAndThen) {
  ReadBudget budget(1);
  SteadyTime now{1h};
  EXPECT_EQ(CountTokens(budget, now, 4), 1);
  EXPECT_EQ(CountTokens(budget, now += 3900ms, 4), 0);
  EXPECT_EQ(CountTokens(budget, now += 200ms, 4), 1);
  for (const Asker asker : kOthers) {
    EXPECT_EQ(budget.Take(now += 10s, asker, 4), SteadyClock::duration::zero());
  }
}

}  // namespace
}  // namespace userintent::usecase
