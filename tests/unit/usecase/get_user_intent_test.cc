// Reads of an intent, with a clock, a ledger in memory and an Astra of the test's own: what is answered from the
// record, how often Astra is asked, which reads share one answer, and what callers hear where there is none. Nothing
// sleeps.
#include "server/usecase/get_user_intent.h"

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

// The ledger in memory, which can be told to be down or silent.
class TestLedger final : public ledger::Ledger {
 public:
  Token Begin(ledger::BeginRequest request, Executor& executor, BeginDone done) override {
    return real_.Begin(std::move(request), executor, std::move(done));
  }
  void Forget(Token token) override { real_.Forget(token); }
  void NextAttempt(ledger::Key key, Uuid attempt_id, ledger::Sent sent, absl::Time now, Executor& executor,
                   AttemptDone done) override {
    real_.NextAttempt(std::move(key), attempt_id, sent, now, executor, std::move(done));
  }
  void Finish(ledger::FinishRequest request, Executor& executor, FinishDone done) override {
    real_.Finish(std::move(request), executor, std::move(done));
  }
  void Get(ledger::Key key, Executor& executor, GetDone done) override {
    if (silent) return;
    if (down) return executor.Post([done = std::move(done)]() mutable { done({}); });
    real_.Get(std::move(key), executor, std::move(done));
  }
  void FindIntent(std::string caller, std::string id, Executor& executor, GetDone done) override {
    real_.FindIntent(std::move(caller), std::move(id), executor, std::move(done));
  }
  void RecordReading(ledger::Key key, ledger::Reading reading, Executor& executor, ReadingDone done) override {
    ++readings;
    real_.RecordReading(std::move(key), std::move(reading), executor, std::move(done));
  }
  void Settle(ledger::SettleRequest request, Executor& executor, SettleDone done) override {
    real_.Settle(std::move(request), executor, std::move(done));
  }
  void Trace(ledger::TraceRequest request, Executor& executor, TraceDone done) override {
    real_.Trace(std::move(request), executor, std::move(done));
  }
  void ListSucceeded(ledger::SucceededRequest request, Executor& executor, SucceededDone done) override {
    real_.ListSucceeded(request, executor, std::move(done));
  }
  bool Writable() const override { return true; }

  bool down = false;
  bool silent = false;
  int readings = 0;

 private:
  ledger::MemoryLedger real_;
};

std::string Id(int n) {
  Uuid id{};
  id[15] = static_cast<uint8_t>(n);
  return UuidText(id);
}

std::string Intent(int n) { return "intent-" + std::to_string(n); }

// What one caller heard.
struct Heard {
  CallerLeft leave;
  std::optional<Result<v1::GetUserIntentResponse>> result;
  int times = 0;

  const v1::GetUserIntentResponse& response() const { return result->value(); }
  const CallError& error() const { return result->error(); }
};

using Request = v1::GetUserIntentRequest;

Request ById(int n) {
  Request request;
  request.set_request_id(Id(n));
  return request;
}

Request ByIntent(const std::string& id) {
  Request request;
  request.set_user_intent_id(id);
  return request;
}

Request Stale(int n) {
  Request request = ById(n);
  request.set_allow_stale(true);
  return request;
}

class GetUserIntentTest : public testing::Test {
 protected:
  explicit GetUserIntentTest(double rate = 0) : reads_(ledger_, admission_, observer_, rate) { now_ = absl::Now(); }
  // A call that was not answered holds what it would tell, which holds the call.
  ~GetUserIntentTest() override {
    for (const auto& heard : all_) heard->leave = nullptr;
  }

  // A row of "local" that ended, with Intent(n) where it SUCCEEDED; kSending: it runs.
  void Put(int n, State state = State::kSucceeded) {
    ledger::BeginRequest begin;
    begin.key = {"local", *ParseUuid(Id(n))};
    begin.current.content[0] = begin.current.person[0] = begin.current.email[0] = static_cast<uint8_t>(n);
    begin.verification_type = v1::VERIFICATION_TYPE_UNVERIFIED;
    begin.now = now_;
    ledger_.Begin(begin, loop_,
                  [](ledger::BeginAnswer answer) { ASSERT_EQ(answer.verdict, ledger::BeginVerdict::kGo); });
    loop_.Settle();
    if (state == State::kSending) return;
    ledger::FinishRequest finish;
    finish.key = begin.key;
    finish.state = state;
    finish.reason = state == State::kSucceeded ? 0 : v1::ERROR_REASON_UPSTREAM_REJECTED;
    finish.answer.at = finish.now = now_;
    if (state == State::kSucceeded) {
      finish.answer.user_intent_id = Intent(n);
      finish.answer.astra_status = "pending";
    }
    ledger_.Finish(finish, loop_, [](ledger::FinishAnswer answer) { ASSERT_TRUE(answer.committed); });
    loop_.Settle();
  }

