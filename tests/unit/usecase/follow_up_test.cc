// Which intents are read without anybody asking, and when: distances of watched ones and of others, what ends it, the
// read budget, failures, and a start with a ledger that holds rows already. With a clock, a ledger in memory and an
// Astra of the test's own; nothing sleeps.
#include "server/usecase/follow_up.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/memory_ledger.h"
#include "server/usecase/change_fanout.h"
#include "server/usecase/follow_distance.h"
#include "tests/unit/usecase/fake_loop.h"
#include "tests/unit/usecase/fake_reads.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using astra::ReadVerdict;
using testing::ElementsAre;
using testing::IsEmpty;

// Answers each GET at once, as it was told, and notes when it came.
class PromptAstra final : public astra::Client {
 public:
  explicit PromptAstra(FakeLoop& loop) : loop_(loop) {}

  CallId Create(const v1::CreateUserIntentRequest&, const Uuid&, std::shared_ptr<const Lease>, Done, Done) override {
    ADD_FAILURE() << "a follow-up creates";
    return 0;
  }
  void Get(std::string id, absl::AnyInvocable<void(astra::ReadOutcome)> done) override {
    gets.emplace_back(loop_.Now(), id);
    if (silent) return waiting.push_back(std::move(done));
    loop_.Post([outcome = says, done = std::move(done)]() mutable { done(std::move(outcome)); });
  }
  bool CancelUnsent(CallId) override { return false; }
  bool RefreshCredentials() override { return false; }

  void Say(const std::string& status) { says = Said(status); }
  void Fail(ReadVerdict verdict, int status, std::optional<absl::Duration> retry_after = std::nullopt) {
    says = astra::ReadOutcome();
    says.verdict = verdict;
    says.http_status = status;
    says.retry_after = retry_after;
  }
  static astra::ReadOutcome Said(const std::string& status) {
    astra::ReadOutcome outcome;
    outcome.verdict = ReadVerdict::kRead;
    outcome.http_status = 200;
    outcome.astra_status = status;
    return outcome;
  }

  std::vector<std::pair<SteadyTime, std::string>> gets;
  astra::ReadOutcome says = Said("pending");
  bool silent = false;
  std::vector<absl::AnyInvocable<void(astra::ReadOutcome)>> waiting;

 private:
  FakeLoop& loop_;
};

class FollowUpTest : public testing::Test {
 protected:
  explicit FollowUpTest(double rate = 0)
      : began_(loop_.Now()), reads_(ledger_, admission_, observer_, rate, &FollowUpTest::WallNow) {
    clock_ = this;
    ledger_.SetListener(&fanout_);
  }

  static absl::Time WallNow() { return kWall + absl::FromChrono(clock_->loop_.Now() - clock_->began_); }

  // A FollowUp takes the place of the last one, as after a restart.
  void Start(FollowUp::Options options = {}) {
    if (follow_up_ != nullptr) follow_up_->Stop();
    all_.push_back(std::make_unique<FollowUp>(FollowUp::Dependencies{ledger_,
                                                                     reads_,
                                                                     {loop_, astra_},
                                                                     [this](const std::string& caller, const Uuid& id) {
                                                                       if (watched_.contains({caller, id}))
                                                                         return Watching::kByName;
                                                                       return watched_all_.contains(caller)
                                                                                  ? Watching::kWithAll
                                                                                  : Watching::kNobody;
                                                                     },
                                                                     &FollowUpTest::WallNow},
                                              options));
    follow_up_ = all_.back().get();
    relay_.to = follow_up_;
    follow_up_->Start();
    loop_.Settle();
  }

  static ledger::Key KeyOf(int n, const char* caller = "local") {
    Uuid id{};
    id[14] = static_cast<uint8_t>(n / 256);
    id[15] = static_cast<uint8_t>(n % 256);
    return {caller, id};
  }
  static std::string Intent(int n) { return "intent-" + std::to_string(n); }

