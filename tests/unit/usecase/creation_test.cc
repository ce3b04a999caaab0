// The state machine of one call, with a clock, a ledger in memory and an Astra of its own: who may send again, when,
// and what the caller hears. Nothing here sleeps.
#include "server/usecase/creation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/memory_ledger.h"
#include "tests/unit/usecase/breaker_fixture.h"
#include "tests/unit/usecase/fake_loop.h"

namespace userintent::usecase {
namespace {

using namespace std::chrono_literals;
using ledger::Sent;
using ledger::State;
using Verdict = astra::Verdict;

class FakeAstra final : public astra::Client {
 public:
  struct Post {
    Uuid attempt_id;
    std::shared_ptr<const Lease> lease;
    Done done;  // empty once it has been answered
    Done late;  // the same for what comes after `done`
  };

  CallId Create(const v1::CreateUserIntentRequest& request, const Uuid& attempt_id, std::shared_ptr<const Lease> lease,
                Done done, Done late) override {
    sent = request;
    posts.push_back({attempt_id, std::move(lease), std::move(done), std::move(late)});
    return posts.size();
  }
  bool CancelUnsent(CallId id) override {
    if (!unsent || !posts[id - 1].done) return false;
    ++cancels;
    loop->Post([this, id] {
      astra::Outcome outcome;
      outcome.verdict = Verdict::kNotSent;
      outcome.cancelled = true;
      std::exchange(posts[id - 1].done, nullptr)(outcome);
    });
    return true;
  }
  void Get(std::string, absl::AnyInvocable<void(astra::ReadOutcome)>) override { ADD_FAILURE() << "a creation reads"; }
  bool RefreshCredentials() override { return std::exchange(new_credentials, false); }
  void TraceNext(const TraceContext& span) override { spans.push_back(span); }

  void Answer(Verdict verdict, int http_status = 0, std::optional<absl::Duration> retry_after = std::nullopt) {
    Answer(OutcomeOf(verdict, http_status, retry_after));
  }
  static astra::Outcome OutcomeOf(Verdict verdict, int http_status, std::optional<absl::Duration> retry_after) {
    astra::Outcome outcome;
    outcome.verdict = verdict;
    outcome.http_status = http_status;
    outcome.retry_after = retry_after;
    if (verdict == Verdict::kCreated) {
      outcome.confirmed = true;
      outcome.user_intent_id = "intent-1";
      outcome.astra_status = "pending";
    }
    return outcome;
  }
  void Answer(const astra::Outcome& outcome) { std::exchange(posts.back().done, nullptr)(outcome); }
  // The `n`th, whatever was begun after it.
  void AnswerNth(size_t n, Verdict verdict, int http_status = 0,
                 std::optional<absl::Duration> retry_after = std::nullopt) {
    std::exchange(posts[n].done, nullptr)(OutcomeOf(verdict, http_status, retry_after));
  }
  // After the time of post `n` is over.
  void AnswerLate(size_t n, Verdict verdict, int http_status = 0,
                  std::optional<absl::Duration> retry_after = std::nullopt) {
    std::exchange(posts[n].late, nullptr)(OutcomeOf(verdict, http_status, retry_after));
  }

  FakeLoop* loop = nullptr;
  std::vector<Post> posts;
  std::vector<TraceContext> spans;
  v1::CreateUserIntentRequest sent;  // by the last POST
  bool unsent = false;               // nothing of the running POST has left
  bool new_credentials = false;
  int cancels = 0;
};

class Watcher final : public CreationObserver {
 public:
  void OnPostBegun() override { ++begun; }
  void OnPost(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome,
              SteadyClock::duration took) override {
    ended.push_back({request_id, attempt_id, outcome.verdict, took});
  }
  void OnRecorded(const Recorded& ended_row) override {
    ++recorded;
    if (!ended_row.told) ++untold;
    if (ended_row.committed) states.push_back(ended_row.record.state);
    trails.push_back(ended_row.trail);
  }
  void OnTraced(const TracedExchange& exchange) override { traced.push_back(exchange); }
  void OnQueueEnd(QueueEnd why, SteadyClock::duration waited) override { queue_ends.emplace_back(why, waited); }
  void OnPersonToldAcross(const ledger::Key& key) override { told_across.push_back(key); }
  void OnProbesLimited(const std::string& caller) override { probing.push_back(caller); }
  void OnLateAnswer(const Uuid&, const Uuid& attempt_id, const astra::Outcome& outcome) override {
    late.emplace_back(attempt_id, outcome.verdict);
  }
  void OnSettled(SettleWay way, const ledger::Key&, const ledger::SettleAnswer& answer) override {
    EXPECT_EQ(way, SettleWay::kLateAnswer);
    settled.push_back(answer.verdict);
  }

  struct Ended {
    Uuid request_id, attempt_id;
    Verdict verdict;
    SteadyClock::duration took;
  };
  int begun = 0;
  int recorded = 0;
  int untold = 0;
  std::vector<TracedExchange> traced;
  std::vector<Ended> ended;
  std::vector<State> states;
  std::vector<Trail> trails;  // of what was recorded
  std::vector<std::pair<QueueEnd, SteadyClock::duration>> queue_ends;
  std::vector<ledger::Key> told_across;
  std::vector<std::string> probing;
  std::vector<std::pair<Uuid, Verdict>> late;
  std::vector<ledger::SettleVerdict> settled;
};

// The ledger in memory, which can be told to fail or to be slow, and which counts what it was told to forget.
class TestLedger final : public ledger::Ledger {
 public:
  Token Begin(ledger::BeginRequest request, Executor& executor, BeginDone done) override {
    if (down) {
      executor.Post([done = std::move(done)]() mutable { done({}); });
      return 1;
    }
    if (owner.epoch != 0) {
      done = [this, done = std::move(done)](ledger::BeginAnswer answer) mutable {
        if (answer.verdict == ledger::BeginVerdict::kGo) answer.owner = owner;
        done(std::move(answer));
      };
    }
    if (slow_to_answer) {
      return real_.Begin(std::move(request), executor, [this, done = std::move(done)](auto answer) mutable {
        held.push_back([done = std::move(done), answer = std::move(answer)]() mutable { done(std::move(answer)); });
      });
    }
    if (slow_to_ask) {
      held.push_back([this, request = std::move(request), &executor, done = std::move(done)]() mutable {
        real_.Begin(std::move(request), executor, std::move(done));
      });
      return 1;
    }
    return real_.Begin(std::move(request), executor, std::move(done));
  }
  // What was held goes on.
  void Release() {
    for (Task& task : std::exchange(held, {})) task();
  }
  void Forget(Token token) override {
    forgotten += token != 0;
    real_.Forget(token);
  }
  void NextAttempt(ledger::Key key, Uuid attempt_id, Sent sent, absl::Time now, Executor& executor,
                   AttemptDone done) override {
    if (down) {
      executor.Post([done = std::move(done)]() mutable { done(false); });
      return;
    }
    real_.NextAttempt(std::move(key), attempt_id, sent, now, executor, std::move(done));
  }
  void Finish(ledger::FinishRequest request, Executor& executor, FinishDone done) override {
    finished_by.push_back(std::exchange(request.owner, 0));  // the ledger in memory knows no owners
    if (slow_to_finish) {
      held.push_back([this, request = std::move(request), &executor, done = std::move(done)]() mutable {
        real_.Finish(std::move(request), executor, std::move(done));
      });
      return;
    }
    real_.Finish(std::move(request), executor, std::move(done));
  }
  void Get(ledger::Key key, Executor& executor, GetDone done) override {
    real_.Get(std::move(key), executor, std::move(done));
  }
  void FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) override {
    real_.FindIntent(std::move(caller), std::move(user_intent_id), executor, std::move(done));
  }
  void RecordReading(ledger::Key key, ledger::Reading reading, Executor& executor, ReadingDone done) override {
    real_.RecordReading(std::move(key), std::move(reading), executor, std::move(done));
  }
  void Settle(ledger::SettleRequest request, Executor& executor, SettleDone done) override {
    proofs.push_back(request);
    if (down || still_runs) {
      const auto verdict = down ? ledger::SettleVerdict::kUnavailable : ledger::SettleVerdict::kStillRuns;
      executor.Post([verdict, done = std::move(done)]() mutable { done({verdict, {}}); });
      return;
    }
    real_.Settle(std::move(request), executor, std::move(done));
  }
  void Trace(ledger::TraceRequest request, Executor& executor, TraceDone done) override {
    real_.Trace(std::move(request), executor, std::move(done));
  }
  void ListSucceeded(ledger::SucceededRequest request, Executor& executor, SucceededDone done) override {
    real_.ListSucceeded(request, executor, std::move(done));
  }
  bool Writable() const override { return !down; }

  bool down = false;
  bool slow_to_ask = false;     // Begin waits before it is looked at
  bool slow_to_answer = false;  // Begin is decided at once, and its answer waits
  bool slow_to_finish = false;  // Finish waits before it is looked at
  bool still_runs = false;      // says so to every proof
  ledger::Owner owner;          // of what Begin lets go
  std::vector<int64_t> finished_by;
  std::vector<ledger::SettleRequest> proofs;
  std::vector<Task> held;
  int forgotten = 0;

 private:
  ledger::MemoryLedger real_;
};

std::string Id(int n) {
  Uuid id{};
  id[15] = static_cast<uint8_t>(n);
  return UuidText(id);
}

v1::CreateUserIntentRequest Person(int n) {
  v1::CreateUserIntentRequest r;
  r.set_request_id(Id(n));
  r.set_email("person" + std::to_string(n) + "@example.com");
  r.set_phone("+14155550123");
  r.set_first_name("Ada");
  r.set_last_name("Example");
  r.set_address1("1 Main Street");
  r.set_city("Palo Alto");
  r.set_state("CA");
  r.set_postal_code("94304");
  r.set_date_of_birth("1985-02-03");
  r.set_ssn_last_four("1234");
  r.set_ip_address("8.8.8.8");
  return r;
}

// A result, flat: one may look at any of its fields.
struct Reply {
  explicit Reply(Result<v1::CreateUserIntentResponse> result) : trail(result.trail()) {
    if (result.ok()) {
      const v1::CreateUserIntentResponse& response = result.value();
      replayed = response.replayed();
      attempts = ledger::Budget{response.attempts().used_min(), response.attempts().used_max()};
      attempt_limit = response.attempts().limit();
      astra_request_id = response.astra_request_id();
      if (response.has_user_intent()) user_intent = response.user_intent();
      return;
    }
    const CallError& error = result.error();
    EXPECT_NE(error.reason, v1::ERROR_REASON_UNSPECIFIED);
    EXPECT_TRUE(error.sent);
    reason = error.reason;
    replayed = error.replayed;
    attempts = error.attempts;
    astra_request_id = error.astra_request_id;
    sent = error.sent.value_or(Sent::kNo);
    recovery = error.recovery;
    retry_after = error.retry_after;
    http_status = error.http_status;
    existing_intent_id = error.existing_intent_id;
    unresolved_request_id = error.unresolved_request_id;
    violations = error.violations;
    message = error.message;
  }
  bool ok() const { return reason == v1::ERROR_REASON_UNSPECIFIED; }

  v1::ErrorReason reason = v1::ERROR_REASON_UNSPECIFIED;
  bool replayed = false;
  std::optional<ledger::Budget> attempts;
  int attempt_limit = 0;  // of answers
  std::string astra_request_id;
  std::optional<v1::UserIntent> user_intent;
  Sent sent = Sent::kNo;
  Recovery recovery = Recovery::kStop;
  absl::Duration retry_after;
  int http_status = 0;
  std::string existing_intent_id;
  std::optional<Uuid> unresolved_request_id;
  std::vector<intent::Violation> violations;
  std::string_view message;
  Trail trail;
};

// What one caller heard.
struct Heard {
  std::shared_ptr<Creation> creation;
  std::optional<Reply> reply;
  int replies = 0;
};

class CreationTest : public testing::Test {
 protected:
  explicit CreationTest(const AdmissionControl::Options& options = {2, 100ms}) : gate_(options) {
    astra_.loop = &loop_;
  }
  // A call that nobody answered holds whoever would hear it, who holds the call.
  ~CreationTest() override {
    for (const auto& call : calls_) {
      if (const auto heard = call.lock()) heard->creation.reset();
    }
  }

  std::shared_ptr<Heard> Call(const v1::CreateUserIntentRequest& request, SteadyClock::duration deadline = 30s,
                              const std::string& caller = "local") {
    auto heard = std::make_shared<Heard>();
    calls_.push_back(heard);
    auto access = std::make_shared<policy::Access>();
    access->account = account_;
    heard->creation = Creation::Start(*creations_, {caller, request, loop_.Now() + deadline,
                                                    [heard](Result<v1::CreateUserIntentResponse> result) {
                                                      heard->reply.emplace(std::move(result));
                                                      ++heard->replies;
                                                    },
                                                    std::move(access)});
    EXPECT_FALSE(heard->reply) << "replied from inside Start";
    loop_.Settle();
    return heard;
  }

  State RowState(int n) { return Row(n).state; }

  bool HasRow(int n) {
    bool has = false;
    ledger_.Get({"local", *ParseUuid(Id(n))}, loop_,
                [&](ledger::GetAnswer answer) { has = answer.record.has_value(); });
    loop_.Settle();
    return has;
  }

  ledger::Record Row(int n) {
    std::optional<ledger::GetAnswer> got;
    ledger_.Get({"local", *ParseUuid(Id(n))}, loop_, [&](ledger::GetAnswer answer) { got = std::move(answer); });
    loop_.Settle();
    EXPECT_TRUE(got && got->record) << "no row";
    return got && got->record ? *got->record : ledger::Record();
  }