  std::shared_ptr<Heard> Call(Request request, SteadyClock::duration deadline = 30s, const char* caller = "local") {
    return CallOn(deps_, loop_, std::move(request), deadline, caller);
  }
  std::shared_ptr<Heard> CallOn(const ReadDependencies& deps, FakeLoop& loop, Request request,
                                SteadyClock::duration deadline = 30s, const char* caller = "local") {
    auto heard = all_.emplace_back(std::make_shared<Heard>());
    heard->leave = GetUserIntent(
        deps, {caller, std::move(request), loop.Now() + deadline, [heard](Result<v1::GetUserIntentResponse> result) {
                 heard->result = std::move(result);
                 ++heard->times;
               }});
    loop.Settle();
    loop_.Settle();
    return heard;
  }

  ledger::Record Row(int n) {
    ledger::Record row;
    ledger_.Get({"local", *ParseUuid(Id(n))}, loop_, [&](ledger::GetAnswer answer) { row = *answer.record; });
    loop_.Settle();
    return row;
  }

  static absl::Time now_;  // the wall clock's
  std::vector<std::shared_ptr<Heard>> all_;
  FakeLoop loop_;
  FakeAstraReads astra_;
  TestLedger ledger_;
  AdmissionControl admission_{AdmissionControl::Options{2, 100ms}};
  ReadWatcher observer_;
  IntentReads reads_;
  const ReadDependencies deps_{ledger_, reads_, {loop_, astra_}, 100ms, [] { return now_; }};
};

absl::Time GetUserIntentTest::now_;

void ExpectError(const std::shared_ptr<Heard>& heard, v1::ErrorReason reason, Recovery recovery) {
  ASSERT_TRUE(heard->result);
  ASSERT_FALSE(heard->result->ok());
  EXPECT_EQ(heard->error().reason, reason) << ReasonName(heard->error().reason);
  EXPECT_EQ(heard->error().recovery, recovery);
}

TEST_F(GetUserIntentTest, EveryBrokenFieldIsNamed) {
  const auto fields = [this](const Request& request) {
    std::string all;
    const auto heard = Call(request);
    if (!heard->result || heard->result->ok()) return all;
    EXPECT_EQ(heard->error().reason, v1::ERROR_REASON_FIELD_INVALID);
    for (const intent::Violation& violation : heard->error().violations) all += std::string(violation.field) + " ";
    return all;
  };
  EXPECT_EQ(fields(Request()), "key ");
  Request request;
  request.mutable_max_age()->set_seconds(-1);
  EXPECT_EQ(fields(request), "key max_age ");
  request.set_request_id("no-uuid");
  EXPECT_EQ(fields(request), "request_id max_age ");
  request.set_user_intent_id("");
  EXPECT_EQ(fields(request), "user_intent_id max_age ");
  for (const std::string& id : {std::string(257, 'x'), std::string("a\nb"), std::string("\xc2\x85")}) {
    EXPECT_EQ(fields(ByIntent(id)), "user_intent_id ");
  }
  const std::pair<int64_t, int> ages[] = {{0, -1}, {0, 1000000000}, {315576000001, 0}, {-1, 1}};
  for (const auto& [seconds, nanos] : ages) {
    request = ById(1);
    request.mutable_max_age()->set_seconds(seconds);
    request.mutable_max_age()->set_nanos(nanos);
    EXPECT_EQ(fields(request), "max_age ") << seconds << " " << nanos;
  }
  EXPECT_TRUE(astra_.gets.empty());
}