  // A creation that ends now.
  void Put(int n, ledger::State state = ledger::State::kSucceeded, const char* status = "pending",
           const char* caller = "local") {
    ledger::BeginRequest begin;
    begin.key = KeyOf(n, caller);
    begin.current.content[0] = begin.current.person[0] = begin.current.email[0] = static_cast<uint8_t>(n);
    begin.current.content[1] = begin.current.person[1] = begin.current.email[1] = static_cast<uint8_t>(n / 256);
    begin.now = WallNow();
    ledger_.Begin(begin, loop_, [](const ledger::BeginAnswer&) {});
    ledger::FinishRequest finish;
    finish.key = begin.key;
    finish.state = state;
    finish.reason = state == ledger::State::kSucceeded ? 0 : v1::ERROR_REASON_UPSTREAM_REJECTED;
    finish.answer.at = finish.now = WallNow();
    if (state == ledger::State::kSucceeded) {
      finish.answer.user_intent_id = Intent(n);
      finish.answer.astra_status = status;
    }
    ledger_.Finish(finish, loop_, [](const ledger::FinishAnswer& answer) { ASSERT_TRUE(answer.committed); });
    loop_.Settle();
  }
  // Somebody else read the intent now.
  void Reading(int n, const std::string& status) {
    ledger::Reading reading;
    reading.astra_status = status;
    reading.read_at = WallNow();
    ledger_.RecordReading(KeyOf(n), reading, loop_, nullptr);
    loop_.Settle();
  }
  void WatchBegins(int n, const char* caller = "local") {
    watched_.insert(KeyOf(n, caller));
    follow_up_->OnWatchBegins(caller, {KeyOf(n, caller).request_id});
    loop_.Settle();
  }
  std::shared_ptr<const ledger::Record> Row(int n) {
    std::shared_ptr<const ledger::Record> row;
    ledger_.Get(KeyOf(n), loop_,
                [&](ledger::GetAnswer answer) { row = std::make_shared<const ledger::Record>(*answer.record); });
    loop_.Settle();
    return row;
  }

  // The GETs of the next while: how long after its beginning, in seconds.
  std::vector<double> GetsWithin(SteadyClock::duration time) {
    const SteadyTime from = loop_.Now();
    const size_t before = astra_.gets.size();
    loop_.Advance(time);
    std::vector<double> times;
    for (size_t i = before; i < astra_.gets.size(); ++i) {
      times.push_back(std::chrono::duration<double>(astra_.gets[i].first - from).count());
    }
    return times;
  }
  size_t CountWithin(SteadyClock::duration time) { return GetsWithin(time).size(); }

  // Hands on to the FollowUp of the moment.
  struct Relay final : ledger::ChangeListener {
    void OnChanges(absl::Span<const ledger::Change> changes) override {
      if (to != nullptr) to->OnChanges(changes);
    }
    FollowUp* to = nullptr;
  };

  static constexpr absl::Time kWall = absl::FromUnixSeconds(1'800'000'000);
  static FollowUpTest* clock_;
  FakeLoop loop_;
  const SteadyTime began_;
  Relay relay_;
  ChangeFanout fanout_ = [this] {
    ChangeFanout fanout;
    fanout.Add(relay_);
    return fanout;
  }();
  PromptAstra astra_{loop_};
  AdmissionControl admission_{AdmissionControl::Options{2, 100ms}};
  ReadWatcher observer_;
  ledger::MemoryLedger ledger_;
  IntentReads reads_;
  std::set<ledger::Key> watched_;
  std::set<std::string> watched_all_;
  std::vector<std::unique_ptr<FollowUp>> all_;
  FollowUp* follow_up_ = nullptr;  // the last one
};

FollowUpTest* FollowUpTest::clock_ = nullptr;

// Each time is within so much of the one that is meant.
void ExpectTimes(const std::vector<double>& times, const std::vector<double>& wanted, double slack) {
  ASSERT_EQ(times.size(), wanted.size()) << testing::PrintToString(times);
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_GE(times[i], wanted[i] - slack) << testing::PrintToString(times);
    EXPECT_LE(times[i], wanted[i] + slack) << testing::PrintToString(times);
  }
}