  FakeLoop loop_;
  FakeAstra astra_;
  TestLedger ledger_;
  AdmissionControl gate_;
  AdmissionControl::Account account_;  // of who calls; null: no limits
  intent::Fingerprinter fingerprinter_{Secret(std::string(32, 'k'))};
  Watcher observer_;
  Creations::Dependencies deps_{loop_, ledger_, astra_, gate_, fingerprinter_, observer_, intent::RulesOptions{},
                                3,     5min};
  std::optional<Creations> creations_{std::in_place, deps_};
  std::vector<std::weak_ptr<Heard>> calls_;
};

TEST_F(CreationTest, CreatesOnceAndReplays) {
  const auto first = Call(Person(1));
  ASSERT_EQ(astra_.posts.size(), 1u);
  EXPECT_FALSE(first->reply);
  astra_.Answer(Verdict::kCreated, 201);
  EXPECT_FALSE(first->reply) << "heard before it was recorded";
  loop_.Settle();
  ASSERT_TRUE(first->reply && first->reply->ok());
  EXPECT_EQ(first->reply->user_intent->id(), "intent-1");
  EXPECT_FALSE(first->reply->replayed);
  EXPECT_EQ(first->reply->attempts->used_min, 1);

  const auto second = Call(Person(1));
  ASSERT_TRUE(second->reply && second->reply->ok());
  EXPECT_TRUE(second->reply->replayed);
  EXPECT_EQ(second->reply->user_intent->id(), "intent-1");
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_EQ(loop_.timers(), 0u) << "a timer outlives its call";
  EXPECT_EQ(creations_->unanswered(), 0u);
}

TEST_F(CreationTest, TheAnswerTellsWhatWasDoneForIt) {
  const auto first = Call(Person(1));
  loop_.Advance(40ms);
  astra::Outcome outcome = FakeAstra::OutcomeOf(Verdict::kUnavailable, 503, absl::Seconds(1));
  outcome.astra_request_id = "req-1";
  astra_.Answer(outcome);
  loop_.Settle();
  loop_.Advance(1s);
  ASSERT_EQ(astra_.posts.size(), 2u);
  loop_.Advance(20ms);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_TRUE(first->reply && first->reply->ok());
  const Trail& trail = first->reply->trail;
  EXPECT_EQ(trail.posts, 2);
  EXPECT_EQ(trail.attempt_id, astra_.posts[1].attempt_id);
  EXPECT_EQ(trail.http_status, 201);
  EXPECT_EQ(trail.astra_request_id, "");  // of the last answer
  EXPECT_EQ(trail.upstream, 60ms);        // without the wait between them
  EXPECT_TRUE(trail.begin && trail.finish);
  EXPECT_EQ(observer_.untold, 0);

  const auto second = Call(Person(1));
  EXPECT_EQ(second->reply->trail.posts, 0);
  EXPECT_FALSE(second->reply->trail.attempt_id);
  EXPECT_TRUE(second->reply->trail.begin);
  EXPECT_FALSE(second->reply->trail.finish);
  EXPECT_TRUE(astra_.spans.empty()) << "nobody asked for a trace";
}

TEST_F(CreationTest, AnOutcomeThatNobodyHearsIsTold) {
  const auto call = Call(Person(1));
  loop_.Advance(40ms);
  const Trail left = call->creation->CallerLeft();
  EXPECT_EQ(left.posts, 1);
  EXPECT_EQ(left.attempt_id, astra_.posts[0].attempt_id);
  EXPECT_EQ(left.upstream, 40ms);
  EXPECT_EQ(left.sent, Sent::kMaybe);
  EXPECT_TRUE(left.begin);
  EXPECT_FALSE(left.finish);
  loop_.Advance(20ms);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(observer_.recorded, 1);
  EXPECT_EQ(observer_.untold, 1);
  ASSERT_EQ(observer_.trails.size(), 1u);
  EXPECT_EQ(observer_.trails[0].attempt_id, left.attempt_id);
  EXPECT_EQ(observer_.trails[0].upstream, 60ms);
  EXPECT_TRUE(observer_.trails[0].finish);
}

TEST_F(CreationTest, WhatIsKnownWhenACallerLeaves) {
  const auto waits = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(5));
  loop_.Settle();
  const Trail left = waits->creation->CallerLeft();
  EXPECT_EQ(left.sent, Sent::kYes);
  EXPECT_EQ(left.http_status, 503);
  loop_.Settle();
  astra_.unsent = true;
  EXPECT_EQ(Call(Person(2))->creation->CallerLeft().sent, Sent::kNo);
  loop_.Settle();
  astra_.unsent = false;
  Call(Person(3));
  EXPECT_FALSE(Call(Person(3))->creation->CallerLeft().sent) << "of a call that joined, another one knows";
}

TEST_F(CreationTest, WhoIsAnsweredBeforeThePostEndsHearsHowLongItHasTaken) {
  const auto call = Call(Person(1), 1s);
  loop_.Advance(1s);
  ASSERT_TRUE(call->reply);
  EXPECT_EQ(call->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  EXPECT_GE(call->reply->trail.upstream, 900ms);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_EQ(observer_.trails.size(), 1u);
  EXPECT_EQ(observer_.trails[0].upstream, 1s);
  EXPECT_EQ(observer_.trails[0].attempt_id, astra_.posts[0].attempt_id);
}

TEST_F(CreationTest, EveryPostOfATracedCallIsAChildOfItsSpan) {
  for (const bool sampled : {true, false}) {
    astra_.spans.clear();
    observer_.traced.clear();
    const TraceContext trace{NewTraceId(), NewSpanId(), sampled};
    CreateCall call{"local", Person(sampled ? 1 : 2), loop_.Now() + 30s, [](const auto&) {}};
    call.trace = trace;
    const auto creation = Creation::Start(*creations_, std::move(call));
    loop_.Settle();
    astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
    loop_.Settle();
    loop_.Advance(1s);
    astra_.Answer(Verdict::kCreated, 201);
    loop_.Settle();
    ASSERT_EQ(astra_.spans.size(), 2u);
    for (const TraceContext& span : astra_.spans) {
      EXPECT_EQ(span.trace_id, trace.trace_id);
      EXPECT_EQ(span.sampled, sampled);
      EXPECT_NE(span.span_id, trace.span_id);
    }
    EXPECT_NE(astra_.spans[0].span_id, astra_.spans[1].span_id);
    ASSERT_EQ(observer_.traced.size(), sampled ? 2u : 0u);
    for (size_t i = 0; i < observer_.traced.size(); ++i) {
      EXPECT_EQ(observer_.traced[i].span.span_id, astra_.spans[i].span_id);
      EXPECT_EQ(observer_.traced[i].parent, trace.span_id);
      EXPECT_TRUE(observer_.traced[i].post);
      EXPECT_EQ(observer_.traced[i].http_status, i == 0 ? 503 : 201);
    }
  }
}

TEST_F(CreationTest, TheVerificationTypeIsKeptAsItWasAsked) {
  const std::pair<v1::VerificationType, v1::VerificationType> types[] = {
      {v1::VERIFICATION_TYPE_UNSPECIFIED, v1::VERIFICATION_TYPE_VERIFIED},  // Astra's default
      {v1::VERIFICATION_TYPE_VERIFIED, v1::VERIFICATION_TYPE_VERIFIED},
      {v1::VERIFICATION_TYPE_UNVERIFIED, v1::VERIFICATION_TYPE_UNVERIFIED},
      {v1::VERIFICATION_TYPE_RECEIVE_ONLY, v1::VERIFICATION_TYPE_RECEIVE_ONLY}};
  int n = 0;
  for (const auto& [asked, kept] : types) {
    v1::CreateUserIntentRequest request = Person(++n);
    request.set_verification_type(asked);
    const auto heard = Call(request);
    astra_.Answer(Verdict::kCreated, 201);
    loop_.Settle();
    ASSERT_TRUE(heard->reply && heard->reply->ok());
    EXPECT_EQ(heard->reply->user_intent->verification_type(), kept);
    EXPECT_EQ(heard->reply->user_intent->status_time().seconds(), heard->reply->user_intent->create_time().seconds());
    EXPECT_EQ(heard->reply->user_intent->user_id(), "");
    EXPECT_EQ(Row(n).verification_type, kept);
  }
}

TEST_F(CreationTest, ATryBeginsOnlyWithEnoughTimeLeft) {
  const auto fits = Call(Person(1), 5s);
  astra_.Answer(Verdict::kUnavailable, 503, absl::Milliseconds(5000 - 50 - 100));
  loop_.Settle();
  EXPECT_FALSE(fits->reply);
  const auto late = Call(Person(2), 5s);
  astra_.Answer(Verdict::kUnavailable, 503, absl::Milliseconds(5000 - 50 - 99));
  loop_.Settle();
  ASSERT_TRUE(late->reply);
  EXPECT_EQ(late->reply->reason, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
}

TEST_F(CreationTest, TriesAreSpread) {
  for (int n = 1; n <= 20; ++n) {
    Call(Person(n));
    astra_.Answer(Verdict::kNotSent);
    const size_t posts = astra_.posts.size();
    loop_.Advance(1ms);
    if (astra_.posts.size() == posts) return;  // a wait
    astra_.Answer(Verdict::kCreated, 201);
    loop_.Settle();
  }
  ADD_FAILURE() << "no jitter";
}

TEST_F(CreationTest, JoinsTheRunningCall) {
  const auto first = Call(Person(1));
  const auto second = Call(Person(1));
  const auto third = Call(Person(1));
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(gate_.in_flight(), 1) << "a join holds no place";
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_FALSE(first->reply->replayed);
  EXPECT_TRUE(second->reply->replayed);
  EXPECT_TRUE(third->reply->replayed);
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, AnyNumberOfJoinsKeepsNobodyOut) {
  const auto first = Call(Person(1));
  std::vector<std::shared_ptr<Heard>> joins;
  for (int i = 0; i < 60; ++i) joins.push_back(Call(Person(1)));
  EXPECT_EQ(gate_.in_flight(), 1);
  const auto other = Call(Person(2));
  EXPECT_FALSE(other->reply) << "heard " << (other->reply ? other->reply->reason : 0);
  EXPECT_EQ(astra_.posts.size(), 2u);
}

TEST_F(CreationTest, ReplaysAndJoinsWorkWhileTheGateIsFull) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  Call(Person(2));
  const auto last = Call(Person(3));
  ASSERT_EQ(gate_.in_flight(), 2);
  ASSERT_EQ(Call(Person(4))->reply->reason, v1::ERROR_REASON_OVERLOADED);
  const auto joined = Call(Person(3));
  EXPECT_FALSE(joined->reply);
  const auto replay = Call(Person(1));
  EXPECT_TRUE(replay->reply && replay->reply->ok());
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(joined->reply && joined->reply->ok());
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_EQ(astra_.posts.size(), 3u);
}

TEST_F(CreationTest, OneJoinTooManyIsToldAtOnceThatTheRequestRuns) {
  Call(Person(1));
  std::vector<std::shared_ptr<Heard>> joins;
  for (int i = 0; i < 64; ++i) joins.push_back(Call(Person(1)));
  for (const auto& join : joins) EXPECT_FALSE(join->reply);
  const auto beyond = Call(Person(1));
  ASSERT_TRUE(beyond->reply);
  EXPECT_EQ(beyond->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  EXPECT_EQ(beyond->reply->sent, Sent::kMaybe);
  EXPECT_EQ(beyond->reply->recovery, Recovery::kAskSameId);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  for (const auto& join : joins) EXPECT_TRUE(join->reply && join->reply->ok());
  EXPECT_EQ(astra_.posts.size(), 1u);
}

TEST_F(CreationTest, ACallThatWaitsForAnotherPutsItsRequestAway) {
  const auto first = Call(Person(1));
  const auto joined = Call(Person(1));
  EXPECT_TRUE(first->creation->holds_request());
  EXPECT_FALSE(joined->creation->holds_request());
}

TEST_F(CreationTest, JoinsThatEndEarlyGiveTheirPlaceBack) {
  const auto first = Call(Person(1));
  const auto late = Call(Person(1), 1s);
  loop_.Advance(2s);
  EXPECT_EQ(late->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  EXPECT_EQ(ledger_.forgotten, 1);
  EXPECT_EQ(gate_.in_flight(), 1);
  const auto left = Call(Person(1));
  left->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(gate_.in_flight(), 1);
}

TEST_F(CreationTest, InvalidFieldsLeaveNoTrace) {
  auto request = Person(1);
  request.set_email("nobody");
  const auto heard = Call(request);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_FIELD_INVALID);
  EXPECT_EQ(heard->reply->violations.size(), 1u);
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(CreationTest, TriesToConnectThreeTimesWithOneAttemptId) {
  const auto heard = Call(Person(1));
  for (size_t tries = 1; tries <= 3; ++tries) {
    ASSERT_EQ(astra_.posts.size(), tries);
    EXPECT_FALSE(heard->reply);
    astra_.Answer(Verdict::kNotSent);
    loop_.Advance(3s);
  }
  EXPECT_EQ(astra_.posts.size(), 3u);
  EXPECT_EQ(astra_.posts[0].attempt_id, astra_.posts[2].attempt_id) << "no POST left, so it is the same one";
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_EQ(RowState(1), State::kReleased);

  const auto again = Call(Person(1));
  EXPECT_EQ(astra_.posts.size(), 4u) << "a released row may be sent by a repeat";
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(again->reply->ok());
  EXPECT_FALSE(again->reply->replayed);
}

TEST_F(CreationTest, DoesNotRepeatAnUntrustedCertificate) {
  const auto heard = Call(Person(1));
  astra::Outcome outcome;
  outcome.verdict = Verdict::kNotSent;
  outcome.repeat_pointless = true;
  astra_.Answer(outcome);
  loop_.Advance(5s);
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
}

TEST_F(CreationTest, TheLeaseGoesWithEveryTryAndTheEpochWithTheEnd) {
  const auto lease = std::make_shared<Lease>();
  ledger_.owner = {7, lease};
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kNotSent);
  loop_.Advance(3s);
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(1));
  loop_.Advance(2s);
  ASSERT_EQ(astra_.posts.size(), 3u);
  for (const auto& post : astra_.posts) EXPECT_EQ(post.lease, lease);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_TRUE(heard->reply && heard->reply->ok());
  EXPECT_EQ(ledger_.finished_by, (std::vector<int64_t>{7}));
  ledger_.owner = {8, nullptr};
  Call(Person(2));
  EXPECT_EQ(astra_.posts.back().lease, nullptr);
}

// What nobody waits for any more is released by its owner, too.
TEST_F(CreationTest, ARowThatGoesBackUnsentGoesBackByItsOwner) {
  ledger_.owner = {7, std::make_shared<Lease>()};
  ledger_.slow_to_answer = true;
  const auto heard = Call(Person(1));
  heard->creation->CallerLeft();
  ledger_.Release();
  loop_.Settle();
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(ledger_.finished_by, (std::vector<int64_t>{7}));
}

TEST_F(CreationTest, ALeaseThatIsOverEndsTheCallUnsent) {
  const auto heard = Call(Person(1));
  astra::Outcome outcome;
  outcome.verdict = Verdict::kNotSent;
  outcome.repeat_pointless = true;
  outcome.lease_over = true;
  astra_.Answer(outcome);
  loop_.Advance(5s);
  EXPECT_EQ(astra_.posts.size(), 1u) << "no other try";
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_EQ(heard->reply->recovery, Recovery::kRetrySameId);
  EXPECT_EQ(RowState(1), State::kReleased);
}

// A try that Astra refused was sent, though the one after it never was.
TEST_F(CreationTest, ALeaseThatEndsBetweenTwoTriesForgetsNoTry) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(1));
  loop_.Advance(2s);
  ASSERT_EQ(astra_.posts.size(), 2u);
  astra::Outcome outcome;
  outcome.verdict = Verdict::kNotSent;
  outcome.lease_over = true;
  astra_.Answer(outcome);
  loop_.Advance(5s);
  EXPECT_EQ(astra_.posts.size(), 2u);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, RateLimitedGetsOneMoreTryAfterRetryAfter) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(2));
  loop_.Advance(1999ms);
  EXPECT_EQ(astra_.posts.size(), 1u) << "too early";
  loop_.Advance(2ms);
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_NE(astra_.posts[0].attempt_id, astra_.posts[1].attempt_id) << "another POST has another id";
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(7));
  loop_.Advance(10s);
  EXPECT_EQ(astra_.posts.size(), 2u) << "one more, not two";
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  EXPECT_EQ(heard->reply->retry_after, absl::Seconds(7));
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, RateLimitThatDoesNotFitTheDeadlineIsReportedAtOnce) {
  const auto heard = Call(Person(1), 5s);
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(5));
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->retry_after, absl::Seconds(5));
}