TEST_F(GetUserIntentTest, AsksAstraAndKeepsWhatItSaid) {
  now_ -= absl::Hours(1);
  Put(1);
  now_ += absl::Hours(1);
  const auto heard = Call(ById(1));
  ASSERT_EQ(astra_.gets.size(), 1u);
  EXPECT_EQ(astra_.gets[0].id, Intent(1));
  const absl::Time before = absl::Now() - absl::Milliseconds(1);
  astra_.AnswerStatus("converted_to_user", "user-7", v1::VERIFICATION_TYPE_VERIFIED);
  loop_.Settle();
  ASSERT_TRUE(heard->result && heard->result->ok());
  const v1::UserIntent& intent = heard->response().user_intent();
  EXPECT_EQ(intent.id(), Intent(1));
  EXPECT_EQ(intent.status(), v1::USER_INTENT_STATUS_CONVERTED_TO_USER);
  EXPECT_EQ(intent.user_id(), "user-7");
  EXPECT_EQ(intent.verification_type(), v1::VERIFICATION_TYPE_VERIFIED);
  EXPECT_EQ(intent.status_time().seconds(), heard->response().read_time().seconds());
  EXPECT_GT(intent.status_time().seconds(), intent.create_time().seconds());
  EXPECT_FALSE(heard->response().stale());
  const ledger::Reading latest = Row(1).latest;
  EXPECT_EQ(latest.astra_status, "converted_to_user");
  EXPECT_EQ(latest.user_id, "user-7");
  EXPECT_GE(latest.read_at, before);
  EXPECT_EQ(latest.status_since, latest.read_at);
  EXPECT_EQ(observer_.ended, std::vector{ReadVerdict::kRead});
  EXPECT_EQ(loop_.timers(), 0u) << "a timer outlives its call";
}

TEST_F(GetUserIntentTest, TheSameStatusKeepsItsTimeAndTheTypeAsked) {
  now_ -= absl::Hours(1);
  Put(1);
  const auto heard = Call(ByIntent(Intent(1)));
  astra_.AnswerStatus("pending");
  loop_.Settle();
  ASSERT_TRUE(heard->result && heard->result->ok());
  EXPECT_EQ(heard->response().user_intent().status_time().seconds(),
            heard->response().user_intent().create_time().seconds());
  EXPECT_EQ(heard->response().user_intent().verification_type(), v1::VERIFICATION_TYPE_UNVERIFIED);
}

TEST_F(GetUserIntentTest, WhatIsNotOnRecord) {
  Put(1);
  ExpectError(Call(ById(2)), v1::ERROR_REASON_REQUEST_NOT_FOUND, Recovery::kStop);
  ExpectError(Call(ByIntent("intent-2")), v1::ERROR_REASON_USER_INTENT_NOT_FOUND, Recovery::kStop);
  ExpectError(Call(ById(1), 30s, "dns:other"), v1::ERROR_REASON_REQUEST_NOT_FOUND, Recovery::kStop);
  ExpectError(Call(ByIntent(Intent(1)), 30s, "dns:other"), v1::ERROR_REASON_USER_INTENT_NOT_FOUND, Recovery::kStop);
  EXPECT_TRUE(astra_.gets.empty());
}

TEST_F(GetUserIntentTest, ARequestWithoutAnIntent) {
  const std::pair<State, Recovery> rows[] = {{State::kSending, Recovery::kAskSameId},
                                             {State::kUnknown, Recovery::kAskSameId},
                                             {State::kFailed, Recovery::kStop},
                                             {State::kReleased, Recovery::kStop}};
  int n = 0;
  for (const auto& [state, recovery] : rows) {
    Put(++n, state);
    ExpectError(Call(Stale(n)), v1::ERROR_REASON_NOT_CREATED, recovery);
  }
  EXPECT_TRUE(astra_.gets.empty());
}

TEST_F(GetUserIntentTest, ALedgerThatCannotBeUsed) {
  Put(1);
  ledger_.down = true;
  ExpectError(Call(Stale(1)), v1::ERROR_REASON_LEDGER_UNAVAILABLE, Recovery::kRetrySameId);
  ledger_.silent = true;
  const auto heard = Call(Stale(1), 10s);
  loop_.Advance(9940ms);
  EXPECT_FALSE(heard->result);
  loop_.Advance(20ms);
  ExpectError(heard, v1::ERROR_REASON_LEDGER_UNAVAILABLE, Recovery::kRetrySameId);
}