TEST_F(FollowUpTest, AWatchedIntentIsReadAtOneTwoFourAndSoOnUpToSixtySeconds) {
  Start();
  Put(1);
  WatchBegins(1);
  ExpectTimes(GetsWithin(250s), {1, 3, 7, 15, 31, 63, 123, 183, 243}, 0.5);
  EXPECT_EQ(observer_.askers.back(), Asker::kWatched);
  EXPECT_EQ(observer_.request_ids.back(), KeyOf(1).request_id);
}

TEST_F(FollowUpTest, AStatusThatChangedBeginsAnew) {
  Start();
  Put(1);
  WatchBegins(1);
  EXPECT_EQ(CountWithin(130s), 7u);
  astra_.Say("document");
  GetsWithin(60s);  // by now, it was seen
  EXPECT_EQ(Row(1)->latest.astra_status, "document");
  astra_.gets.clear();
  Reading(1, "approved");  // by somebody else
  astra_.Say("approved");
  ExpectTimes(GetsWithin(20s), {1.2, 3.2, 7.2, 15.2}, 0.5);
}

TEST_F(FollowUpTest, AFinalStatusEndsIt) {
  for (const char* status : {"converted_to_user", "rejected", "suspended"}) {
    Start();
    astra_.Say("pending");
    const int n = static_cast<int>(astra_.gets.size()) + 1;
    Put(n);
    WatchBegins(n);
    EXPECT_EQ(CountWithin(2s), 1u);
    astra_.Say(status);
    EXPECT_EQ(CountWithin(10h), 1u) << status;
    EXPECT_EQ(follow_up_->stats().followed, 0u);
    EXPECT_EQ(Row(n)->latest.astra_status, status);
    watched_.clear();
  }
}

TEST_F(FollowUpTest, AnUnknownWordIsFollowed) {
  Start();
  Put(1, ledger::State::kSucceeded, "napping");
  EXPECT_GT(CountWithin(1h), 2u);
}

TEST_F(FollowUpTest, OthersAreReadAtDoublingDistancesForAsLongAsTheFlagSays) {
  Start();
  Put(1);
  const std::vector<double> times = GetsWithin(8 * 24h);
  ASSERT_GT(times.size(), 15u);
  EXPECT_GE(times[0], 48);
  EXPECT_LE(times[0], 73);
  for (size_t i = 1; i < times.size(); ++i) {
    const double distance = times[i] - times[i - 1];
    const double meant = std::clamp(times[i - 1], 60.0, 6.0 * 3600);
    EXPECT_GE(distance, 0.79 * meant - 1) << i;
    EXPECT_LE(distance, 1.21 * meant + 1) << i;
  }
  EXPECT_LT(times.back(), 168 * 3600);
  EXPECT_GT(times.back(), 160 * 3600);
  EXPECT_LT(times.size(), 50u);
  EXPECT_EQ(follow_up_->stats().followed, 0u);
  EXPECT_EQ(observer_.askers.back(), Asker::kFollowUp);
}

TEST_F(FollowUpTest, WhatBeganTogetherDoesNotStayTogether) {
  Start();
  for (int n = 1; n <= 50; ++n) Put(n);
  const std::vector<double> times = GetsWithin(80s);
  ASSERT_EQ(times.size(), 50u);
  EXPECT_GT(times.back() - times.front(), 10);
}

TEST_F(FollowUpTest, AReadingBySomebodyElseCounts) {
  Start();
  Put(1);
  loop_.Advance(40s);
  Reading(1, "pending");
  EXPECT_EQ(CountWithin(45s), 0u) << "a minute after the creation it was just read";
  EXPECT_EQ(CountWithin(30s), 1u);
  WatchBegins(1);
  loop_.Advance(40s);
  astra_.gets.clear();
  for (int i = 0; i < 100; ++i) {
    Reading(1, "pending");
    loop_.Advance(1s);
  }
  EXPECT_THAT(astra_.gets, IsEmpty()) << "somebody reads it all the time";
}

TEST_F(FollowUpTest, ACreationWithoutAnIntentIsForgotten) {
  Start();
  Put(1, ledger::State::kFailed);
  Put(2, ledger::State::kUnknown);
  EXPECT_EQ(CountWithin(1h), 0u);
  EXPECT_EQ(follow_up_->stats().followed, 0u);
}