TEST_F(CreationTest, RateLimitHoldsOthersBackButNotReplays) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  Call(Person(2));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(20));
  loop_.Settle();
  const auto other = Call(Person(3));
  ASSERT_TRUE(other->reply);
  EXPECT_EQ(other->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  EXPECT_EQ(other->reply->sent, Sent::kNo);
  EXPECT_GT(other->reply->retry_after, absl::Seconds(19));
  EXPECT_EQ(astra_.posts.size(), 2u);
  EXPECT_TRUE(Call(Person(1))->reply->ok());
  loop_.Advance(21s);  // the one more try of person 2 has gone out
  EXPECT_EQ(astra_.posts.size(), 3u);
  Call(Person(3));
  EXPECT_EQ(astra_.posts.size(), 4u) << "the hold is over";
}

TEST_F(CreationTest, ALongerHoldOfAnotherCallsHoldsTheNextTryToo) {
  const auto first = Call(Person(1));
  const auto second = Call(Person(2));
  astra_.AnswerNth(0, Verdict::kRateLimited, 429, absl::Seconds(2));
  loop_.Advance(1s);
  astra_.AnswerNth(1, Verdict::kRateLimited, 429, absl::Seconds(12));
  loop_.Advance(11999ms);
  EXPECT_EQ(astra_.posts.size(), 2u) << "everybody is held back";
  loop_.Advance(1ms);
  ASSERT_EQ(astra_.posts.size(), 4u);
  astra_.AnswerNth(2, Verdict::kCreated, 201);
  astra_.AnswerNth(3, Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(first->reply->ok());
  EXPECT_TRUE(second->reply->ok());
}

TEST_F(CreationTest, AHoldThatDoesNotFitTheDeadlineEndsTheWait) {
  const auto first = Call(Person(1), 6s);
  const auto joined = Call(Person(1), 6s);
  Call(Person(2));
  astra_.AnswerNth(0, Verdict::kRateLimited, 429, absl::Seconds(2));
  loop_.Advance(1s);
  astra_.AnswerNth(1, Verdict::kRateLimited, 429, absl::Seconds(12));
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 2u);
  for (const auto& heard : {first, joined}) {
    ASSERT_TRUE(heard->reply);
    EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
    EXPECT_EQ(heard->reply->sent, Sent::kYes);
    EXPECT_EQ(heard->reply->retry_after, absl::Seconds(11)) << "what is left of the hold";
  }
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, TriesToConnectAreHeldBackAsWell) {
  const auto first = Call(Person(1));
  Call(Person(2));
  astra_.AnswerNth(0, Verdict::kNotSent);
  astra_.AnswerNth(1, Verdict::kRateLimited, 429, absl::Seconds(10));
  loop_.Advance(9s);
  EXPECT_EQ(astra_.posts.size(), 2u);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 4u);
}

TEST_F(CreationTest, CallerWhoLeavesDuringTheWaitGetsNoFurtherTry) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(2));
  loop_.Settle();
  heard->creation->CallerLeft();
  loop_.Advance(10s);
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(RowState(1), State::kReleased);
  EXPECT_EQ(heard->replies, 0);
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, UnavailableWithRetryAfterGetsOneMoreTryAndHoldsNobodyBack) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Settle();
  Call(Person(2));
  EXPECT_EQ(astra_.posts.size(), 2u);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Advance(1s);
  ASSERT_EQ(astra_.posts.size(), 3u);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(heard->reply->ok());
}

TEST_F(CreationTest, ARefusedStreamIsTriedAgainAtOnceUnderAnotherAttemptId) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRefused, 0);
  loop_.Advance(100ms);
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_NE(astra_.posts[0].attempt_id, astra_.posts[1].attempt_id);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(heard->reply->ok());
}

TEST_F(CreationTest, RefusedSixTimesIsReleasedAndMayBeSentByARepeat) {
  const auto heard = Call(Person(1), 30s);
  for (size_t tries = 1; tries <= 6; ++tries) {
    ASSERT_EQ(astra_.posts.size(), tries);
    EXPECT_EQ(Row(1).attempt_id, astra_.posts.back().attempt_id) << "on disk before it leaves";
    astra_.Answer(Verdict::kRefused, 0);
    loop_.Advance(2s);
  }
  EXPECT_EQ(astra_.posts.size(), 6u) << "six tries, not seven";
  EXPECT_EQ(RowState(1), State::kReleased);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
  const auto again = Call(Person(1));
  ASSERT_EQ(astra_.posts.size(), 7u);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(again->reply->ok());
}

TEST_F(CreationTest, RefusedStreamsAreTriedWhileTheDeadlineAllows) {
  // However long the backoff would be: what is left is enough for a try.
  const auto heard = Call(Person(1), 400ms);
  size_t refused = 0;
  for (int ms = 0; ms < 400; ms += 5) {
    if (astra_.posts.size() > refused) {
      astra_.Answer(Verdict::kRefused, 0);
      ++refused;
    }
    loop_.Advance(5ms);
  }
  EXPECT_GE(astra_.posts.size(), 2u);
  loop_.Advance(1s);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(gate_.in_flight(), 0);
}

// Each kind of proof has its own count: a refused stream takes no connection attempt away, nor the one more try of 503.
TEST_F(CreationTest, RefusedStreamsDoNotUseUpTheOtherTries) {
  const auto heard = Call(Person(1), 60s);
  for (const Verdict verdict : {Verdict::kRefused, Verdict::kRefused, Verdict::kNotSent, Verdict::kUnavailable}) {
    astra_.Answer(verdict, verdict == Verdict::kUnavailable ? 503 : 0, absl::Seconds(1));
    loop_.Advance(2s);
  }
  ASSERT_EQ(astra_.posts.size(), 5u);
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Advance(2s);
  EXPECT_EQ(astra_.posts.size(), 5u) << "503 has one more try";
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);

  Call(Person(2), 60s);
  for (int i = 0; i < 3; ++i) {
    astra_.Answer(Verdict::kNotSent);
    loop_.Advance(3s);
  }
  EXPECT_EQ(astra_.posts.size(), 8u) << "three connection attempts";
}

TEST_F(CreationTest, RefusedCredentialsGetOneMoreTryOnlyWithOthers) {
  auto heard = Call(Person(1));
  astra_.Answer(Verdict::kCredentialsRejected, 401);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 1u) << "the same credentials again";
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED);
  EXPECT_EQ(RowState(1), State::kReleased);

  heard = Call(Person(1));
  astra_.new_credentials = true;
  astra_.Answer(Verdict::kCredentialsRejected, 401);
  loop_.Advance(1ms);
  ASSERT_EQ(astra_.posts.size(), 3u);
  astra_.new_credentials = true;
  astra_.Answer(Verdict::kCredentialsRejected, 401);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 3u) << "once";
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED);

  heard = Call(Person(1));
  astra_.new_credentials = true;
  astra_.Answer(Verdict::kCredentialsRejected, 403);
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 4u) << "403 is not about the secret";
}

TEST_F(CreationTest, UnknownIsForEver) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnknown);
  loop_.Settle();
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
  EXPECT_EQ(heard->reply->recovery, Recovery::kAskSameId);
  for (int i = 0; i < 3; ++i) {
    const auto again = Call(Person(1));
    EXPECT_EQ(again->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
    EXPECT_TRUE(again->reply->replayed);
  }
  EXPECT_EQ(astra_.posts.size(), 1u);
}

TEST_F(CreationTest, SentIsTheStrongestOfAllTries) {
  auto heard = Call(Person(1), 5s);
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(10));
  loop_.Advance(11s);
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
  heard = Call(Person(1));
  for (int i = 0; i < 3; ++i) {
    astra_.Answer(Verdict::kNotSent);
    loop_.Advance(3s);
  }
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
}

TEST_F(CreationTest, DeadlineIsAnsweredAndTheExchangeRunsOn) {
  const auto first = Call(Person(1), 2s);
  const auto joined = Call(Person(1), 1s);
  loop_.Advance(949ms);
  EXPECT_FALSE(joined->reply);
  loop_.Advance(2ms);
  ASSERT_TRUE(joined->reply);
  EXPECT_EQ(joined->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  loop_.Advance(1s);
  ASSERT_TRUE(first->reply);
  EXPECT_EQ(first->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  EXPECT_EQ(first->reply->sent, Sent::kMaybe);
  EXPECT_EQ(RowState(1), State::kSending);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSucceeded);
  EXPECT_EQ(first->replies, 1);
  EXPECT_TRUE(Call(Person(1))->reply->ok());
}

TEST_F(CreationTest, DeadlineBeforeAnythingIsSentReleases) {
  const auto heard = Call(Person(1), 1s);
  astra_.unsent = true;
  loop_.Advance(1s);
  EXPECT_EQ(astra_.cancels, 1);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, CancelAfterTheFirstByteStopsNothing) {
  const auto heard = Call(Person(1));
  heard->creation->CallerLeft();
  loop_.Advance(1s);
  EXPECT_EQ(RowState(1), State::kSending);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSucceeded);
  EXPECT_EQ(heard->replies, 0);
}

TEST_F(CreationTest, JoinTakesThePlaceOfACallerThatLeftUnsent) {
  const auto first = Call(Person(1));
  const auto joined = Call(Person(1));
  astra_.unsent = true;
  first->creation->CallerLeft();
  loop_.Settle();
  ASSERT_EQ(astra_.posts.size(), 2u) << "the one that waits sends in its own name";
  EXPECT_EQ(astra_.sent.SerializeAsString(), Person(1).SerializeAsString()) << "and everything that it was given";
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_FALSE(joined->reply);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_TRUE(joined->reply && joined->reply->ok());
  EXPECT_FALSE(joined->reply->replayed) << "its POST it was";
}

// The deadline is nearly over, and nobody knows yet whether there is a row.
TEST_F(CreationTest, ANearDeadlineThatFindsNoRowIsTooShort) {
  ledger_.slow_to_ask = true;
  const auto heard = Call(Person(1), 20ms);
  loop_.Advance(15ms);
  EXPECT_FALSE(heard->reply) << "answered without asking";
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_EQ(gate_.in_flight(), 0);
  ledger_.slow_to_ask = false;
  EXPECT_FALSE(Call(Person(1))->reply) << "the id is free";
  EXPECT_EQ(astra_.posts.size(), 1u);
}

TEST_F(CreationTest, ADeadlineThatEndsWhileTheLedgerIsAskedStartsNothing) {
  ledger_.slow_to_ask = true;
  const auto heard = Call(Person(1), 500ms);
  loop_.Advance(460ms);
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_FALSE(HasRow(1));
}