TEST_F(GetUserIntentTest, MaxAgeIsAnsweredFromTheRecord) {
  Put(1);
  now_ += absl::Seconds(60);
  Request request = ById(1);
  request.mutable_max_age()->set_seconds(60);
  const auto kept = Call(request);
  ASSERT_TRUE(kept->result && kept->result->ok());
  EXPECT_FALSE(kept->response().stale());
  EXPECT_EQ(kept->response().user_intent().status(), v1::USER_INTENT_STATUS_PENDING);
  EXPECT_EQ(kept->response().read_time().seconds(), absl::ToUnixSeconds(now_) - 60);
  EXPECT_TRUE(astra_.gets.empty());
  now_ += absl::Microseconds(1);
  Call(request);
  EXPECT_EQ(astra_.gets.size(), 1u) << "older than asked for";
}

TEST_F(GetUserIntentTest, AReadingFromTheFutureIsOfNoAge) {
  Put(1);
  now_ -= absl::Seconds(1);  // the clock was put back
  Request request = ById(1);
  request.mutable_max_age()->set_seconds(60);
  Call(request);
  EXPECT_EQ(astra_.gets.size(), 1u);
}

TEST_F(GetUserIntentTest, IdenticalReadsShareOneGet) {
  Put(1);
  Put(2);
  FakeLoop other_loop;
  const ReadDependencies other{ledger_, reads_, {other_loop, astra_}, 100ms, [] { return now_; }};
  const auto first = Call(ById(1));
  const auto second = Call(ByIntent(Intent(1)));
  std::shared_ptr<Heard> elsewhere = CallOn(other, other_loop, ById(1));  // on another shard
  EXPECT_EQ(astra_.gets.size(), 1u);
  Call(ById(2));
  EXPECT_EQ(astra_.gets.size(), 2u) << "another intent is another read";
  astra_.gets.pop_back();
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_FALSE(elsewhere->result) << "answered on another shard's thread";
  other_loop.Settle();
  for (const auto& heard : {first, second, elsewhere}) {
    ASSERT_TRUE(heard->result && heard->result->ok());
    EXPECT_EQ(heard->response().user_intent().status(), v1::USER_INTENT_STATUS_APPROVED);
    EXPECT_EQ(heard->times, 1);
  }
  EXPECT_EQ(ledger_.readings, 1);
  Call(ById(1));
  EXPECT_EQ(astra_.gets.size(), 2u) << "the read before is over";
}

TEST_F(GetUserIntentTest, ACallerThatLeavesLeavesTheOthersAlone) {
  Put(1);
  const auto first = Call(ById(1));
  const auto second = Call(ById(1), 5s);
  const auto third = Call(ById(1));
  EXPECT_EQ(reads_.waiting(), 3u);
  first->leave();
  EXPECT_EQ(reads_.waiting(), 2u);
  loop_.Advance(4960ms);
  EXPECT_EQ(reads_.waiting(), 1u);
  EXPECT_EQ(second->error().message, kReadUnavailableMessage);
  ExpectError(second, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, Recovery::kRetrySameId);
  EXPECT_FALSE(third->result);
  astra_.Answer(ReadVerdict::kUnavailable);
  loop_.Advance(200ms);
  ASSERT_EQ(astra_.gets.size(), 2u) << "read again for the third";
  astra_.AnswerStatus("approved");
  loop_.Settle();
  EXPECT_FALSE(first->result);
  EXPECT_EQ(second->times, 1);
  ASSERT_TRUE(third->result && third->result->ok());
  EXPECT_EQ(loop_.timers(), 0u);
}

TEST_F(GetUserIntentTest, NothingIsReadAgainForNobody) {
  Put(1);
  auto heard = Call(ById(1));
  heard->leave();
  astra_.Answer(ReadVerdict::kUnavailable);
  EXPECT_EQ(loop_.timers(), 0u) << "waits for nobody";
  heard = Call(ById(1));
  EXPECT_EQ(astra_.gets.size(), 2u) << "the abandoned read is in the way";
  astra_.Answer(ReadVerdict::kRateLimited, 429);  // waits for a second
  heard->leave();
  loop_.Advance(10s);
  EXPECT_EQ(astra_.gets.size(), 2u);
}

