// The asynchronous face, the same for every ledger: joins, forgetting, and that each call answers once.
#include "server/ledger/ledger.h"

#include <algorithm>

#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using V = BeginVerdict;

class LedgerTest : public testing::TestWithParam<LedgerKind> {
 protected:
  Ledger::Token Begin(const Call& call, std::optional<BeginAnswer>* answer) {
    return ledger_->Begin(call.request(), pump_, [answer](BeginAnswer got) {
      EXPECT_FALSE(answer->has_value()) << "answered twice";
      *answer = std::move(got);
    });
  }
  BeginAnswer Begin(const Call& call) {
    std::optional<BeginAnswer> answer;
    Begin(call, &answer);
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  FinishAnswer Finish(const FinishRequest& request) {
    std::optional<FinishAnswer> answer;
    ledger_->Finish(request, pump_, [&](FinishAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  GetAnswer Get(const Key& key) {
    std::optional<GetAnswer> answer;
    ledger_->Get(key, pump_, [&](GetAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  GetAnswer FindIntent(const std::string& caller, const std::string& intent) {
    std::optional<GetAnswer> answer;
    ledger_->FindIntent(caller, intent, pump_, [&](GetAnswer got) { answer = std::move(got); });
    pump_.Until([&] { return answer.has_value(); });
    return *std::move(answer);
  }
  bool RecordReading(const Key& key, const Reading& reading) {
    std::optional<bool> answer;
    ledger_->RecordReading(key, reading, pump_, [&](bool committed) { answer = committed; });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }
  bool NextAttempt(const Key& key) {
    std::optional<bool> answer;
    ledger_->NextAttempt(key, Id(55), Sent::kYes, At(3), pump_, [&](bool got) { answer = got; });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  }

  Pump pump_;
  std::shared_ptr<BatchLedger> ledger_ = GetParam().make();
  const Key key_{"one", Id(1)};
};
INSTANTIATE_TEST_SUITE_P(Ledger, LedgerTest, testing::ValuesIn(LedgerKinds()),
                         [](const auto& each) { return each.param.name; });

TEST_P(LedgerTest, AnswersGoThroughTheExecutor) {
  std::optional<BeginAnswer> answer;
  Begin({}, &answer);
  EXPECT_FALSE(answer);
  pump_.Until([&] { return answer.has_value(); });
  EXPECT_EQ(answer->verdict, V::kGo);
  EXPECT_TRUE(ledger_->Writable());
}

TEST_P(LedgerTest, AJoinHearsTheOutcome) {
  for (const FinishRequest& end :
       {Succeeded({"one", Id(1)}), Failed({"one", Id(2)}), Unknown({"one", Id(3)}), Released({"one", Id(4)})}) {
    const int id = end.key.request_id[15];
    const Call call{.id = id, .email = std::to_string(id) + "@example.com"};
    ASSERT_EQ(Begin(call).verdict, V::kGo);
    std::optional<BeginAnswer> first, second;
    Begin(call, &first);
    Begin(call, &second);
    Get(end.key);  // everything before it was decided
    EXPECT_FALSE(first);
    const FinishAnswer finished = Finish(end);
    EXPECT_TRUE(finished.committed);
    pump_.Until([&] { return first && second; });
    for (const auto& answer : {first, second}) {
      EXPECT_EQ(answer->verdict, V::kRecorded);
      EXPECT_TRUE(answer->joined);
      ASSERT_TRUE(answer->own);
      EXPECT_EQ(answer->own->state, end.state);
      EXPECT_EQ(answer->own->reason, finished.record.reason);
      EXPECT_EQ(answer->budget.used_max, finished.budget.used_max);
    }
    // Whoever comes later is no join; a released id goes again.
    const BeginAnswer later = Begin(call);
    EXPECT_FALSE(later.joined);
    EXPECT_EQ(later.verdict, end.state == State::kReleased ? V::kGo : V::kRecorded);
  }
}

TEST_P(LedgerTest, AJoinOfOtherContentIsRefused) {
  Begin({});
  EXPECT_EQ(Begin({.ip = "8.8.4.4"}).verdict, V::kReused);
}

TEST_P(LedgerTest, WhoMayNotJoinHearsInProgress) {
  Begin({});
  const BeginAnswer answer = Begin({.may_join = false});
  EXPECT_EQ(answer.verdict, V::kInProgress);
  EXPECT_EQ(answer.own->state, State::kSending);
  EXPECT_EQ(answer.budget.used_max, 1);
}

TEST_P(LedgerTest, AJoinWithoutTheRightToStartStillJoins) {
  Begin({});
  std::optional<BeginAnswer> answer;
  Begin({.may_start = false}, &answer);
  Finish(Succeeded(key_));
  pump_.Until([&] { return answer.has_value(); });
  EXPECT_TRUE(answer->joined);
}

TEST_P(LedgerTest, AForgottenJoinHearsNothing) {
  Begin({});
  std::optional<BeginAnswer> forgotten, kept;
  const Ledger::Token token = Begin({}, &forgotten);
  Begin({}, &kept);
  ledger_->Forget(token);
  ledger_->Forget(token);
  ledger_->Forget(token + 1000);
  Finish(Succeeded(key_));
  pump_.Until([&] { return kept.has_value(); });
  Get(key_);
  EXPECT_FALSE(forgotten);
  EXPECT_TRUE(kept->joined);
}

TEST_P(LedgerTest, ForgettingACallThatWentChangesNothing) {
  std::optional<BeginAnswer> answer;
  ledger_->Forget(Begin({}, &answer));
  pump_.Until([&] { return answer.has_value(); });
  EXPECT_EQ(answer->verdict, V::kGo);
  EXPECT_EQ(Get(key_).record->state, State::kSending);
}

TEST_P(LedgerTest, TokensDiffer) {
  std::optional<BeginAnswer> first, second;
  EXPECT_NE(Begin({}, &first), Begin({}, &second));
  Finish(Succeeded(key_));
  pump_.Until([&] { return first && second; });
}

TEST_P(LedgerTest, AttemptsAreCounted) {
  EXPECT_FALSE(NextAttempt(key_));
  Begin({});
  EXPECT_TRUE(NextAttempt(key_));
  const GetAnswer got = Get(key_);
  EXPECT_TRUE(got.available);
  EXPECT_EQ(got.record->posts, 2);
  EXPECT_EQ(got.record->attempt_id, Id(55));
  EXPECT_EQ(got.record->sent, Sent::kYes);
}

TEST_P(LedgerTest, EndingWhatDoesNotRunIsNotCommitted) {
  EXPECT_FALSE(Finish(Succeeded(key_)).committed);
  Begin({});
  EXPECT_TRUE(Finish(Failed(key_)).committed);
  EXPECT_FALSE(Finish(Succeeded(key_)).committed);
  EXPECT_EQ(Get(key_).record->state, State::kFailed);
  EXPECT_TRUE(ledger_->Writable());
}

TEST_P(LedgerTest, AnIntentIsFoundWithItsLatestReading) {
  Begin({});
  EXPECT_FALSE(RecordReading(key_, Said("converted", 9)));
  Finish(Succeeded(key_));
  EXPECT_TRUE(RecordReading(key_, Said("converted", 9, "user-1")));
  ledger_->RecordReading(key_, Said("cancelled", 10), pump_, nullptr);  // without a word of whether it is kept
  const GetAnswer found = FindIntent("one", "intent-1");
  ASSERT_TRUE(found.available && found.record);
  EXPECT_EQ(found.record->latest.astra_status, "cancelled");
  EXPECT_EQ(found.record->latest.read_at, At(10));
  EXPECT_FALSE(FindIntent("two", "intent-1").record);
  EXPECT_TRUE(ledger_->Writable());
}

TEST_P(LedgerTest, UnresolvedRequestsAreCounted) {
  const auto count = [this] {
    std::optional<UnresolvedAnswer> answer;
    ledger_->CountUnresolved(pump_, [&](UnresolvedAnswer got) { answer = got; });
    pump_.Until([&] { return answer.has_value(); });
    return *answer;
  };
  EXPECT_TRUE(count().available);
  EXPECT_EQ(count().count, 0);
  EXPECT_EQ(count().oldest, absl::InfiniteFuture());
  for (const int id : {1, 2, 3}) {
    const Call call{.id = id, .email = "person" + std::to_string(id) + "@example.com"};
    Begin(call);
    EXPECT_EQ(count().count, std::max(0, id - 2));
    EXPECT_TRUE(Finish(id == 1 ? Succeeded(call.key_of()) : Unknown(call.key_of())).committed);
  }
  EXPECT_EQ(count().count, 2);
  EXPECT_EQ(count().oldest, Get({"one", Id(2)}).record->created);
}

TEST_P(LedgerTest, WhoStillWaitsWhenTheLedgerEndsHearsInProgress) {
  Begin({});
  std::optional<BeginAnswer> answer;
  Begin({}, &answer);
  ledger_.reset();
  pump_.Until([&] { return answer.has_value(); });
  EXPECT_EQ(answer->verdict, V::kInProgress);
}

TEST_P(LedgerTest, ManyThreadsOneGo) {
  constexpr int kThreads = 8;
  constexpr int kRounds = 50;
  std::atomic<int> answers{0};
  std::atomic<int> went{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        const Call call{.id = round, .email = std::to_string(round) + "@example.com"};
        ledger_->Begin(call.request(), pump_, [&, call](BeginAnswer answer) {
          ++answers;
          if (answer.verdict != V::kGo) {
            EXPECT_EQ(answer.verdict, V::kRecorded);
            EXPECT_EQ(answer.own->answer.user_intent_id, "intent-1");
            return;
          }
          ++went;
          ledger_->Finish(Succeeded(call.key_of()), pump_, [](FinishAnswer end) { EXPECT_TRUE(end.committed); });
        });
      }
    });
  }
  pump_.Until([&] { return answers == kThreads * kRounds; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(went, kRounds);
}

}  // namespace
}  // namespace userintent::ledger