TEST_F(FollowUpTest, AStartGoesOnWhereTheLastOneStood) {
  Put(1);
  Put(2, ledger::State::kSucceeded, "converted_to_user");
  Put(3, ledger::State::kFailed);
  loop_.Advance(10h);
  Reading(1, "pending");
  loop_.Advance(1h);
  Start();
  EXPECT_EQ(CountWithin(3h), 0u) << "read an hour ago, and due six hours after that";
  EXPECT_EQ(CountWithin(4h), 1u);
  EXPECT_EQ(astra_.gets.back().second, Intent(1));
  EXPECT_EQ(follow_up_->stats().followed, 1u);
  loop_.Advance(160h);
  Start();
  EXPECT_EQ(CountWithin(24h), 0u) << "older than a week";
}

TEST_F(FollowUpTest, AStartReadsEveryRowInSlices) {
  for (int n = 1; n <= 1203; ++n) Put(n);
  loop_.Advance(10h);
  Start();
  loop_.Advance(10s);
  EXPECT_EQ(astra_.gets.size(), 1203u) << "all of them are due";
  std::set<std::string> read;
  for (const auto& [when, id] : astra_.gets) read.insert(id);
  EXPECT_EQ(read.size(), 1203u);
}

TEST_F(FollowUpTest, WithoutFollowUpOnlyTheWatchedAreRead) {
  Put(1);
  Start({.follow_up = absl::ZeroDuration()});
  Put(2);
  EXPECT_EQ(CountWithin(24h), 0u);
  EXPECT_EQ(follow_up_->stats().followed, 0u);
  WatchBegins(1);
  ExpectTimes(GetsWithin(8s), {1, 3, 7}, 0.5);
  watched_.clear();
  EXPECT_LE(CountWithin(24h), 0u);
  EXPECT_EQ(follow_up_->stats().followed, 0u) << "nobody watches any more";
}

TEST_F(FollowUpTest, ARequestThatIsWatchedBeforeItExistsIsReadFromItsCreationOn) {
  Start();
  WatchBegins(1);
  EXPECT_EQ(CountWithin(1min), 0u);
  Put(1);
  ExpectTimes(GetsWithin(8s), {1.2, 3.2, 7.2}, 0.5);
}

TEST_F(FollowUpTest, WhoWatchesAllHasAllRead) {
  Put(1);
  Put(2);
  Put(3, ledger::State::kSucceeded, "pending", "dns:other");
  for (const absl::Duration follow_up : {absl::Hours(168), absl::Hours(1), absl::ZeroDuration()}) {
    loop_.Advance(2h);
    Start({.follow_up = follow_up});
    loop_.Advance(10s);
    astra_.gets.clear();
    watched_all_.insert("local");
    follow_up_->OnWatchBegins("local", {});
    loop_.Settle();
    loop_.Advance(2s);
    std::set<std::string> read;
    for (const auto& [when, id] : astra_.gets) read.insert(id);
    EXPECT_THAT(read, ElementsAre(Intent(1), Intent(2))) << follow_up;
    EXPECT_EQ(follow_up_->stats().watched, 2u);
    watched_all_.clear();
  }
}

TEST_F(FollowUpTest, AWatchThatEndedGoesOnAsBefore) {
  Start();
  Put(1);
  WatchBegins(1);
  loop_.Advance(10min);
  watched_.clear();
  const std::vector<double> times = GetsWithin(1h);
  ASSERT_FALSE(times.empty());
  EXPECT_LE(times.size(), 5u);
  // Ten minutes after the creation the distance is ten minutes, give or take a fifth, from a reading within the last.
  EXPECT_GE(times.front(), 6.0 * 60);
  EXPECT_LE(times.front(), 13.0 * 60);
}

TEST_F(FollowUpTest, WatchesThatBeginAllTheTimePutNothingOff) {
  Start();
  Put(1);
  for (int i = 0; i < 20; ++i) {
    WatchBegins(1);
    loop_.Advance(500ms);
  }
  EXPECT_GE(astra_.gets.size(), 8u);
  EXPECT_LE(astra_.gets.size(), 11u);
}