TEST_F(GetUserIntentTest, ADrainingServerReadsNothingAgain) {
  Put(1);
  const auto heard = Call(ById(1));
  astra_.Answer(ReadVerdict::kRateLimited, 429);
  admission_.Drain();
  loop_.Advance(1s);
  ExpectError(heard, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
  EXPECT_EQ(astra_.gets.size(), 1u);
  const auto later = Call(ById(1));
  astra_.Answer(ReadVerdict::kRateLimited, 429);
  loop_.Settle();
  ExpectError(later, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
}

TEST_F(GetUserIntentTest, ACallerThatLeavesBeforeTheLedgerAnswersReadsNothing) {
  Put(1);
  CallerLeft left = GetUserIntent(deps_, {"local", ById(1), loop_.Now() + 30s, [](auto) { ADD_FAILURE() << "heard"; }});
  left();
  loop_.Advance(1min);
  EXPECT_TRUE(astra_.gets.empty());
}

TEST_F(GetUserIntentTest, TriesAreSpread) {
  for (int n = 1; n <= 20; ++n) {
    Put(n);
    Call(ById(n));
    astra_.Answer(ReadVerdict::kNotSent);
  }
  loop_.Advance(1ms);
  EXPECT_LT(astra_.gets.size(), 40u) << "no jitter";
}

TEST_F(GetUserIntentTest, ATryBeginsOnlyWithEnoughTimeLeft) {
  Put(1);
  Put(2);
  const auto fits = Call(ById(1), 5s);
  astra_.Answer(ReadVerdict::kRateLimited, 429, absl::Milliseconds(5000 - 50 - 100));
  loop_.Settle();
  EXPECT_FALSE(fits->result);
  const auto late = Call(ById(2), 5s);
  astra_.Answer(ReadVerdict::kRateLimited, 429, absl::Milliseconds(5000 - 50 - 99));
  loop_.Settle();
  ExpectError(late, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
  EXPECT_TRUE(late->error().message.empty()) << "the table's";
}

TEST_F(GetUserIntentTest, AServerThatStopsAnswersEveryReader) {
  Put(1);
  Put(2);
  const auto first = Call(ById(1));
  const auto second = Call(ById(1));
  const auto stale = Call(Stale(2));
  EXPECT_EQ(reads_.waiting(), 3u);
  reads_.AnswerAll();
  loop_.Settle();
  EXPECT_EQ(reads_.waiting(), 0u);
  ExpectError(first, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, Recovery::kRetrySameId);
  ExpectError(second, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, Recovery::kRetrySameId);
  EXPECT_EQ(second->error().message, kReadUnavailableMessage);
  ASSERT_TRUE(stale->result && stale->result->ok());
  EXPECT_TRUE(stale->response().stale());
  astra_.AnswerStatus("approved");  // too late for the callers, and kept all the same
  loop_.Settle();
  EXPECT_EQ(Row(2).latest.astra_status, "approved");
}

TEST_F(GetUserIntentTest, ThreeGetsAndThenTheError) {
  Put(1);
  const auto heard = Call(ById(1));
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(astra_.gets.size(), static_cast<size_t>(i + 1));
    astra_.Answer(ReadVerdict::kUnavailable, 502);
    loop_.Advance(2s);
  }
  EXPECT_EQ(astra_.gets.size(), 3u);
  ExpectError(heard, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, Recovery::kRetrySameId);
  EXPECT_EQ(heard->error().http_status, 502);
  EXPECT_EQ(heard->error().message, kReadUnavailableMessage);
  EXPECT_EQ(heard->error().astra_request_id, "req-9");
}

TEST_F(GetUserIntentTest, AWaitThatDoesNotFitIsToldToTheCaller) {
  Put(1);
  const auto heard = Call(ById(1), 5s);
  astra_.Answer(ReadVerdict::kUnavailable, 503, absl::Seconds(7));
  loop_.Settle();
  ExpectError(heard, v1::ERROR_REASON_UPSTREAM_UNAVAILABLE, Recovery::kRetrySameId);
  EXPECT_EQ(heard->error().retry_after, absl::Seconds(7));
}

TEST_F(GetUserIntentTest, A401IsReadAgainWithOtherCredentials) {
  Put(1);
  astra_.new_credentials = true;
  const auto heard = Call(ById(1));
  astra_.Answer(ReadVerdict::kCredentialsRejected, 401);
  loop_.Advance(0s);
  ASSERT_EQ(astra_.gets.size(), 2u);
  astra_.new_credentials = true;
  astra_.Answer(ReadVerdict::kCredentialsRejected, 401);
  loop_.Settle();
  ExpectError(heard, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED, Recovery::kWaitForOperator);
  astra_.new_credentials = true;
  const auto known = Call(ById(1));
  astra_.Answer(ReadVerdict::kCredentialsRejected, 403);
  loop_.Settle();
  ExpectError(known, v1::ERROR_REASON_UPSTREAM_CREDENTIALS_REJECTED, Recovery::kWaitForOperator);
  EXPECT_TRUE(astra_.new_credentials) << "the files were read for a 403";
}

TEST_F(GetUserIntentTest, ADeadlineThatIsTooShort) {
  Put(1);
  ExpectError(Call(ById(1), 99ms), v1::ERROR_REASON_DEADLINE_TOO_SHORT, Recovery::kRetrySameId);
  const auto stale = Call(Stale(1), 99ms);
  ASSERT_TRUE(stale->result && stale->result->ok());
  EXPECT_TRUE(stale->response().stale());
  EXPECT_TRUE(astra_.gets.empty());
  Call(ById(1), 100ms);
  EXPECT_EQ(astra_.gets.size(), 1u);
}

TEST_F(GetUserIntentTest, StaleInsteadOfEveryFailureToAskAstra) {
  const std::pair<ReadVerdict, int> failures[] = {{ReadVerdict::kNotSent, 0},
                                                  {ReadVerdict::kUnavailable, 500},
                                                  {ReadVerdict::kRateLimited, 429},
                                                  {ReadVerdict::kCredentialsRejected, 403},
                                                  {ReadVerdict::kMisconfigured, 301}};
  Put(1);
  for (const auto& [verdict, status] : failures) {
    const auto heard = Call(Stale(1), 10s);
    for (int i = 0; i < 3 && !heard->result; ++i) {
      astra_.Answer(verdict, status);
      loop_.Advance(2s);
    }
    ASSERT_TRUE(heard->result && heard->result->ok()) << status;
    EXPECT_TRUE(heard->response().stale());
    EXPECT_EQ(heard->response().user_intent().status(), v1::USER_INTENT_STATUS_PENDING);
    EXPECT_EQ(heard->response().read_time().seconds(), absl::ToUnixSeconds(now_));
  }
  const auto late = Call(Stale(1), 5s);
  loop_.Advance(4960ms);
  ASSERT_TRUE(late->result && late->result->ok());
  EXPECT_TRUE(late->response().stale());
  astra_.Answer(ReadVerdict::kNotFound, 404);
  loop_.Settle();
  const auto gone = Call(Stale(1));
  astra_.Answer(ReadVerdict::kNotFound, 404);
  loop_.Settle();
  ExpectError(gone, v1::ERROR_REASON_USER_INTENT_NOT_FOUND, Recovery::kStop);
  EXPECT_EQ(gone->error().http_status, 404);
}

class ReadBudgetTest : public GetUserIntentTest {
 protected:
  ReadBudgetTest() : GetUserIntentTest(2) {}
};

TEST_F(ReadBudgetTest, EveryGetTakesATokenAndNoneIsBorrowed) {
  for (int n = 1; n <= 6; ++n) Put(n);
  for (int n = 1; n <= 4; ++n) Call(ById(n));
  EXPECT_EQ(astra_.gets.size(), 4u) << "a burst of twice the rate";
  const auto joined = Call(ById(4));
  EXPECT_FALSE(joined->result) << "a read that joins takes none";
  auto refused = Call(ById(5));
  ExpectError(refused, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
  EXPECT_EQ(refused->error().retry_after, absl::Milliseconds(500));
  EXPECT_EQ(refused->error().http_status, 0);
  EXPECT_FALSE(refused->error().message.empty()) << "Astra limits nothing here";
  const auto stale = Call(Stale(5));
  ASSERT_TRUE(stale->result && stale->result->ok());
  EXPECT_TRUE(stale->response().stale());
  astra_.Answer(ReadVerdict::kUnavailable);  // the next GET finds no token either
  loop_.Advance(499ms);
  ExpectError(joined, v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
  ExpectError(Call(ById(5)), v1::ERROR_REASON_UPSTREAM_RATE_LIMITED, Recovery::kRetrySameId);
  loop_.Advance(1ms);
  Call(ById(5));
  EXPECT_EQ(astra_.gets.size(), 5u);
  loop_.Advance(1h);
  for (int n = 7; n <= 12; ++n) Put(n);
  for (int n = 7; n <= 12; ++n) Call(ById(n));
  EXPECT_EQ(astra_.gets.size(), 9u) << "the bucket overflows at twice the rate";
}

}  // namespace
}  // namespace userintent::usecase