TEST_F(CreationTest, ADeadlineThatEndsWhileTheRowIsWrittenSendsNothing) {
  ledger_.slow_to_answer = true;
  const auto heard = Call(Person(1), 500ms);
  loop_.Advance(460ms);
  EXPECT_FALSE(heard->reply);
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(RowState(1), State::kReleased);
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, ANearDeadlineThatFindsARunningRowIsToldSo) {
  Call(Person(1));
  ledger_.slow_to_ask = true;
  const auto heard = Call(Person(1), 20ms);
  loop_.Advance(15ms);
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  EXPECT_EQ(heard->reply->sent, Sent::kMaybe);
}

TEST_F(CreationTest, ANearDeadlineStillHearsARecordedOutcome) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ledger_.slow_to_ask = true;
  const auto heard = Call(Person(1), 20ms);
  loop_.Advance(15ms);
  ledger_.Release();
  loop_.Settle();
  EXPECT_TRUE(heard->reply && heard->reply->ok());
}

TEST_F(CreationTest, ALedgerThatSaysNothingIsUnavailable) {
  ledger_.slow_to_answer = true;
  const auto heard = Call(Person(1), 30s);
  loop_.Advance(29'951ms);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  EXPECT_EQ(heard->reply->retry_after, absl::Seconds(2));
  ledger_.Release();
  loop_.Settle();
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(RowState(1), State::kReleased);
  EXPECT_EQ(heard->replies, 1);
}

TEST_F(CreationTest, ASecondOfSilenceIsEnoughToSaySo) {
  ledger_.slow_to_answer = true;
  const auto heard = Call(Person(1), 1050ms);
  const auto sooner = Call(Person(2), 1049ms);
  loop_.Advance(1000ms);
  EXPECT_TRUE(heard->reply);
  EXPECT_FALSE(sooner->reply);
}

TEST_F(CreationTest, AJoinThatMustSendAfterAllCanBeLateToo) {
  const auto first = Call(Person(1));
  const auto joined = Call(Person(1), 500ms);
  astra_.unsent = true;
  ledger_.slow_to_ask = true;
  first->creation->CallerLeft();
  loop_.Settle();
  loop_.Advance(460ms);
  EXPECT_FALSE(joined->reply);
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(joined->reply);
  EXPECT_EQ(joined->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT) << "nothing runs any more";
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, CallerWhoLeavesBeforeTheLedgerLooksLeavesNoRow) {
  ledger_.slow_to_ask = true;
  auto heard = Call(Person(1));
  heard->creation->CallerLeft();
  ledger_.Release();
  loop_.Settle();
  EXPECT_FALSE(HasRow(1));
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_EQ(creations_->unanswered(), 0u);
}

TEST_F(CreationTest, CallerWhoLeavesWhileTheLedgerWritesSendsNothing) {
  auto heard = std::make_shared<Heard>();
  heard->creation =
      Creation::Start(*creations_, {"local", Person(1), loop_.Now() + 30s, [heard](auto) { ++heard->replies; }});
  heard->creation->CallerLeft();
  loop_.Settle();
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(RowState(1), State::kReleased);
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, RefusalsLeaveNoRowAndComeAfterTheLedgersAnswers) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();

  const auto late = Call(Person(2), 99ms);
  ASSERT_TRUE(late->reply);
  EXPECT_EQ(late->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_TRUE(Call(Person(1), 99ms)->reply->ok()) << "replays need no time";

  Call(Person(3));
  Call(Person(4));
  EXPECT_EQ(Call(Person(5))->reply->reason, v1::ERROR_REASON_OVERLOADED);
  EXPECT_TRUE(Call(Person(1))->reply->ok());
  auto reused = Person(1);
  reused.set_city("Elsewhere");
  EXPECT_EQ(Call(reused)->reply->reason, v1::ERROR_REASON_REQUEST_ID_REUSED);

  gate_.Drain();
  const auto drained = Call(Person(6));
  EXPECT_EQ(drained->reply->reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(drained->reply->sent, Sent::kNo);
  EXPECT_FALSE(drained->reply->attempts) << "a refusal that costs nothing tells nothing of the address";
  EXPECT_TRUE(Call(Person(1))->reply->ok());
  auto same_person = Person(1);
  same_person.set_request_id(Id(7));
  const auto exists = Call(same_person);
  EXPECT_EQ(exists->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  EXPECT_EQ(exists->reply->recovery, Recovery::kUseExisting);
  EXPECT_EQ(exists->reply->existing_intent_id, "intent-1");
  EXPECT_EQ(astra_.posts.size(), 3u);
}

TEST_F(CreationTest, ValidateOnlySendsAndRecordsNothing) {
  auto request = Person(1);
  request.set_validate_only(true);
  auto heard = Call(request);
  ASSERT_TRUE(heard->reply && heard->reply->ok());
  EXPECT_FALSE(heard->reply->user_intent);
  EXPECT_FALSE(heard->reply->replayed);
  ASSERT_TRUE(heard->reply->attempts);
  EXPECT_EQ(heard->reply->attempts->used_max, 0);
  EXPECT_EQ(heard->reply->attempt_limit, 3);
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(gate_.in_flight(), 0);

  Call(Person(1));
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(Call(request)->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  astra_.Answer(Verdict::kRejected, 400);
  loop_.Settle();
  heard = Call(request);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_REJECTED) << "what the real call would hear";
}

constexpr char kOther[] = "uri:spiffe://test.example/other";

// A birth date or an SSN's digits may be guessed only where each wrong guess is sent and spends an attempt.
TEST_F(CreationTest, AnothersPersonIsToldByTheRealCallAlone) {
  Call(Person(1), 30s, kOther);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  auto guess = Person(2);
  guess.set_email(Person(1).email());

  // Nothing that is free tells the right guess from a wrong one.
  auto wrong = guess;
  wrong.set_ssn_last_four("9999");
  for (auto request : {guess, wrong}) {
    request.set_validate_only(true);
    const auto checked = Call(request);
    EXPECT_TRUE(checked->reply && checked->reply->ok());
    request.set_validate_only(false);
    EXPECT_EQ(Call(request, 99ms)->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
    request.set_supersedes_request_id(Id(9));
    EXPECT_EQ(Call(request)->reply->reason, v1::ERROR_REASON_SUPERSEDES_INVALID);
  }
  EXPECT_TRUE(observer_.told_across.empty());
  EXPECT_EQ(astra_.posts.size(), 1u);

  const auto told = Call(guess);
  ASSERT_TRUE(told->reply);
  EXPECT_EQ(told->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  EXPECT_EQ(told->reply->recovery, Recovery::kStop);
  EXPECT_EQ(told->reply->existing_intent_id, "");
  EXPECT_EQ(observer_.told_across, (std::vector<ledger::Key>{{"local", *ParseUuid(Id(2))}}));
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_EQ(astra_.posts.size(), 1u);

  // The caller's own person is told to whoever asks, and nobody is warned.
  auto own = guess;
  own.set_validate_only(true);
  const auto mine = Call(own, 30s, kOther);
  ASSERT_TRUE(mine->reply);
  EXPECT_EQ(mine->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  EXPECT_EQ(mine->reply->existing_intent_id, "intent-1");
  EXPECT_EQ(observer_.told_across.size(), 1u);
}

// Neither a cancel nor a deadline takes back a guess that was wrong, also while the connection is still being made.
TEST_F(CreationTest, AWrongGuessIsSentEvenIfItsCallerLeaves) {
  Call(Person(1), 30s, kOther);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  astra_.unsent = true;
  for (const int n : {2, 3}) {
    auto guess = Person(n);
    guess.set_email(Person(1).email());
    guess.set_ssn_last_four("999" + std::to_string(n));
    const auto heard = Call(guess, 1s);
    if (n == 2) heard->creation->CallerLeft();
    loop_.Advance(2s);
    EXPECT_EQ(astra_.cancels, 0);
    EXPECT_EQ(RowState(n), State::kSending);
    if (n == 3) {
      ASSERT_TRUE(heard->reply);
      EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
    }
    astra_.Answer(Verdict::kCreated, 201);
    loop_.Settle();
    EXPECT_EQ(RowState(n), State::kSucceeded);
  }
  auto third = Person(4);
  third.set_email(Person(1).email());
  EXPECT_EQ(Call(third)->reply->reason, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED);
}

TEST_F(CreationTest, ARightGuessThatComesTooLateToBeSentIsNotTold) {
  Call(Person(1), 30s, kOther);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ledger_.slow_to_answer = true;
  auto guess = Person(2);
  guess.set_email(Person(1).email());
  const auto heard = Call(guess, 500ms);
  loop_.Advance(460ms);
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_TRUE(observer_.told_across.empty());
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, AStopOfTheProcessReleasesAnUnsentGuess) {
  Call(Person(1), 30s, kOther);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  auto guess = Person(2);
  guess.set_email(Person(1).email());
  guess.set_ssn_last_four("9999");
  astra_.unsent = true;
  Call(guess);
  creations_->AnswerAll();
  loop_.Settle();
  EXPECT_EQ(RowState(2), State::kReleased);
}

TEST_F(CreationTest, AnothersPersonIsNotToldWhileNothingIsSent) {
  Call(Person(1), 30s, kOther);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  auto guess = Person(2);
  guess.set_email(Person(1).email());
  gate_.HoldBack(loop_.Now(), absl::Seconds(5));
  EXPECT_EQ(Call(guess)->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  loop_.Advance(6s);
  Call(Person(3));
  Call(Person(4));
  EXPECT_EQ(Call(guess)->reply->reason, v1::ERROR_REASON_OVERLOADED);
  gate_.Drain();
  EXPECT_EQ(Call(guess)->reply->reason, v1::ERROR_REASON_DRAINING);
  EXPECT_TRUE(observer_.told_across.empty());
}

// ---- the caller's own limits

policy::Limits CreateLimit(double per_second, int burst) {
  policy::Limits limits;
  limits.create = policy::Rate{per_second, burst};
  return limits;
}

TEST_F(CreationTest, ATokenForEachCreationThatBeginsAndForNothingElse) {
  account_ = std::make_shared<policy::CallerAccount>(CreateLimit(0.5, 2));
  Call(Person(1));
  for (int i = 0; i < 5; ++i) Call(Person(1));  // joins
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Call(Person(1))->reply->replayed);
  auto reused = Person(1);
  reused.set_city("Elsewhere");
  EXPECT_EQ(Call(reused)->reply->reason, v1::ERROR_REASON_REQUEST_ID_REUSED);
  auto again = Person(1);
  again.set_request_id(Id(9));
  EXPECT_EQ(Call(again)->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  auto wrong = Person(8);
  wrong.set_state("XX");
  EXPECT_EQ(Call(wrong)->reply->reason, v1::ERROR_REASON_FIELD_INVALID);
  EXPECT_EQ(Call(Person(7), 99ms)->reply->reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  auto check = Person(7);
  check.set_validate_only(true);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Call(check)->reply->ok());

  const auto second = Call(Person(2));
  EXPECT_FALSE(second->reply) << "one token was left";
  const auto third = Call(Person(3));
  ASSERT_TRUE(third->reply);
  EXPECT_EQ(third->reply->reason, v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_EQ(third->reply->retry_after, absl::Seconds(2));
  EXPECT_EQ(third->reply->recovery, Recovery::kRetrySameId);
  EXPECT_EQ(third->reply->sent, Sent::kNo);
  EXPECT_FALSE(third->reply->attempts);
  EXPECT_FALSE(HasRow(3));
  EXPECT_EQ(Call(check)->reply->reason, v1::ERROR_REASON_CALLER_RATE_LIMITED) << "what the real call would hear";
  EXPECT_TRUE(Call(Person(1))->reply->ok()) << "a replay needs none";
  loop_.Advance(2s);
  EXPECT_FALSE(Call(Person(3))->reply) << "as it was told";
  EXPECT_EQ(astra_.posts.size(), 3u);
}

TEST_F(CreationTest, WhatNeverBeginsGivesItsTokenBack) {
  account_ = std::make_shared<policy::CallerAccount>(CreateLimit(0.001, 1));
  // Another caller's person: admitted, and then told instead of sent.
  {
    const AdmissionControl::Account mine = std::exchange(account_, nullptr);
    Call(Person(1), 30s, kOther);
    astra_.Answer(Verdict::kCreated, 201);
    loop_.Settle();
    account_ = mine;
  }
  auto guess = Person(2);
  guess.set_email(Person(1).email());
  EXPECT_EQ(Call(guess)->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  EXPECT_EQ(gate_.in_flight(), 0);
  // A caller that is gone before the ledger asks.
  ledger_.slow_to_ask = true;
  const auto gone = Call(Person(3));
  gone->creation->CallerLeft();
  ledger_.slow_to_ask = false;
  ledger_.Release();
  loop_.Settle();
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_TRUE(astra_.posts.size() == 1);
  EXPECT_FALSE(Call(Person(4))->reply) << "the token is still there";
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_EQ(account_->in_flight(), 1);
  astra_.Answer(Verdict::kNotSent);
  loop_.Advance(30s);
  while (astra_.posts.back().done) {
    astra_.Answer(Verdict::kNotSent);
    loop_.Advance(30s);
  }
  EXPECT_EQ(account_->in_flight(), 0);
  EXPECT_EQ(Call(Person(4))->reply->reason, v1::ERROR_REASON_CALLER_RATE_LIMITED) << "it had begun, so it costs one";
}

class ProbeTest : public CreationTest {
 protected:
  ProbeTest() {
    // One address that is used up, one that is busy, one that is unresolved: another caller's.
    const auto create = [this](int n, const std::string& email, Verdict verdict, int status) {
      auto request = Person(n);
      request.set_email(email);
      request.set_ssn_last_four("000" + std::to_string(n));
      Call(request, 30s, kOther);
      astra_.Answer(verdict, status);
      loop_.Settle();
    };
    for (const int n : {1, 2, 3}) create(n, "used@example.com", Verdict::kCreated, 201);
    create(4, "unresolved@example.com", Verdict::kUnknown, 500);
    create(5, "once@example.com", Verdict::kCreated, 201);
    auto busy = Person(6);
    busy.set_email("busy@example.com");
    Call(busy, 30s, kOther);
    posts_ = astra_.posts.size();
    policy::Limits limits;
    limits.probe = {1, 5};
    account_ = std::make_shared<policy::CallerAccount>(limits);
  }

  Reply Ask(const std::string& email, bool validate_only, SteadyClock::duration left = 30s, int n = 20) {
    auto request = Person(n);
    request.set_email(email);
    request.set_validate_only(validate_only);
    const auto heard = Call(request, left);
    EXPECT_TRUE(heard->reply) << email;
    return *heard->reply;
  }

  size_t posts_ = 0;
};

TEST_F(ProbeTest, AnswersThatTellOfOthersTakeATokenUntilThereIsNone) {
  EXPECT_EQ(Ask("used@example.com", false).reason, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED);
  EXPECT_EQ(Ask("unresolved@example.com", true).reason, v1::ERROR_REASON_EMAIL_UNRESOLVED);
  EXPECT_EQ(Ask("busy@example.com", false).reason, v1::ERROR_REASON_EMAIL_BUSY);
  EXPECT_EQ(Ask("once@example.com", true).attempts->used_min, 1) << "the attempts of a check tell as much";
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Ask("nobody@example.com", true).ok()) << "tells of nobody";
  EXPECT_TRUE(observer_.probing.empty());
  EXPECT_EQ(Ask("busy@example.com", true).reason, v1::ERROR_REASON_EMAIL_BUSY);

  // From here on nothing tells one address from another.
  for (const char* const email : {"used", "unresolved", "busy", "once", "nobody"}) {
    for (const bool validate_only : {true, false}) {
      const Reply reply = Ask(std::string(email) + "@example.com", validate_only, 99ms);
      EXPECT_EQ(reply.reason, v1::ERROR_REASON_CALLER_RATE_LIMITED) << email;
      EXPECT_EQ(reply.retry_after, absl::Seconds(1));
      EXPECT_EQ(reply.sent, Sent::kNo);
      EXPECT_FALSE(reply.attempts);
      EXPECT_FALSE(reply.unresolved_request_id);
    }
  }
  EXPECT_EQ(observer_.probing, std::vector<std::string>{"local"}) << "once a minute";
  EXPECT_EQ(astra_.posts.size(), posts_);
  // Who creates is not held up.
  EXPECT_FALSE(Call(Person(30))->reply);
  EXPECT_EQ(astra_.posts.size(), posts_ + 1);
  loop_.Advance(1s);
  EXPECT_EQ(Ask("used@example.com", false).reason, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED) << "as it was told";
  EXPECT_EQ(Ask("used@example.com", false).reason, v1::ERROR_REASON_CALLER_RATE_LIMITED);
  loop_.Advance(60s);
  for (int i = 0; i < 6; ++i) Ask("used@example.com", true);
  EXPECT_EQ(observer_.probing.size(), 2u);
}

TEST_F(ProbeTest, ReplaysAndRefusalsOfTheOwnIdAreFree) {
  for (int i = 0; i < 5; ++i) Ask("used@example.com", true);
  EXPECT_EQ(Ask("used@example.com", true).reason, v1::ERROR_REASON_CALLER_RATE_LIMITED);
  const AdmissionControl::Account mine = std::exchange(account_, nullptr);
  const auto lost = Call(Person(30));
  astra_.Answer(Verdict::kUnknown, 500);
  loop_.Settle();
  account_ = mine;
  EXPECT_EQ(Call(Person(30))->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
  auto reused = Person(30);
  reused.set_city("Elsewhere");
  EXPECT_EQ(Call(reused)->reply->reason, v1::ERROR_REASON_REQUEST_ID_REUSED);
}

// A deadline that is too short, a full gate, a caller's own limit: none of them is a free look.
TEST_F(ProbeTest, RefusalsForWantOfRoomTellNothing) {
  const Reply late = Ask("once@example.com", false, 99ms);
  EXPECT_EQ(late.reason, v1::ERROR_REASON_DEADLINE_TOO_SHORT);
  EXPECT_FALSE(late.attempts);
  auto invalid = Person(20);
  invalid.set_email("once@example.com");
  invalid.set_supersedes_request_id(Id(9));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Call(invalid)->reply->reason, v1::ERROR_REASON_SUPERSEDES_INVALID);
  EXPECT_EQ(Call(invalid)->reply->reason, v1::ERROR_REASON_CALLER_RATE_LIMITED);
  EXPECT_EQ(Ask("once@example.com", false, 99ms).reason, v1::ERROR_REASON_CALLER_RATE_LIMITED);
}

TEST_F(CreationTest, EmailRulesReachTheCaller) {
  auto first = Person(1);
  auto second = Person(2);
  second.set_email("PERSON1@example.com");
  const auto running = Call(first);
  EXPECT_EQ(Call(second)->reply->reason, v1::ERROR_REASON_EMAIL_BUSY);
  astra_.Answer(Verdict::kUnknown);
  loop_.Settle();
  auto unresolved = Call(second);
  EXPECT_EQ(unresolved->reply->reason, v1::ERROR_REASON_EMAIL_UNRESOLVED);
  EXPECT_EQ(UuidText(*unresolved->reply->unresolved_request_id), Id(1));
  EXPECT_FALSE(Call(second, 30s, "uri:spiffe://test.example/other")->reply->unresolved_request_id)
      << "another caller's id is not told";
  second.set_supersedes_request_id(Id(1));
  const auto superseding = Call(second);
  EXPECT_FALSE(superseding->reply);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(superseding->reply->ok());
  EXPECT_EQ(superseding->reply->attempts->used_min, 1);
  EXPECT_EQ(superseding->reply->attempts->used_max, 2);
  EXPECT_EQ(running->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
}

TEST_F(CreationTest, StopsWaitingWhenTheProcessStops) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(20));
  loop_.Settle();
  creations_->Drain();
  loop_.Settle();
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  EXPECT_EQ(RowState(1), State::kReleased);
}

// What every outcome leaves in the row, and what its caller and a repeat hear of it.
TEST_F(CreationTest, EveryOutcomeIsRecordedWholeAndHeardAlike) {
  struct Case {
    Verdict verdict;
    int status;
    bool confirmed;
    State state;
    v1::ErrorReason reason;
    Sent sent;
    ledger::Budget budget;
  };
  const Case cases[] = {
      {Verdict::kCreated, 201, true, State::kSucceeded, v1::ERROR_REASON_UNSPECIFIED, Sent::kYes, {1, 1}},
      {Verdict::kLimitReached,
       400,
       false,
       State::kFailed,
       v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED,
       Sent::kYes,
       {0, 1}},
      {Verdict::kRejected, 422, false, State::kFailed, v1::ERROR_REASON_UPSTREAM_REJECTED, Sent::kYes, {0, 1}},
      {Verdict::kCredentialsRejected,
       403,
       false,
       State::kReleased,
       v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED,
       Sent::kYes,
       {0, 0}},
      {Verdict::kMisconfigured,
       404,
       false,
       State::kReleased,
       v1::ERROR_REASON_UPSTREAM_MISCONFIGURED,
       Sent::kYes,
       {0, 0}},
      {Verdict::kUnknown, 500, false, State::kUnknown, v1::ERROR_REASON_OUTCOME_UNKNOWN, Sent::kMaybe, {0, 1}},
      {Verdict::kUnknown, 201, true, State::kUnknown, v1::ERROR_REASON_OUTCOME_UNKNOWN, Sent::kMaybe, {1, 1}},
  };
  int n = 0;
  for (const Case& c : cases) {
    ++n;
    SCOPED_TRACE(c.status);
    const absl::Time before = absl::Now() - absl::Microseconds(1);
    const auto heard = Call(Person(n));
    astra::Outcome outcome;
    outcome.verdict = c.verdict;
    outcome.http_status = c.status;
    outcome.confirmed = c.confirmed;
    outcome.astra_request_id = "req-7";
    if (c.verdict == Verdict::kCreated) {
      outcome.user_intent_id = "intent-7";
      outcome.astra_status = "approved";
    }
    astra_.Answer(outcome);
    loop_.Settle();

    const ledger::Record row = Row(n);
    EXPECT_EQ(row.state, c.state);
    EXPECT_EQ(row.reason, c.reason);
    EXPECT_EQ(row.sent, c.sent);
    EXPECT_EQ(row.posts, 1);
    EXPECT_EQ(row.attempt_id, astra_.posts.back().attempt_id);
    EXPECT_NE(row.attempt_id, Uuid{});
    EXPECT_EQ(row.answer.http_status, c.status);
    EXPECT_EQ(row.answer.confirmed, c.confirmed);
    EXPECT_EQ(row.answer.astra_request_id, "req-7");
    EXPECT_EQ(row.answer.astra_status, outcome.astra_status);
    EXPECT_EQ(row.answer.user_intent_id, outcome.user_intent_id);
    for (const absl::Time time : {row.created, row.updated, row.answer.at}) {
      EXPECT_GE(time, before);
      EXPECT_LE(time, absl::Now());
    }
    ASSERT_FALSE(observer_.states.empty());
    EXPECT_EQ(observer_.states.back(), c.state);

    const auto expect_alike = [&](const std::optional<Reply>& reply) {
      ASSERT_TRUE(reply);
      EXPECT_EQ(reply->reason, c.reason);
      EXPECT_EQ(reply->astra_request_id, "req-7");
      ASSERT_TRUE(reply->attempts);
      EXPECT_EQ(reply->attempts->used_min, c.budget.used_min);
      EXPECT_EQ(reply->attempts->used_max, c.budget.used_max);
      if (c.verdict == Verdict::kCreated) {
        EXPECT_EQ(reply->attempt_limit, 3);
        EXPECT_EQ(reply->user_intent->astra_status(), "approved");
      } else {
        EXPECT_EQ(reply->sent, c.sent);
        EXPECT_EQ(reply->http_status, c.status);
      }
    };
    expect_alike(heard->reply);
    EXPECT_FALSE(heard->reply->replayed);
    if (c.state == State::kReleased) continue;
    const auto again = Call(Person(n));
    expect_alike(again->reply);
    EXPECT_TRUE(again->reply->replayed);
  }
  EXPECT_EQ(astra_.posts.size(), std::size(cases)) << "a repeat was sent";
}

TEST_F(CreationTest, TheObserverHearsOfEveryPost) {
  Call(Person(1));
  EXPECT_EQ(observer_.begun, 1);
  loop_.Advance(5s);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_EQ(observer_.ended.size(), 1u);
  EXPECT_EQ(observer_.ended[0].request_id, *ParseUuid(Id(1)));
  EXPECT_EQ(observer_.ended[0].attempt_id, astra_.posts[0].attempt_id);
  EXPECT_EQ(observer_.ended[0].verdict, Verdict::kCreated);
  EXPECT_EQ(observer_.ended[0].took, 5s);
}

TEST_F(CreationTest, ALedgerThatCannotBeReadSendsNothing) {
  ledger_.down = true;
  const auto heard = Call(Person(1));
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_LEDGER_UNAVAILABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_EQ(heard->reply->retry_after, absl::Seconds(2));
  EXPECT_TRUE(astra_.posts.empty());
  EXPECT_EQ(gate_.in_flight(), 0);
}

TEST_F(CreationTest, AnAttemptThatIsNotOnDiskIsNotSent) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(1));
  loop_.Settle();
  ledger_.down = true;
  loop_.Advance(1s);
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(RowState(1), State::kReleased);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
}

TEST_F(CreationTest, EachPostAfterARefusalIsInTheRowUnderItsOwnId) {
  for (const Verdict verdict : {Verdict::kRateLimited, Verdict::kUnavailable}) {
    const int n = static_cast<int>(verdict) + 1;
    const auto heard = Call(Person(n));
    const size_t before = astra_.posts.size();
    astra_.Answer(verdict, 0, absl::Seconds(1));
    loop_.Advance(1s);
    ASSERT_EQ(astra_.posts.size(), before + 1);
    EXPECT_EQ(Row(n).posts, 2);
    EXPECT_EQ(Row(n).sent, Sent::kYes);
    EXPECT_EQ(Row(n).attempt_id, astra_.posts.back().attempt_id);
    EXPECT_NE(astra_.posts[before - 1].attempt_id, astra_.posts[before].attempt_id);
    // Refused again: no third try.
    astra_.Answer(verdict, 0, absl::Seconds(1));
    loop_.Advance(5s);
    EXPECT_EQ(astra_.posts.size(), before + 1);
    EXPECT_EQ(RowState(n), State::kReleased);
    EXPECT_TRUE(heard->reply && heard->reply->sent == Sent::kYes);
    loop_.Advance(60s);  // nothing is held back any more
  }
}

TEST_F(CreationTest, OtherCredentialsAreAnAttemptOfTheirOwn) {
  Call(Person(1));
  astra_.new_credentials = true;
  astra_.Answer(Verdict::kCredentialsRejected, 401);
  loop_.Advance(0s);
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_NE(astra_.posts[0].attempt_id, astra_.posts[1].attempt_id);
  EXPECT_EQ(Row(1).posts, 2);
}

TEST_F(CreationTest, BackoffBetweenConnectionAttemptsIsShort) {
  Call(Person(1));
  astra_.Answer(Verdict::kNotSent);
  loop_.Advance(200ms);
  ASSERT_EQ(astra_.posts.size(), 2u);
  astra_.Answer(Verdict::kNotSent);
  loop_.Advance(400ms);
  EXPECT_EQ(astra_.posts.size(), 3u);
}

TEST_F(CreationTest, AWaitThatJustFitsIsTaken) {
  // 30 s less the 50 ms before the deadline and the 100 ms that a try must have left.
  const auto heard = Call(Person(1), 30s);
  astra_.Answer(Verdict::kUnavailable, 503, absl::Milliseconds(29'850));
  loop_.Settle();
  EXPECT_FALSE(heard->reply);
  loop_.Advance(29'850ms);
  EXPECT_EQ(astra_.posts.size(), 2u);
}

TEST_F(CreationTest, WhoJoinedHearsWhenToComeAgainAsTheFirstDoes) {
  for (const Verdict verdict : {Verdict::kRateLimited, Verdict::kUnavailable}) {
    const int n = verdict == Verdict::kRateLimited ? 2 : 1;
    const auto first = Call(Person(n));
    const auto joined = Call(Person(n));
    astra_.Answer(verdict, 429, absl::Seconds(40));  // longer than the deadline
    loop_.Settle();
    ASSERT_TRUE(first->reply && joined->reply);
    EXPECT_EQ(first->reply->retry_after, absl::Seconds(40));
    EXPECT_EQ(joined->reply->reason, first->reply->reason);
    EXPECT_EQ(joined->reply->retry_after, absl::Seconds(40));
    EXPECT_TRUE(joined->reply->replayed);
    loop_.Advance(60s);
  }
}

TEST_F(CreationTest, RateLimitedWithoutRetryAfterSaysOneSecond) {
  const auto heard = Call(Person(1), 1s);  // the wait does not fit
  astra_.Answer(Verdict::kRateLimited, 429);
  loop_.Settle();
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->retry_after, absl::Seconds(1));
}

TEST_F(CreationTest, CallerWhoLeavesDuringTheWaitEndsItAtOnce) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(20));
  loop_.Settle();
  EXPECT_EQ(creations_->waiting(), 1u);
  heard->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kReleased);
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_EQ(creations_->waiting(), 0u);
}

TEST_F(CreationTest, CallerWhoLeavesWhileTheNextAttemptIsWrittenGetsNone) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Settle();
  // The wait is over, and the caller goes before the ledger has answered.
  loop_.AdvanceWithoutSettling(2s);
  heard->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_EQ(observer_.recorded, 1) << "the row was ended twice";
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, CallerWhoLeavesWhileTheEndOfTheWaitIsWrittenEndsItOnce) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Settle();
  creations_->Drain();
  heard->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(observer_.recorded, 1) << "the row was ended twice";
  EXPECT_EQ(RowState(1), State::kReleased);
}

TEST_F(CreationTest, CallerWhoLeavesAJoinIsForgotten) {
  Call(Person(1));
  const auto joined = Call(Person(1));
  joined->creation->CallerLeft();
  EXPECT_EQ(ledger_.forgotten, 1);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(joined->replies, 0);
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(CreationTest, CallerWhoLeavesTakesItsTimerAlong) {
  const auto heard = Call(Person(1));
  heard->creation->CallerLeft();
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(CreationTest, AStopOfTheProcessLeavesARunningExchangeAlone) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kNotSent);
  loop_.Advance(200ms);
  ASSERT_EQ(astra_.posts.size(), 2u);
  creations_->Drain();
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSending);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(heard->reply && heard->reply->ok());
}

TEST_F(CreationTest, WhoStillWaitsWhenTheProcessStopsIsAnswered) {
  const auto answered = Call(Person(3));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  const auto sender = Call(Person(1));
  const auto joined = Call(Person(1));
  const auto gone = Call(Person(1));
  gone->creation->CallerLeft();
  creations_->AnswerAll();
  loop_.Settle();
  for (const auto& heard : {sender, joined}) {
    ASSERT_TRUE(heard->reply);
    EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
  }
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_EQ(RowState(1), State::kSending);
  astra_.Answer(Verdict::kCreated, 201);  // just in time for the row
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSucceeded);
  creations_->AnswerAll();
  EXPECT_EQ(sender->replies + joined->replies + answered->replies, 3);
  EXPECT_EQ(gone->replies, 0);
}

