// The change feed of a ledger: what a listener hears and when, over every ledger.
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

class Listener final : public ChangeListener {
 public:
  void OnChanges(absl::Span<const Change> changes) override {
    const MutexLock lock(mutex_);
    heard_.insert(heard_.end(), changes.begin(), changes.end());
  }
  std::vector<Change> heard() {
    const MutexLock lock(mutex_);
    return heard_;
  }

 private:
  Mutex mutex_;
  std::vector<Change> heard_ ABSL_GUARDED_BY(mutex_);
};

class FeedTest : public testing::TestWithParam<LedgerKind> {
 protected:
  FeedTest() { ledger_->SetListener(&listener_); }

  // The answer of one call.
  template <typename Answer, typename Call>
  Answer Ask(Call call) {
    std::optional<Answer> answer;
    call([&](Answer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  BeginAnswer Begin(const Call& call) {
    return Ask<BeginAnswer>([&](auto done) { ledger_->Begin(call.request(), pump_, std::move(done)); });
  }
  void Finish(const FinishRequest& request) {
    ASSERT_TRUE(Ask<FinishAnswer>([&](auto done) { ledger_->Finish(request, pump_, std::move(done)); }).committed);
  }
  SettleAnswer Settle(const SettleRequest& request) {
    return Ask<SettleAnswer>([&](auto done) { ledger_->Settle(request, pump_, std::move(done)); });
  }

  Listener listener_;
  Pump pump_;
  const std::shared_ptr<BatchLedger> ledger_ = GetParam().make();
  const Key key_{"one", Id(1)};
};
INSTANTIATE_TEST_SUITE_P(Ledger, FeedTest, testing::ValuesIn(LedgerKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(FeedTest, WhatIsAnsweredWasTold) {
  EXPECT_NE(ledger_->ledger_id(), 0u);
  EXPECT_EQ(ledger_->revision(), 0);
  Begin({});
  EXPECT_TRUE(listener_.heard().empty());
  Finish(Unknown(key_));
  EXPECT_EQ(listener_.heard(), (std::vector<Change>{{1, key_}}));
  EXPECT_EQ(ledger_->revision(), 1);
  EXPECT_EQ(Settle(ProofOf(key_)).verdict, SettleVerdict::kSettled);
  EXPECT_EQ(listener_.heard(), (std::vector<Change>{{1, key_}, {2, key_}}));
  EXPECT_EQ(ledger_->revision(), 2);
  EXPECT_EQ(Settle(ProofOf(key_)).verdict, SettleVerdict::kSaysSo);
  EXPECT_EQ(Settle(ProofOf(key_, "intent-8")).verdict, SettleVerdict::kConflict);
  EXPECT_EQ(Settle(ProofOf(key_, "intent-8", 1)).verdict, SettleVerdict::kNotFound);
  EXPECT_EQ(ledger_->revision(), 2);
  const auto changes = Ask<ChangeFeed::Answer>(
      [&](auto done) { ledger_->ReadChanges({.caller = "one", .after = 1}, pump_, std::move(done)); });
  ASSERT_EQ(changes.changed.size(), 1u);
  EXPECT_EQ(changes.changed[0].record.answer.user_intent_id, "intent-7");
  EXPECT_EQ(changes.changed[0].budget.used_min, 1);
}

TEST_P(FeedTest, AnOperatorsWordIsToldToo) {
  Begin({});
  Finish(Unknown(key_));
  ASSERT_TRUE(ledger_
                  ->RunOnWriter([&](GroupCommit& commit) {
                    return commit.Transact([&] { return Execute(commit.store(), AsCreated(key_)).status(); });
                  })
                  .ok());
  EXPECT_EQ(listener_.heard(), (std::vector<Change>{{1, key_}, {2, key_}}));
}

TEST_P(FeedTest, SearchesAnswer) {
  Begin({});
  Finish(Succeeded(key_));
  const auto traced = Ask<TraceAnswer>([&](auto done) {
    ledger_->Trace({.intent = "intent-1", .attempt_id = Id(1000), .since = At(0)}, pump_, std::move(done));
  });
  EXPECT_TRUE(traced.available && traced.by_intent && traced.by_attempt);
  const auto listed =
      Ask<SucceededAnswer>([&](auto done) { ledger_->ListSucceeded({.since = At(0)}, pump_, std::move(done)); });
  EXPECT_TRUE(listed.available);
  EXPECT_EQ(listed.records.size(), 1u);
}

}  // namespace
}  // namespace userintent::ledger