TEST_F(FollowUpTest, ARowThatWasForgottenIsNotRead) {
  struct Forgetful final : ledger::Ledger {
    explicit Forgetful(ledger::Ledger& real) : real_(real) {}
    Token Begin(ledger::BeginRequest request, Executor& executor, BeginDone done) override {
      return real_.Begin(std::move(request), executor, std::move(done));
    }
    void Forget(Token token) override { real_.Forget(token); }
    void NextAttempt(ledger::Key, Uuid, ledger::Sent, absl::Time, Executor&, AttemptDone) override {}
    void Finish(ledger::FinishRequest, Executor&, FinishDone) override {}
    void Get(ledger::Key, Executor& executor, GetDone done) override {
      executor.Post([this, done = std::move(done)]() mutable {
        ++asked;
        ledger::GetAnswer answer;
        answer.available = available;
        done(std::move(answer));
      });
    }
    void FindIntent(std::string, std::string, Executor&, GetDone) override {}
    void RecordReading(ledger::Key, ledger::Reading, Executor&, ReadingDone) override {}
    void Settle(ledger::SettleRequest, Executor&, SettleDone) override {}
    void Trace(ledger::TraceRequest, Executor&, TraceDone) override {}
    void ListSucceeded(ledger::SucceededRequest request, Executor& executor, SucceededDone done) override {
      real_.ListSucceeded(request, executor, std::move(done));
    }
    bool Writable() const override { return true; }
    bool available = true;
    int asked = 0;

   private:
    ledger::Ledger& real_;
  };
  Put(1);
  loop_.Advance(1h);
  Forgetful ledger(ledger_);
  ledger.available = false;
  FollowUp follow_up({ledger, reads_, {loop_, astra_}, nullptr, &FollowUpTest::WallNow}, {});
  follow_up.Start();
  loop_.Advance(10min);
  EXPECT_EQ(follow_up.stats().followed, 1u) << "the ledger cannot tell";
  EXPECT_GT(ledger.asked, 3);
  EXPECT_LT(ledger.asked, 20);
  ledger.available = true;
  loop_.Advance(2min);
  EXPECT_EQ(follow_up.stats().followed, 0u);
  EXPECT_THAT(astra_.gets, IsEmpty());
  follow_up.Stop();
}

TEST_F(FollowUpTest, A404IsNoHurry) {
  Start();
  Put(1);
  astra_.Fail(ReadVerdict::kNotFound, 404);
  ExpectTimes(GetsWithin(4h), {60}, 13);
  EXPECT_EQ(follow_up_->stats().followed, 1u) << "one 404 proves no deletion";
  EXPECT_EQ(CountWithin(4h), 1u);
  Put(2);
  WatchBegins(2);
  ExpectTimes(GetsWithin(130s), {1, 61, 121}, 1.5);
}

TEST_F(FollowUpTest, WhileAstraIsAwayItIsAskedRarely) {
  Start();
  for (int n = 1; n <= 200; ++n) Put(n);
  for (int n = 201; n <= 210; ++n) {
    Put(n);
    WatchBegins(n);
  }
  astra_.Fail(ReadVerdict::kUnavailable, 503);
  const size_t asked = CountWithin(1h);
  EXPECT_LT(asked, 300u) << "four at a time, a minute apart";
  EXPECT_GT(asked, 50u);
  astra_.Say("converted_to_user");
  EXPECT_EQ(CountWithin(3min), 210u) << "and everybody, when it is back";
  EXPECT_EQ(follow_up_->stats().followed, 0u);
}

TEST_F(FollowUpTest, RetryAfterIsObeyed) {
  Start();
  for (int n = 1; n <= 20; ++n) {
    Put(n);
    WatchBegins(n);
  }
  astra_.Fail(ReadVerdict::kRateLimited, 429, absl::Minutes(20));
  EXPECT_LE(CountWithin(20min), 4u);
  astra_.Fail(ReadVerdict::kRateLimited, 429, absl::Hours(1000));
  loop_.Advance(10s);
  astra_.Say("converted_to_user");
  EXPECT_EQ(CountWithin(59min), 0u);
  EXPECT_EQ(CountWithin(3min), 20u) << "within reason";
}