TEST_F(CreationTest, WhatHasNotLeftWhenTheProcessStopsIsReleased) {
  astra_.unsent = true;
  const auto heard = Call(Person(1));
  creations_->AnswerAll();
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kReleased);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
}

TEST_F(CreationTest, AllowRepeatCreatesThePersonAgain) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  v1::CreateUserIntentRequest again = Person(1);
  again.set_request_id(Id(2));
  auto heard = Call(again);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
  again.set_allow_repeat(true);
  Call(again);
  EXPECT_EQ(astra_.posts.size(), 2u);
}

TEST_F(CreationTest, TheLimitIsTheConfiguredOne) {
  deps_.email_attempt_limit = 1;
  creations_.emplace(deps_);
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  v1::CreateUserIntentRequest other = Person(2);
  other.set_email(Person(1).email());
  other.set_first_name("Grace");
  const auto heard = Call(other);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED);
  EXPECT_EQ(heard->reply->sent, Sent::kNo) << "the table's yes is for Astra's own word";
  EXPECT_EQ(heard->reply->attempts->used_min, 1);
  EXPECT_EQ(astra_.posts.size(), 1u);
}

TEST_F(CreationTest, SupersedingTheWrongRequestNamesTheRightOne) {
  Call(Person(1));
  astra_.Answer(Verdict::kUnknown, 500);
  loop_.Settle();
  v1::CreateUserIntentRequest other = Person(2);
  other.set_email(Person(1).email());
  other.set_supersedes_request_id(Id(9));
  const auto heard = Call(other);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_SUPERSEDES_INVALID);
  EXPECT_EQ(heard->reply->unresolved_request_id, ParseUuid(Id(1)));
}

