// The change feed of a ledger: what a listener hears and when, over every ledger.
#include <array>
#include <map>
#include <random>
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
// Those that tell of a change when they commit it; what replicas tell: tests/unit/postgres/change_log_test.cc.
std::vector<LedgerKind> Kinds() {
  std::vector<LedgerKind> kinds = LedgerKinds();
  std::erase_if(kinds, [](const LedgerKind& kind) { return kind.name == "postgres"; });
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Ledger, FeedTest, testing::ValuesIn(Kinds()),
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

// Who follows the feed from any revision, told by the listener when to read on, has in the end what the ledger has.
// Random histories of two callers; seeds are fixed.
TEST_P(FeedTest, AFollowerFromAnyRevisionReachesTheStateOfTheLedger) {
  std::mt19937 dice(7);
  const auto below = [&dice](unsigned end) { return static_cast<int>(dice() % end); };
  struct Follower {
    std::string caller;
    std::map<Uuid, std::pair<State, std::string>> state;  // and the latest status, or the intent
    int64_t at = 0;
    int64_t last = 0;  // of the last change
  };
  const auto seen = [](const Record& record) {
    return std::pair(record.state, record.answer.user_intent_id + record.latest.astra_status + record.latest.user_id);
  };
  std::vector<Follower> followers;
  const auto follow = [&](Follower& follower) {
    while (follower.at < ledger_->revision()) {
      const auto answer = Ask<ChangeFeed::Answer>([&](auto done) {
        ledger_->ReadChanges({.caller = follower.caller, .after = follower.at, .limit = 1 + dice() % 4}, pump_,
                             std::move(done));
      });
      ASSERT_TRUE(answer.available && !answer.too_old);
      ASSERT_GT(answer.upto, follower.at);
      for (const ChangeFeed::Changed& changed : answer.changed) {
        ASSERT_GT(changed.revision, follower.last);
        ASSERT_LE(changed.revision, answer.upto);
        follower.last = changed.revision;
        follower.state[changed.record.key.request_id] = seen(changed.record);
      }
      follower.at = answer.upto;
    }
  };
  const std::vector<std::string> callers = {"one", "two"};
  for (int step = 0; step < 2500; ++step) {
    Call call{.caller = callers[dice() % 2], .id = below(100), .may_join = false, .at = step};
    call.email = call.caller + std::to_string(call.id) + "@example.com";
    call.attempt = 1000 + call.id;
    const Key key = call.key_of();
    switch (below(6)) {
      case 0:
        Begin(call);
        break;
      case 1:
      case 2: {
        const std::array<FinishRequest, 4> ends = {Succeeded(key), Failed(key), Unknown(key), Released(key)};
        Ask<FinishAnswer>([&](auto done) { ledger_->Finish(ends[dice() % 4], pump_, std::move(done)); });
        break;
      }
      case 3:
        Settle(below(2) == 0 ? ProofOf(key, "intent-1", call.attempt)
                             : ProofOfNone(key, below(2) == 0 ? State::kFailed : State::kReleased, call.attempt));
        break;
      case 4:
        Ask<bool>([&](auto done) {
          ledger_->RecordReading(key, Said(below(2) == 0 ? "pending" : "document", 100 + step), pump_, std::move(done));
        });
        break;
      default:
        if (!followers.empty()) follow(followers[dice() % followers.size()]);
    }
    // A new follower begins with what is there now, as a watcher does.
    if (step % 250 != 0) continue;
    Follower fresh{callers[dice() % 2], {}, ledger_->revision(), ledger_->revision()};
    for (int id = 0; id < 100; ++id) {
      const auto got = Ask<GetAnswer>([&](auto done) { ledger_->Get({fresh.caller, Id(id)}, pump_, std::move(done)); });
      if (got.record) fresh.state[Id(id)] = seen(*got.record);
    }
    followers.push_back(std::move(fresh));
    followers.push_back({callers[dice() % 2], {}, 0, 0});  // and one from the beginning
  }
  EXPECT_GT(ledger_->revision(), 100);
  EXPECT_EQ(static_cast<int64_t>(listener_.heard().size()), ledger_->revision());
  for (Follower& follower : followers) {
    follow(follower);
    for (int id = 0; id < 100; ++id) {
      const auto got = Ask<GetAnswer>([&](auto done) {
        ledger_->Get({follower.caller, Id(id)}, pump_, std::move(done));
      });
      // That a request runs is told with its next end.
      if (!got.record || got.record->state == State::kSending) continue;
      ASSERT_TRUE(follower.state.contains(Id(id)));
      EXPECT_EQ(follower.state[Id(id)], seen(*got.record)) << id;
    }
  }
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