TEST_F(FollowUpTest, AFewAtATime) {
  Start();
  for (int n = 1; n <= 20; ++n) {
    Put(n);
    WatchBegins(n);
  }
  astra_.silent = true;
  EXPECT_EQ(CountWithin(1min), 4u);
  std::exchange(astra_.waiting[0], nullptr)(PromptAstra::Said("pending"));
  loop_.Settle();
  EXPECT_EQ(astra_.gets.size(), 5u);
}

TEST_F(FollowUpTest, AWatchThatBeginsDuringAReadingIsServedAfterIt) {
  Start();
  Put(1);
  loop_.Advance(100h);
  astra_.silent = true;
  ASSERT_EQ(CountWithin(10h), 1u);
  astra_.silent = false;
  WatchBegins(1);
  std::exchange(astra_.waiting[0], nullptr)(PromptAstra::Said("pending"));
  ExpectTimes(GetsWithin(8s), {2, 6}, 0.5);
}

TEST_F(FollowUpTest, NothingIsReadOnceItStopped) {
  Start();
  for (int n = 1; n <= 20; ++n) Put(n);
  WatchBegins(1);
  astra_.silent = true;
  loop_.Advance(5s);
  ASSERT_EQ(astra_.gets.size(), 1u);
  follow_up_->Stop();
  reads_.AnswerAll();
  loop_.Settle();
  Put(30);
  follow_up_->OnWatchBegins("local", {KeyOf(2).request_id});
  EXPECT_EQ(CountWithin(24h), 0u);
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(FollowUpTest, ATableThatIsFullSaysSo) {
  Start({.capacity = 10});
  for (int n = 1; n <= 25; ++n) Put(n);
  loop_.Advance(1s);
  EXPECT_EQ(follow_up_->stats().followed, 10u);
  EXPECT_EQ(follow_up_->stats().left_out, 15u);
  WatchBegins(25);
  EXPECT_EQ(CountWithin(2s), 1u) << "who is watched has a place";
}

class FollowUpBudgetTest : public FollowUpTest {
 protected:
  FollowUpBudgetTest() : FollowUpTest(2) {}
};

TEST_F(FollowUpBudgetTest, TheWatchedComeFirstAndAllWithinTheBudget) {
  for (int n = 1; n <= 100; ++n) Put(n);
  loop_.Advance(1h);
  Start();
  loop_.Advance(1s);
  for (int n = 101; n <= 104; ++n) {
    Put(n);
    WatchBegins(n);
  }
  astra_.gets.clear();
  loop_.Advance(10s);
  EXPECT_LE(astra_.gets.size(), 22u) << "two a second";
  EXPECT_GE(astra_.gets.size(), 18u);
  std::map<std::string, int> read;
  for (const auto& [when, id] : astra_.gets) ++read[id];
  for (int n = 101; n <= 104; ++n) EXPECT_GE(read[Intent(n)], 3) << n;
  EXPECT_GT(follow_up_->stats().late, absl::Seconds(8)) << "the others wait";
  loop_.Advance(2min);
  EXPECT_EQ(follow_up_->stats().late, absl::ZeroDuration());
  EXPECT_THAT(observer_.held_back, testing::Not(IsEmpty()));
}

TEST_F(FollowUpBudgetTest, WhoWatchesEverythingPutsNobodyOffWhoNamesOne) {
  Start();
  watched_all_.insert("dns:busy");
  follow_up_->OnWatchBegins("dns:busy", {});
  for (int n = 1; n <= 200; ++n) Put(n, ledger::State::kSucceeded, "pending", "dns:busy");
  loop_.Advance(5s);
  Put(201);
  WatchBegins(201);
  astra_.gets.clear();
  loop_.Advance(10s);
  std::map<std::string, int> read;
  for (const auto& [when, id] : astra_.gets) ++read[id];
  EXPECT_GE(read[Intent(201)], 3);
  EXPECT_GE(read.size(), 10u) << "and the busy one's are read, too";
}

TEST(FollowDistance, OfARowThatNobodyRead) {
  ledger::Record record;  // an operator said that it was created
  record.state = ledger::State::kSucceeded;
  EXPECT_EQ(OtherDistance(record, record.latest), absl::Minutes(1));
}

// One of several processes on the same ledger.
class Replica final : public ledger::Ledger {
 public:
  explicit Replica(ledger::Ledger& shared) : shared_(shared) {}

  Token Begin(ledger::BeginRequest, Executor&, BeginDone) override { return Unused(); }
  void Forget(Token) override { Unused(); }
  void NextAttempt(ledger::Key, Uuid, ledger::Sent, absl::Time, Executor&, AttemptDone) override { Unused(); }
  void Finish(ledger::FinishRequest, Executor&, FinishDone) override { Unused(); }
  void FindIntent(std::string, std::string, Executor&, GetDone) override { Unused(); }
  void Settle(ledger::SettleRequest, Executor&, SettleDone) override { Unused(); }
  void Trace(ledger::TraceRequest, Executor&, TraceDone) override { Unused(); }
  void Get(ledger::Key key, Executor& executor, GetDone done) override {
    shared_.Get(std::move(key), executor, std::move(done));
  }
  void RecordReading(ledger::Key key, ledger::Reading reading, Executor& executor, ReadingDone done) override {
    shared_.RecordReading(std::move(key), std::move(reading), executor, std::move(done));
  }
  void ListSucceeded(ledger::SucceededRequest request, Executor& executor, SucceededDone done) override {
    shared_.ListSucceeded(request, executor, std::move(done));
  }
  bool Writable() const override { return true; }
  ledger::Share share() const override { return part; }

  ledger::Share part;

 private:
  static Token Unused() {
    ADD_FAILURE() << "a follow-up writes";
    return 0;
  }

  ledger::Ledger& shared_;
};

class FollowUpReplicasTest : public FollowUpTest {
 protected:
  struct Process {
    Process(FollowUpReplicasTest& test, int rank, int count, double rate)
        : ledger(test.ledger_), astra(test.loop_), reads(ledger, test.admission_, test.observer_, rate, &WallNow) {
      ledger.part = {rank, count};
      const auto watched = [this](const std::string&, const Uuid& id) {
        return named.contains(id) ? Watching::kByName : Watching::kNobody;
      };
      follow_up = std::make_unique<FollowUp>(
          FollowUp::Dependencies{ledger, reads, {test.loop_, astra}, watched, &WallNow}, FollowUp::Options());
      follow_up->Start();
    }
    Replica ledger;
    PromptAstra astra;
    IntentReads reads;
    std::set<Uuid> named;
    std::unique_ptr<FollowUp> follow_up;
  };

  // All of them hear of all changes.
  void Run(int count, double rate = 0) {
    for (int rank = 0; rank < count; ++rank) {
      processes_.push_back(std::make_unique<Process>(*this, rank, count, rate));
    }
    loop_.Settle();
    fan_.to = &processes_;
    ledger_.SetListener(&fan_);
  }
  void Say(const std::string& status) {
    for (const auto& process : processes_) process->astra.Say(status);
  }
  // How often each intent was read, by the process of each rank.
  std::map<std::string, std::vector<int>> Reads() const {
    std::map<std::string, std::vector<int>> reads;
    for (size_t rank = 0; rank < processes_.size(); ++rank) {
      for (const auto& [when, intent] : processes_[rank]->astra.gets) {
        reads[intent].resize(processes_.size());
        ++reads[intent][rank];
      }
    }
    return reads;
  }
  void ForgetReads() {
    for (const auto& process : processes_) process->astra.gets.clear();
  }

  struct Fan final : ledger::ChangeListener {
    void OnChanges(absl::Span<const ledger::Change> changes) override {
      for (const auto& process : *to) process->follow_up->OnChanges(changes);
    }
    const std::vector<std::unique_ptr<Process>>* to = nullptr;
  };
  Fan fan_;
  std::vector<std::unique_ptr<Process>> processes_;
};

TEST_F(FollowUpReplicasTest, EachIntentIsReadByOneOfThem) {
  Run(3);
  for (int n = 1; n <= 90; ++n) Put(n);
  loop_.Advance(24h);
  std::vector<int> parts(3);
  const auto reads = Reads();
  ASSERT_EQ(reads.size(), 90u);
  for (const auto& [intent, by_rank] : reads) {
    int readers = 0;
    for (size_t rank = 0; rank < by_rank.size(); ++rank) {
      if (by_rank[rank] == 0) continue;
      ++readers;
      ++parts[rank];
      // As a single process does: a minute after the creation, then at distances that double, up to six hours.
      EXPECT_GE(by_rank[rank], 9) << intent;
      EXPECT_LE(by_rank[rank], 18) << intent;
    }
    EXPECT_EQ(readers, 1) << intent;
  }
  for (const int part : parts) EXPECT_GE(part, 15);
}

TEST_F(FollowUpReplicasTest, ThePartOfOneThatIsGoneIsTakenOver) {
  Run(3);
  for (int n = 1; n <= 60; ++n) Put(n);
  loop_.Advance(1h);
  const auto before = Reads();
  processes_[1]->follow_up->Stop();
  processes_[0]->ledger.part = {0, 2};
  processes_[2]->ledger.part = {1, 2};
  ForgetReads();
  loop_.Advance(2h);
  const auto after = Reads();
  int taken_over = 0;
  for (const auto& [intent, by_rank] : before) {
    ASSERT_TRUE(after.contains(intent)) << intent;
    EXPECT_EQ(after.at(intent)[1], 0);
    taken_over += by_rank[1] > 0 ? 1 : 0;
    EXPECT_LE(after.at(intent)[0] + after.at(intent)[2], 3) << intent;
  }
  EXPECT_GE(taken_over, 10);
}

TEST_F(FollowUpReplicasTest, WhatOneOfThemReadsAsFinalAllForget) {
  Run(3);
  for (int n = 1; n <= 30; ++n) Put(n);
  loop_.Advance(10min);
  Say("rejected");
  loop_.Advance(24h);
  for (const auto& process : processes_) EXPECT_EQ(process->follow_up->stats().followed, 0u);
  for (const auto& [intent, by_rank] : Reads()) {
    EXPECT_LE(std::ranges::count_if(by_rank, [](int reads) { return reads > 0; }), 1) << intent;
  }
}

TEST_F(FollowUpReplicasTest, AWatchedIntentIsReadWhereItIsWatchedAndNotTwice) {
  Run(3);
  Put(1);
  for (const auto& process : processes_) {
    ForgetReads();
    process->named.insert(KeyOf(1).request_id);
    process->follow_up->OnWatchBegins("local", {KeyOf(1).request_id});
    loop_.Advance(60s);
    EXPECT_GE(process->astra.gets.size(), 4u) << "1, 3, 7, 15 s and so on";
    process->named.clear();
  }
  for (const auto& process : processes_) {
    process->named.insert(KeyOf(1).request_id);
    process->follow_up->OnWatchBegins("local", {KeyOf(1).request_id});
    loop_.Advance(700ms);
  }
  loop_.Advance(10min);
  ForgetReads();
  loop_.Advance(20min);
  size_t all = 0;
  for (const auto& process : processes_) all += process->astra.gets.size();
  EXPECT_GE(all, 20u);
  EXPECT_LE(all, 27u) << "a minute apart, by whichever";
}

TEST_F(FollowUpReplicasTest, TogetherTheyStayWithinTheBudget) {
  Run(3, /*rate=*/3);
  for (int n = 1; n <= 600; ++n) Put(n);
  loop_.Advance(60s);
  ForgetReads();
  loop_.Advance(60s);
  size_t all = 0;
  for (const auto& process : processes_) all += process->astra.gets.size();
  EXPECT_GE(all, 150u);
  EXPECT_LE(all, 189u);
}

}  // namespace
}  // namespace userintent::usecase