// What was sent under an id before is not forgotten when a repeat of it is refused for another reason.
TEST_F(CreationTest, ARefusedRepeatStillSaysThatTheIdWasSent) {
  Call(Person(1));
  astra_.Answer(Verdict::kMisconfigured, 404);
  loop_.Settle();
  v1::CreateUserIntentRequest other = Person(2);
  other.set_email(Person(1).email());
  Call(other);  // runs
  const auto heard = Call(Person(1));
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_EMAIL_BUSY);
  EXPECT_EQ(heard->reply->sent, Sent::kYes);
  EXPECT_EQ(heard->reply->attempts->used_max, 1);
}

v1::CreateUserIntentRequest Zoe(int n, const char* first_name) {
  v1::CreateUserIntentRequest r = Person(n);
  r.set_email("zoe@example.com");
  r.set_first_name(first_name);
  return r;
}
constexpr char kComposed[] = "Zo\u00eb";
constexpr char kDecomposed[] = "Zoe\u0308";

TEST_F(CreationTest, ANameTypedOnAnotherKeyboardIsTheSamePerson) {
  Call(Zoe(1, kDecomposed));
  EXPECT_EQ(astra_.sent.first_name(), kDecomposed) << "Astra gets the bytes as given";
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  for (const char* name : {kComposed, kDecomposed}) {
    const auto heard = Call(Zoe(2, name));
    ASSERT_TRUE(heard->reply);
    EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
    EXPECT_EQ(heard->reply->existing_intent_id, "intent-1");
  }
  EXPECT_FALSE(Call(Zoe(3, "ZO\u00cb"))->reply) << "letter case makes another person";
  EXPECT_EQ(astra_.posts.size(), 2u);
}

TEST_F(CreationTest, ARepeatInAnotherFormIsToldToRepeatTheBytes) {
  Call(Zoe(1, kComposed));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  const auto heard = Call(Zoe(1, kDecomposed));
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_REQUEST_ID_REUSED);
  EXPECT_EQ(heard->reply->message, kOtherFormMessage);
  EXPECT_EQ(std::string(kOtherFormMessage).find("new request_id"), std::string::npos);
  auto other = Zoe(1, kDecomposed);
  other.set_ip_address("8.8.4.4");
  EXPECT_EQ(Call(other)->reply->message, "") << "the table's";
  EXPECT_TRUE(Call(Zoe(1, kComposed))->reply->ok());
  EXPECT_EQ(astra_.posts.size(), 1u);
}

// Rows that hold the fingerprint of the person's very bytes, as version 1 made it.
TEST_F(CreationTest, PeopleOfVersionOneAreFoundInEitherForm) {
  int n = 0;
  for (const char* before : {kComposed, kDecomposed}) {
    for (const char* now : {kComposed, kDecomposed}) {
      const auto mail = std::to_string(++n) + "@example.com";
      auto old = Zoe(10 + n, before);
      old.set_email(mail);
      ledger::BeginRequest begin;
      begin.key = {"local", *ParseUuid(old.request_id())};
      begin.current = fingerprinter_.Current(old);
      // The first of the older ones is the person as given, where that is not in NFC.
      if (before == kDecomposed) begin.current.person = fingerprinter_.Older(old).at(0).person;
      begin.now = absl::Now();
      ledger_.Begin(begin, loop_,
                    [](ledger::BeginAnswer answer) { ASSERT_EQ(answer.verdict, ledger::BeginVerdict::kGo); });
      ledger::FinishRequest finish;
      finish.key = begin.key;
      finish.state = State::kSucceeded;
      finish.answer.user_intent_id = "intent-of-old";
      finish.now = absl::Now();
      ledger_.Finish(finish, loop_, [](ledger::FinishAnswer answer) { ASSERT_TRUE(answer.committed); });
      loop_.Settle();

      EXPECT_TRUE(Call(old)->reply->ok()) << "a repeat of the old request";
      auto again = Zoe(20 + n, now);
      again.set_email(mail);
      auto look = again;
      look.set_validate_only(true);
      for (const auto& request : {look, again, look}) {  // the real call moves the row
        const auto heard = Call(request);
        ASSERT_TRUE(heard->reply);
        EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_PERSON_EXISTS);
        EXPECT_EQ(heard->reply->existing_intent_id, "intent-of-old");
      }
    }
  }
  EXPECT_TRUE(astra_.posts.empty());
}

TEST_F(CreationTest, RowsUnderThePreviousKeyAreFound) {
  Call(Person(1));
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  const intent::Fingerprinter rotated(Secret(std::string(32, 'n')), {Secret(std::string(32, 'k'))});
  Creations creations({loop_, ledger_, astra_, gate_, rotated, observer_, intent::RulesOptions{}, 3});
  std::optional<Reply> heard;
  Creation::Start(creations,
                  {"local", Person(1), loop_.Now() + 30s, [&](auto result) { heard.emplace(std::move(result)); }});
  loop_.Settle();
  ASSERT_TRUE(heard);
  EXPECT_TRUE(heard->ok() && heard->replayed);
  EXPECT_EQ(astra_.posts.size(), 1u);
}

// ---- late answers

class LateAnswerTest : public CreationTest {
 protected:
  // A call whose POST had its time.
  std::shared_ptr<Heard> Unanswered(int n) {
    auto heard = Call(Person(n));
    astra_.Answer(Verdict::kUnknown);
    loop_.Settle();
    EXPECT_TRUE(heard->reply);
    EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
    EXPECT_EQ(RowState(n), State::kUnknown);
    return heard;
  }
};

TEST_F(LateAnswerTest, SettlesAsItWouldHaveInTime) {
  const struct {
    Verdict verdict;
    int status;
    State state;
    v1::ErrorReason reason;
  } cases[] = {
      {Verdict::kCreated, 201, State::kSucceeded, v1::ERROR_REASON_UNSPECIFIED},
      {Verdict::kLimitReached, 422, State::kFailed, v1::ERROR_REASON_EMAIL_ATTEMPTS_EXHAUSTED},
      {Verdict::kRejected, 400, State::kFailed, v1::ERROR_REASON_UPSTREAM_REJECTED},
      {Verdict::kCredentialsRejected, 401, State::kReleased, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED},
      {Verdict::kMisconfigured, 404, State::kReleased, v1::ERROR_REASON_UPSTREAM_MISCONFIGURED},
      {Verdict::kUnavailable, 503, State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE},
      {Verdict::kRefused, 0, State::kReleased, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE},
      {Verdict::kRateLimited, 429, State::kReleased, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED},
  };
  int n = 0;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.status);
    Unanswered(++n);
    const size_t posts = astra_.posts.size();
    EXPECT_EQ(gate_.in_flight(), 0) << "listening holds a place";
    astra_.new_credentials = true;
    astra_.AnswerLate(posts - 1, c.verdict, c.status);
    loop_.Settle();
    EXPECT_EQ(RowState(n), c.state);
    EXPECT_EQ(Row(n).reason, c.reason);
    EXPECT_EQ(Row(n).answer.http_status, c.status);
    EXPECT_EQ(Row(n).sent, Sent::kYes);
    EXPECT_EQ(astra_.posts.size(), posts) << "something was sent";
    EXPECT_EQ(loop_.timers(), 0u);
    ASSERT_EQ(observer_.late.size(), static_cast<size_t>(n));
    EXPECT_EQ(observer_.late.back(), std::make_pair(astra_.posts.back().attempt_id, c.verdict));
    ASSERT_EQ(observer_.settled.size(), static_cast<size_t>(n));
    EXPECT_EQ(observer_.settled.back(), ledger::SettleVerdict::kSettled);
    const ledger::SettleRequest& proof = ledger_.proofs.back();
    EXPECT_EQ(proof.attempt_id, astra_.posts.back().attempt_id);
    EXPECT_EQ(proof.action, "settle by late answer");
    EXPECT_EQ(proof.evidence,
              c.status == 0 ? "HTTP/2 stream refused unprocessed" : "HTTP status " + std::to_string(c.status));
  }
  EXPECT_GT(gate_.Held(loop_.Now()), absl::ZeroDuration()) << "a late 429 holds others back too";
}

TEST_F(LateAnswerTest, IsReplayedToWhoRepeats) {
  Unanswered(1);
  astra_.AnswerLate(0, Verdict::kCreated, 201);
  loop_.Settle();
  const auto repeat = Call(Person(1));
  ASSERT_TRUE(repeat->reply && repeat->reply->ok());
  EXPECT_TRUE(repeat->reply->replayed);
  EXPECT_EQ(repeat->reply->user_intent->id(), "intent-1");
  EXPECT_EQ(astra_.posts.size(), 1u);
}

TEST_F(LateAnswerTest, ThatReleasesLetsTheRepeatSendAgain) {
  Unanswered(1);
  astra_.AnswerLate(0, Verdict::kCredentialsRejected, 401);
  loop_.Settle();
  const auto repeat = Call(Person(1));
  EXPECT_FALSE(repeat->reply);
  EXPECT_EQ(astra_.posts.size(), 2u);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSucceeded);
}

TEST_F(LateAnswerTest, ThatSaysNothingChangesNothing) {
  Unanswered(1);
  astra_.AnswerLate(0, Verdict::kUnknown, 500);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kUnknown);
  EXPECT_TRUE(ledger_.proofs.empty());
  EXPECT_EQ(observer_.late.size(), 1u);
}

// The answer comes while the row is still being recorded as UNKNOWN.
TEST_F(LateAnswerTest, WaitsForTheRowToBeRecorded) {
  ledger_.slow_to_finish = true;
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kUnknown);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSending);
  astra_.AnswerLate(0, Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(ledger_.proofs.empty());
  ledger_.slow_to_finish = false;
  ledger_.Release();
  loop_.Settle();
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
  EXPECT_EQ(RowState(1), State::kSucceeded);
}

TEST_F(LateAnswerTest, IsBroughtAgainWhileTheLedgerCannotTakeIt) {
  for (const bool down : {true, false}) {
    const int n = down ? 1 : 2;
    Unanswered(n);
    ledger_.proofs.clear();
    (down ? ledger_.down : ledger_.still_runs) = true;
    astra_.AnswerLate(astra_.posts.size() - 1, Verdict::kCreated, 201);
    loop_.Settle();
    EXPECT_EQ(ledger_.proofs.size(), 1u);
    for (int i = 0; i < 20; ++i) loop_.Advance(1s);
    EXPECT_GE(ledger_.proofs.size(), 5u);
    EXPECT_LE(ledger_.proofs.size(), 12u);
    EXPECT_EQ(RowState(n), State::kUnknown);
    ledger_.down = ledger_.still_runs = false;
    for (int i = 0; i < 6; ++i) loop_.Advance(1s);
    EXPECT_EQ(RowState(n), State::kSucceeded);
    EXPECT_EQ(loop_.timers(), 0u);
  }
}

TEST_F(LateAnswerTest, IsGivenUpAtTheEndOfTheWindow) {
  Unanswered(1);
  ledger_.down = true;
  astra_.AnswerLate(0, Verdict::kCreated, 201);
  loop_.Settle();
  for (int i = 0; i < 310; ++i) loop_.Advance(1s);
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_GE(ledger_.proofs.size(), 60u);
}

// An operator was quicker, and says otherwise.
TEST_F(LateAnswerTest, ThatContradictsWhatIsRecordedMarksTheRow) {
  Unanswered(1);
  ledger::SettleRequest other;
  other.key = {"local", *ParseUuid(Id(1))};
  other.attempt_id = astra_.posts[0].attempt_id;
  other.state = State::kReleased;
  other.action = "test";
  other.evidence = "test";
  other.now = absl::UnixEpoch();
  ledger_.Settle(other, loop_, [](const ledger::SettleAnswer&) {});
  loop_.Settle();
  ASSERT_EQ(RowState(1), State::kReleased);
  astra_.AnswerLate(0, Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kReleased);
  ASSERT_EQ(observer_.settled.size(), 1u);
  EXPECT_EQ(observer_.settled[0], ledger::SettleVerdict::kConflict);
}

// The row has moved on: what an earlier POST of it is answered is not about the later one.
TEST_F(LateAnswerTest, OfAnEarlierPostChangesNothing) {
  const auto heard = Call(Person(1));
  astra_.Answer(Verdict::kRateLimited, 429, absl::Seconds(1));
  loop_.Settle();
  loop_.Advance(1s);
  ASSERT_EQ(astra_.posts.size(), 2u);
  astra_.Answer(Verdict::kUnknown);
  loop_.Settle();
  ASSERT_EQ(RowState(1), State::kUnknown);
  astra_.AnswerLate(0, Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kUnknown);
  EXPECT_TRUE(ledger_.proofs.empty());
  astra_.AnswerLate(1, Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_EQ(RowState(1), State::kSucceeded);
}

TEST_F(LateAnswerTest, NothingIsHeldByWhoListens) {
  const auto heard = Unanswered(1);
  const std::weak_ptr<Creation> creation = heard->creation;
  heard->creation.reset();
  EXPECT_TRUE(creation.expired()) << "the request stays in memory";
  EXPECT_EQ(gate_.in_flight(), 0);
  EXPECT_EQ(loop_.timers(), 0u);
  EXPECT_EQ(creations_->waiting() + creations_->unanswered(), 0u);
  EXPECT_TRUE(astra_.posts[0].late);
}

TEST_F(LateAnswerTest, NobodyListensWithoutAWindow) {
  deps_.late_window = {};
  Creations creations(deps_);
  const auto creation = Creation::Start(creations, {"local", Person(1), loop_.Now() + 30s, [](auto) {}});
  loop_.Settle();
  ASSERT_EQ(astra_.posts.size(), 1u);
  EXPECT_FALSE(astra_.posts[0].late);
  astra_.Answer(Verdict::kUnknown);
  loop_.Settle();
}

// Creations that the breaker hears of, and stops.
class SuspendedCreationTest : public CreationTest {
 protected:
  SuspendedCreationTest() { creations_.emplace(WithBreaker()); }

  Creations::Dependencies WithBreaker() {
    return {loop_, ledger_, astra_, breaker_gate_, fingerprinter_, observer_, intent::RulesOptions{}, 3, 5min};
  }
  static AdmissionControl::Options GateOptions(UpstreamBreaker& breaker) {
    AdmissionControl::Options options;
    options.breaker = &breaker;
    return options;
  }
  void FailUntilItOpens() {
    for (int n = 1; n <= 20 && breaker_.state() == BreakerState::kClosed; ++n) {
      Call(Person(n));
      astra_.Answer(Verdict::kUnknown, 500);
      loop_.Settle();
    }
  }

  BreakerWatcher breaker_watcher_;
  uint64_t credentials_ = 0;
  UpstreamBreaker breaker_{{[this](bool) { return credentials_; }, nullptr}, breaker_watcher_};
  AdmissionControl breaker_gate_{GateOptions(breaker_)};
};

TEST_F(SuspendedCreationTest, NothingIsRecordedAndReplaysGoOn) {
  FailUntilItOpens();
  ASSERT_EQ(breaker_.state(), BreakerState::kOpen);
  const size_t posts = astra_.posts.size();
  auto heard = Call(Person(50));
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_SUSPENDED);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_EQ(heard->reply->recovery, Recovery::kRetrySameId);
  EXPECT_EQ(heard->reply->retry_after, absl::Milliseconds(1100));
  EXPECT_FALSE(heard->reply->attempts);
  EXPECT_FALSE(HasRow(50));
  v1::CreateUserIntentRequest check = Person(51);
  check.set_validate_only(true);
  EXPECT_EQ(Call(check)->reply->reason, v1::ERROR_REASON_UPSTREAM_SUSPENDED);
  EXPECT_EQ(Call(Person(1))->reply->reason, v1::ERROR_REASON_OUTCOME_UNKNOWN);
  EXPECT_EQ(astra_.posts.size(), posts);
  EXPECT_EQ(breaker_gate_.in_flight(), 0);
}

TEST_F(SuspendedCreationTest, AnotherTryWaitsUntilItCloses) {
  const auto heard = Call(Person(50));
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Settle();
  FailUntilItOpens();
  ASSERT_EQ(breaker_.state(), BreakerState::kOpen);
  const size_t posts = astra_.posts.size();
  loop_.Advance(3s);
  EXPECT_EQ(astra_.posts.size(), posts);
  EXPECT_FALSE(heard->reply);
  const SteadyTime now = loop_.Now();
  ASSERT_TRUE(breaker_.BeginProbe(now));
  breaker_.OnRead(now, now, "intent-1", true, Get(astra::ReadVerdict::kNotFound, 404));
  ASSERT_EQ(breaker_.state(), BreakerState::kClosed);
  loop_.Advance(1s);
  ASSERT_EQ(astra_.posts.size(), posts + 1);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(heard->reply && heard->reply->ok());
}

TEST_F(SuspendedCreationTest, AnotherTryThatWaitsInVainIsReleased) {
  const auto heard = Call(Person(50), 10s);
  astra_.Answer(Verdict::kUnavailable, 503, absl::Seconds(1));
  loop_.Settle();
  FailUntilItOpens();
  const size_t posts = astra_.posts.size();
  loop_.Advance(10s);
  EXPECT_EQ(astra_.posts.size(), posts);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
  EXPECT_EQ(RowState(50), State::kReleased);
  EXPECT_EQ(breaker_gate_.in_flight(), 0);
}

// It would be answered later, and no better.
TEST_F(SuspendedCreationTest, NobodyIsConnectedToWhileItIsOpen) {
  const auto heard = Call(Person(50));
  FailUntilItOpens();
  const size_t posts = astra_.posts.size();
  loop_.Advance(500ms);
  astra_.AnswerNth(0, Verdict::kNotSent);
  loop_.Advance(200ms);  // the longest wait before the second try
  EXPECT_EQ(astra_.posts.size(), posts);
  ASSERT_TRUE(heard->reply);
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_UNREACHABLE);
  EXPECT_EQ(heard->reply->sent, Sent::kNo);
  EXPECT_GE(heard->reply->retry_after, absl::Milliseconds(400)) << "until the next probe is over";
  EXPECT_LE(heard->reply->retry_after, absl::Milliseconds(600));
}

TEST_F(SuspendedCreationTest, TheIdsEarlierTriesCount) {
  Call(Person(50));
  astra_.Answer(Verdict::kMisconfigured, 404);
  loop_.Settle();
  FailUntilItOpens();
  EXPECT_EQ(Call(Person(50))->reply->sent, Sent::kYes);
  EXPECT_EQ(RowState(50), State::kReleased);
}

TEST_F(SuspendedCreationTest, CallsThatTheirCallersTookBackAreNoExchanges) {
  astra_.unsent = true;
  for (int n = 1; n <= 50; ++n) Call(Person(n))->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(breaker_.state(), BreakerState::kClosed);
}

TEST_F(SuspendedCreationTest, A401IsHeardOfWithTheCredentialsThatAreInForceThen) {
  const auto heard = Call(Person(1));
  astra_.new_credentials = true;
  ++credentials_;  // by the reading
  astra_.Answer(Verdict::kCredentialsRejected, 401);
  loop_.Settle();
  EXPECT_EQ(breaker_.state(), BreakerState::kClosed) << "the other ones are tried first";
  loop_.Advance(0s);
  ASSERT_EQ(astra_.posts.size(), 2u);
  astra::Outcome refused = FakeAstra::OutcomeOf(Verdict::kCredentialsRejected, 401, std::nullopt);
  refused.credentials = credentials_;
  astra_.Answer(refused);
  loop_.Settle();
  EXPECT_EQ(heard->reply->reason, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED);
  EXPECT_EQ(breaker_.state(), BreakerState::kCredentials);
}

// ---- the queue before Astra

class QueueTest : public CreationTest {
 protected:
  static AdmissionControl::Options OptionsOf(int limit) {
    AdmissionControl::Options options{100, 100ms};
    options.upstream.limit = {1, limit, 30s};
    options.upstream.most = 2;
    return options;
  }
  explicit QueueTest(int limit = 1) : CreationTest(OptionsOf(limit)) {}

  // Person 1 is on its way to Astra, and nobody else can be.
  void Fill() {
    first_ = Call(Person(1));
    ASSERT_EQ(astra_.posts.size(), 1u);
  }
  void EndFirst() {
    std::exchange(astra_.posts[0].done, nullptr)(FakeAstra::OutcomeOf(Verdict::kCreated, 201, std::nullopt));
    loop_.Settle();
    EXPECT_TRUE(first_->reply && first_->reply->ok());
  }
  void ExpectIdle() {
    EXPECT_EQ(gate_.in_flight(), 0);
    EXPECT_EQ(gate_.upstream().slots, 0);
    EXPECT_EQ(gate_.upstream().waiting, 0u);
    EXPECT_EQ(loop_.timers(), 0u);
    EXPECT_EQ(creations_->unanswered(), 0u);
  }

  std::shared_ptr<Heard> first_;
};

TEST_F(QueueTest, WaitsForASlotAndGoesOnInOrder) {
  Fill();
  const auto second = Call(Person(2));
  const auto third = Call(Person(3));
  EXPECT_FALSE(second->reply || third->reply);
  EXPECT_EQ(astra_.posts.size(), 1u);
  EXPECT_FALSE(HasRow(2)) << "nothing is recorded of a call that waits";
  EXPECT_FALSE(second->creation->holds_request());
  EXPECT_EQ(gate_.in_flight(), 3);
  loop_.Advance(1s);
  EndFirst();
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_EQ(astra_.sent.email(), Person(2).email());
  EXPECT_EQ(astra_.sent.ssn_last_four(), "1234");
  EXPECT_EQ(RowState(2), State::kSending);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_EQ(astra_.posts.size(), 3u);
  EXPECT_EQ(astra_.sent.email(), Person(3).email());
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  for (const auto& heard : {second, third}) {
    ASSERT_TRUE(heard->reply && heard->reply->ok());
    EXPECT_FALSE(heard->reply->replayed);
  }
  ExpectIdle();
  ASSERT_EQ(observer_.queue_ends.size(), 2u);
  EXPECT_EQ(observer_.queue_ends[0], std::pair(QueueEnd::kSlot, SteadyClock::duration(1s)));
}

TEST_F(QueueTest, WaitsForATenthOfItsTime) {
  Fill();
  const auto second = Call(Person(2), 20s);
  loop_.Advance(1999ms);
  EXPECT_FALSE(second->reply);
  loop_.Advance(2ms);
  ASSERT_TRUE(second->reply);
  EXPECT_EQ(second->reply->reason, v1::ERROR_REASON_OVERLOADED);
  EXPECT_EQ(second->reply->sent, Sent::kNo);
  EXPECT_EQ(second->reply->retry_after, absl::Seconds(1));
  EXPECT_FALSE(HasRow(2));
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_EQ(observer_.queue_ends.back().first, QueueEnd::kExpired);
  EndFirst();
  EXPECT_EQ(astra_.posts.size(), 1u);
  ExpectIdle();
}

TEST_F(QueueTest, AFullQueueAnswersAtOnce) {
  Fill();
  Call(Person(2));
  Call(Person(3));
  const auto fourth = Call(Person(4));
  ASSERT_TRUE(fourth->reply);
  EXPECT_EQ(fourth->reply->reason, v1::ERROR_REASON_OVERLOADED);
  auto check = Person(5);
  check.set_validate_only(true);
  EXPECT_EQ(Call(check)->reply->reason, v1::ERROR_REASON_OVERLOADED);
  EXPECT_EQ(gate_.in_flight(), 3);
}

TEST_F(QueueTest, ACheckDoesNotWait) {
  Fill();
  auto check = Person(2);
  check.set_validate_only(true);
  const auto heard = Call(check);
  EXPECT_TRUE(heard->reply && heard->reply->ok()) << "the real call would wait, and it may get through";
  EXPECT_EQ(gate_.in_flight(), 1);
}

TEST_F(QueueTest, ReplaysAndJoinsPassTheQueue) {
  Fill();
  EndFirst();
  first_ = Call(Person(9));
  Call(Person(2));
  Call(Person(3));
  const auto replay = Call(Person(1));
  EXPECT_TRUE(replay->reply && replay->reply->ok() && replay->reply->replayed);
  const auto join = Call(Person(9));
  EXPECT_FALSE(join->reply);
  EXPECT_EQ(gate_.upstream().waiting, 2u);
  std::exchange(astra_.posts[1].done, nullptr)(FakeAstra::OutcomeOf(Verdict::kCreated, 201, std::nullopt));
  loop_.Settle();
  EXPECT_TRUE(join->reply && join->reply->ok() && join->reply->replayed);
}

TEST_F(QueueTest, WhoeverLeavesTheQueueSendsNothing) {
  policy::Limits limits;
  limits.create = policy::Rate{0.001, 5};
  account_ = std::make_shared<policy::CallerAccount>(limits);
  Fill();
  const auto second = Call(Person(2));
  const auto third = Call(Person(3));
  second->creation->CallerLeft();
  loop_.Settle();
  EXPECT_FALSE(second->reply);
  EXPECT_EQ(gate_.upstream().waiting, 1u);
  EndFirst();
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_EQ(astra_.sent.email(), Person(3).email());
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(third->reply->ok());
  ExpectIdle();
  int tokens = 0;
  while (!account_->TakeCreate(loop_.Now())) ++tokens;
  EXPECT_EQ(tokens, 3) << "two were sent";
}

TEST_F(QueueTest, WhoeverLeavesAsTheSlotComesGivesItToTheNext) {
  Fill();
  const auto second = Call(Person(2));
  const auto third = Call(Person(3));
  std::exchange(astra_.posts[0].done, nullptr)(FakeAstra::OutcomeOf(Verdict::kCreated, 201, std::nullopt));
  while (gate_.upstream().waiting == 2) loop_.Step();
  second->creation->CallerLeft();
  loop_.Settle();
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_EQ(astra_.sent.email(), Person(3).email());
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(third->reply->ok());
  ExpectIdle();
}

TEST_F(QueueTest, ItsRequestMayHaveEndedMeanwhile) {
  Fill();
  const auto second = Call(Person(2));
  const auto same = Call(Person(2));
  EndFirst();
  ASSERT_EQ(astra_.posts.size(), 2u) << "one of the two";
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(second->reply && second->reply->ok() && !second->reply->replayed);
  EXPECT_TRUE(same->reply && same->reply->ok() && same->reply->replayed);
  EXPECT_EQ(astra_.posts.size(), 2u);
  ExpectIdle();
}

// Its time in the queue is over, and "nothing was sent" would not be true.
TEST_F(QueueTest, ItsRequestMayRunMeanwhile) {
  Fill();
  const auto second = Call(Person(2), 40s);
  const auto same = Call(Person(2));
  EndFirst();
  loop_.Advance(3500ms);
  EXPECT_EQ(gate_.upstream().waiting, 0u);
  EXPECT_FALSE(same->reply) << "it waits for the end of the other one";
  EXPECT_EQ(gate_.in_flight(), 1) << "and holds nothing";
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(second->reply && second->reply->ok());
  EXPECT_TRUE(same->reply && same->reply->ok() && same->reply->replayed);
  ExpectIdle();
}

TEST_F(QueueTest, ItsAddressMayBeBusyMeanwhile) {
  Fill();
  auto other = Person(2);
  other.set_request_id(Id(3));
  other.set_first_name("Bea");
  Call(Person(2));
  const auto third = Call(other);
  EndFirst();
  ASSERT_EQ(astra_.posts.size(), 2u);
  loop_.Advance(3500ms);
  ASSERT_TRUE(third->reply);
  EXPECT_EQ(third->reply->reason, v1::ERROR_REASON_EMAIL_BUSY);
  EXPECT_EQ(gate_.in_flight(), 1);
}

TEST_F(QueueTest, AtTheEndWhoWaitsHearsThatItsRequestRuns) {
  Fill();
  Call(Person(2));
  const auto same = Call(Person(2));
  EndFirst();
  gate_.Drain();
  creations_->AnswerAll();
  loop_.Settle();
  ASSERT_TRUE(same->reply);
  EXPECT_EQ(same->reply->reason, v1::ERROR_REASON_REQUEST_IN_PROGRESS);
}

TEST_F(QueueTest, AHoldMeetsWhoComesOutOfTheQueue) {
  Fill();
  const auto second = Call(Person(2));
  const auto third = Call(Person(3), 20s);
  gate_.HoldBack(loop_.Now(), absl::Seconds(30));
  loop_.Advance(2500ms);
  ASSERT_TRUE(third->reply);
  EXPECT_EQ(third->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED) << "its time is over";
  EndFirst();
  ASSERT_TRUE(second->reply);
  EXPECT_EQ(second->reply->reason, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED);
  EXPECT_EQ(second->reply->retry_after, absl::Milliseconds(27500));
  EXPECT_EQ(astra_.posts.size(), 1u);
  ExpectIdle();
}

TEST_F(QueueTest, ADrainAnswersWhoWaits) {
  Fill();
  const auto second = Call(Person(2));
  gate_.Drain();
  creations_->Drain();
  loop_.Settle();
  ASSERT_TRUE(second->reply);
  EXPECT_EQ(second->reply->reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_EQ(observer_.queue_ends.back().first, QueueEnd::kDrained);
  EndFirst();
  ExpectIdle();
}

TEST_F(QueueTest, ADrainMeetsWhoBeginsToWait) {
  Fill();
  ledger_.slow_to_answer = true;
  const auto second = Call(Person(2));
  gate_.Drain();
  creations_->Drain();
  ledger_.slow_to_answer = false;
  ledger_.Release();
  loop_.Settle();
  ASSERT_TRUE(second->reply);
  EXPECT_EQ(second->reply->reason, v1::ERROR_REASON_DRAINING);
  EndFirst();
  ExpectIdle();
}

TEST_F(QueueTest, TheEndAnswersWhoWaits) {
  Fill();
  const auto second = Call(Person(2));
  gate_.Drain();
  creations_->AnswerAll();
  loop_.Settle();
  ASSERT_TRUE(second->reply);
  EXPECT_EQ(second->reply->reason, v1::ERROR_REASON_DRAINING);
  EXPECT_EQ(gate_.upstream().waiting, 0u);
}

TEST_F(QueueTest, TheSlotMayComeBeforeTheLedgersAnswer) {
  Fill();
  ledger_.slow_to_answer = true;
  const auto second = Call(Person(2));
  ledger_.slow_to_answer = false;
  EndFirst();
  EXPECT_EQ(gate_.upstream().waiting, 0u);
  EXPECT_EQ(gate_.upstream().slots, 1);
  EXPECT_EQ(astra_.posts.size(), 1u);
  ledger_.Release();
  loop_.Settle();
  EXPECT_EQ(astra_.posts.size(), 2u);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(second->reply->ok());
  ExpectIdle();
}

TEST_F(QueueTest, WhoLeavesBeforeTheLedgersAnswerWaitsForNothing) {
  Fill();
  ledger_.slow_to_answer = true;
  const auto second = Call(Person(2));
  EXPECT_EQ(gate_.upstream().waiting, 1u);
  second->creation->CallerLeft();
  EXPECT_EQ(gate_.upstream().waiting, 0u);
  ledger_.Release();
  loop_.Settle();
  ledger_.slow_to_answer = false;
  EndFirst();
  EXPECT_EQ(astra_.posts.size(), 1u);
  ExpectIdle();
}

TEST_F(QueueTest, AFullQueueMakesRoomForAnotherCaller) {
  account_ = std::make_shared<policy::CallerAccount>(policy::Limits{});
  Fill();
  const auto second = Call(Person(2));
  const auto third = Call(Person(3));
  account_ = std::make_shared<policy::CallerAccount>(policy::Limits{});
  const auto other = Call(Person(4), 30s, "other");
  ASSERT_TRUE(third->reply);
  EXPECT_EQ(third->reply->reason, v1::ERROR_REASON_OVERLOADED);
  EXPECT_EQ(observer_.queue_ends.back().first, QueueEnd::kGaveWay);
  EXPECT_FALSE(second->reply || other->reply);
  EndFirst();
  EXPECT_EQ(astra_.posts.size(), 2u);
}

TEST_F(QueueTest, ASlotIsKeptBetweenTries) {
  Fill();
  const auto second = Call(Person(2));
  std::exchange(astra_.posts[0].done,
                nullptr)(FakeAstra::OutcomeOf(Verdict::kUnavailable, 503, absl::Milliseconds(500)));
  loop_.Settle();
  EXPECT_EQ(astra_.posts.size(), 1u);
  loop_.Advance(600ms);
  ASSERT_EQ(astra_.posts.size(), 2u);
  EXPECT_EQ(astra_.sent.email(), Person(1).email());
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  ASSERT_EQ(astra_.posts.size(), 3u);
  EXPECT_EQ(astra_.sent.email(), Person(2).email());
}

class TwoSlotsTest : public QueueTest {
 protected:
  TwoSlotsTest() : QueueTest(2) {}
};

TEST_F(TwoSlotsTest, WhoComesOutAndFindsItsRequestRunningGivesItsSlotBack) {
  Fill();
  Call(Person(9));
  const auto second = Call(Person(2));
  const auto same = Call(Person(2));
  EXPECT_EQ(gate_.upstream().waiting, 2u);
  std::exchange(astra_.posts[1].done, nullptr)(FakeAstra::OutcomeOf(Verdict::kCreated, 201, std::nullopt));
  EndFirst();
  EXPECT_EQ(astra_.posts.size(), 3u);
  EXPECT_EQ(gate_.upstream().waiting, 0u);
  EXPECT_FALSE(second->reply || same->reply);
  EXPECT_EQ(gate_.in_flight(), 1);
  EXPECT_EQ(gate_.upstream().slots, 1);
  astra_.Answer(Verdict::kCreated, 201);
  loop_.Settle();
  EXPECT_TRUE(same->reply && same->reply->ok() && same->reply->replayed);
  ExpectIdle();
}

class LimitTest : public CreationTest {
 protected:
  static AdmissionControl::Options OptionsOf() {
    AdmissionControl::Options options{100, 100ms};
    options.upstream.limit = {2, 100, 30s};
    return options;
  }
  LimitTest() : CreationTest(OptionsOf()) {}
};

TEST_F(LimitTest, OutcomesMoveIt) {
  const auto limit_after = [this](int n, Verdict verdict, int status) {
    loop_.Advance(1ms);
    Call(Person(n));
    loop_.Advance(1ms);
    astra_.Answer(verdict, status);
    loop_.Settle();
    return gate_.upstream().limit;
  };
  EXPECT_EQ(limit_after(1, Verdict::kCreated, 201), 100);
  EXPECT_EQ(limit_after(2, Verdict::kRejected, 422), 100);
  EXPECT_EQ(limit_after(3, Verdict::kUnknown, 0), 50);
  EXPECT_EQ(limit_after(4, Verdict::kUnknown, 500), 25);
  astra_.unsent = true;
  const auto left = Call(Person(5));
  left->creation->CallerLeft();
  loop_.Settle();
  EXPECT_EQ(gate_.upstream().limit, 25) << "a caller that leaves is no loss";
  EXPECT_EQ(gate_.upstream().slots, 0);
}

}  // namespace
}  // namespace userintent::usecase
