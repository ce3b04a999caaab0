// ledger::GroupCommit over a store that fails: each single call of the store fails once, at every place of a whole
// story.
#include "server/ledger/group_commit.h"

#include <functional>
#include <map>
#include <numeric>

#include "tests/unit/ledger/failing_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using V = BeginVerdict;

// Takes everything it hears.
class Listener final : public ChangeListener {
 public:
  void OnChanges(absl::Span<const Change> changes) override {
    heard.insert(heard.end(), changes.begin(), changes.end());
  }
  std::vector<Change> heard;
};

class GroupCommitTest : public testing::Test {
 protected:
  GroupCommitTest() : GroupCommitTest(WaiterLimits()) {}
  explicit GroupCommitTest(WaiterLimits limits) : commit_(store_, 19, nullptr, limits) {}

  // Each helper counts the answers it waits for, so that a lost or a second answer is seen.
  std::shared_ptr<std::optional<BeginAnswer>> Begin(const Call& call) {
    ops_.push_back(NewBegin(++token_, call.request(), pump_, Once<BeginAnswer>()));
    return std::static_pointer_cast<std::optional<BeginAnswer>>(last_);
  }
  std::shared_ptr<std::optional<FinishAnswer>> Finish(const FinishRequest& request) {
    ops_.push_back(NewFinish(request, pump_, Once<FinishAnswer>()));
    return std::static_pointer_cast<std::optional<FinishAnswer>>(last_);
  }
  void Finish(const FinishRequest& request, std::function<void()> then) {
    ops_.push_back(NewFinish(request, pump_, [then = std::move(then)](const FinishAnswer&) { then(); }));
  }
  std::shared_ptr<std::optional<GetAnswer>> Get(const Key& key) {
    ops_.push_back(NewGet({key, {}}, pump_, Once<GetAnswer>()));
    return std::static_pointer_cast<std::optional<GetAnswer>>(last_);
  }
  std::shared_ptr<std::optional<bool>> Next(const Key& key) {
    ops_.push_back(NewNextAttempt({key, Id(77), Sent::kYes, At(4)}, pump_, Once<bool>()));
    return std::static_pointer_cast<std::optional<bool>>(last_);
  }
  std::shared_ptr<std::optional<GetAnswer>> FindIntent(const std::string& intent) {
    ops_.push_back(NewGet({{"one", {}}, intent}, pump_, Once<GetAnswer>()));
    return std::static_pointer_cast<std::optional<GetAnswer>>(last_);
  }
  std::shared_ptr<std::optional<bool>> RecordReading(const Key& key, const Reading& reading) {
    ops_.push_back(NewReading({key, reading}, pump_, Once<bool>()));
    return std::static_pointer_cast<std::optional<bool>>(last_);
  }
  std::shared_ptr<std::optional<SettleAnswer>> Settle(const SettleRequest& request) {
    ops_.push_back(NewSettle(request, pump_, Once<SettleAnswer>()));
    return std::static_pointer_cast<std::optional<SettleAnswer>>(last_);
  }
  // The tokens of Begin are 1, 2, 3 and so on.
  void Forget(Ledger::Token token) { ops_.push_back(NewForget(token)); }
  void Run() {
    commit_.Run(ops_);
    ops_.clear();
    pump_.Drain();
  }
  // Every counter is the sum over its rows.
  void CheckCounters() {
    std::map<Digest, Counters> sums;
    for (const Row& row : store_.store.AllRows()) {
      Counters& sum = sums[row.email];
      if (row.record.answer.confirmed) {
        ++sum.confirmed;
      } else if (row.record.state != State::kReleased) {
        ++sum.possible;
      }
    }
    for (const auto& [email, counters] : store_.store.AllCounters()) EXPECT_EQ(counters, sums[email]);
  }

  FailingStore store_;
  Pump pump_;
  GroupCommit commit_;
  const Key key_{"one", Id(1)};

 private:
  template <typename Answer>
  absl::AnyInvocable<void(Answer)> Once() {
    auto slot = std::make_shared<std::optional<Answer>>();
    last_ = slot;
    return [slot](Answer answer) {
      EXPECT_FALSE(slot->has_value()) << "answered twice";
      *slot = std::move(answer);
    };
  }

  std::vector<std::unique_ptr<Operation>> ops_;
  std::shared_ptr<void> last_;
  Ledger::Token token_ = 0;
};

TEST_F(GroupCommitTest, OneBatchIsOneTransactionInOrder) {
  auto go = Begin({});
  auto joined = Begin({});
  auto end = Finish(Succeeded(key_));
  auto replay = Begin({});
  auto got = Get(key_);
  Run();
  EXPECT_EQ((*go)->verdict, V::kGo);
  EXPECT_TRUE((*joined)->joined);
  EXPECT_TRUE((*end)->committed);
  EXPECT_EQ((*replay)->verdict, V::kRecorded);
  EXPECT_FALSE((*replay)->joined);
  EXPECT_EQ((*got)->record->state, State::kSucceeded);
}

// Load and Apply, between Start and Commit: what a store behind a network would be asked.
TEST_F(GroupCommitTest, AnOperationAsksItsStoreTwice) {
  const auto asked = [this](auto submit) {
    const int before = store_.calls;
    submit();
    Run();
    return store_.calls - before - 2;
  };
  EXPECT_EQ(asked([this] { Begin({}); }), 2);
  EXPECT_EQ(asked([this] { Next(key_); }), 2);
  EXPECT_EQ(asked([this] { Finish(Succeeded(key_)); }), 2);
  EXPECT_EQ(asked([this] { RecordReading(key_, Said("converted", 9)); }), 2);
  EXPECT_EQ(asked([this] { Begin({}); }), 1) << "a replay writes nothing";
  EXPECT_EQ(asked([this] { Get(key_); }), 1);
  EXPECT_EQ(asked([this] { Begin({.id = 2, .supersedes = 1, .allow_repeat = true, .previous = {kOldKey}}); }), 2);
}

TEST_F(GroupCommitTest, ABrokenProtocolHarmsNobodyElse) {
  auto bad = Finish(Succeeded({"one", Id(9)}));
  auto next = Next({"one", Id(9)});
  auto go = Begin({});
  Run();
  EXPECT_FALSE((*bad)->committed);
  EXPECT_FALSE(**next);
  EXPECT_EQ((*go)->verdict, V::kGo);
  EXPECT_TRUE(commit_.healthy());
}

TEST_F(GroupCommitTest, WhenACommitFailsNothingWasPromised) {
  auto running = Begin({.id = 2, .email = "b@example.com"});
  auto done = Begin({.id = 3, .email = "c@example.com"});
  Run();
  Finish(Succeeded({"one", Id(3)}));
  Run();
  auto join = Begin({.id = 2, .email = "b@example.com"});
  Run();
  EXPECT_FALSE(join->has_value());

  {
    store_.fail_at = store_.calls;  // the next transaction cannot start; reading goes on
    auto fresh = Begin({});
    auto end = Finish(Succeeded({"one", Id(2)}));
    auto late = Begin({.id = 2, .email = "b@example.com"});
    auto busy = Begin({.id = 4, .email = "b@example.com"});
    auto replay = Begin({.id = 3, .email = "c@example.com"});
    auto reused = Begin({.id = 3, .email = "c@example.com", .ip = "8.8.4.4"});
    auto look = Begin({.may_start = false});
    auto next = Next({"one", Id(2)});
    auto got = Get({"one", Id(2)});
    Run();
    EXPECT_FALSE(commit_.healthy());
    EXPECT_EQ((*fresh)->verdict, V::kUnavailable);
    EXPECT_EQ((*look)->verdict, V::kUnavailable);
    EXPECT_FALSE((*end)->committed);
    EXPECT_EQ((*end)->record.state, State::kUnknown);
    EXPECT_EQ((*end)->record.reason, 19);
    EXPECT_EQ((*end)->record.updated, At(5));
    EXPECT_EQ((*end)->record.sent, Sent::kYes);
    EXPECT_EQ((*end)->record.key, (Key{"one", Id(2)}));
    ASSERT_TRUE(join->has_value());
    for (const auto& answer : {*join, *late}) {
      EXPECT_EQ(answer->verdict, V::kRecorded);
      EXPECT_EQ(answer->own->state, State::kUnknown);
      EXPECT_EQ(answer->own->reason, 19);
      EXPECT_EQ(answer->own->answer.user_intent_id, "");  // an outcome that may still be lost is not told
      EXPECT_EQ(answer->budget.used_max, 1);
    }
    EXPECT_TRUE((*join)->joined);
    EXPECT_FALSE((*late)->joined);
    EXPECT_EQ((*busy)->verdict, V::kEmailBusy);
    EXPECT_EQ((*replay)->verdict, V::kRecorded);
    EXPECT_EQ((*replay)->own->state, State::kSucceeded);
    EXPECT_EQ((*reused)->verdict, V::kReused);
    EXPECT_FALSE(**next);
    EXPECT_EQ((*got)->record->state, State::kUnknown);
    EXPECT_EQ(commit_.waiting_outcomes(), 1u);
  }
  // The first outcome told is the one that is kept.
  auto second = Finish(Failed({"one", Id(2)}));
  Run();
  EXPECT_FALSE((*second)->committed);
  EXPECT_EQ(commit_.waiting_outcomes(), 1u);

  // Only the retry brings it back; it fails once more first.
  store_.fail_at = store_.calls;
  EXPECT_FALSE(commit_.Retry());
  EXPECT_FALSE(commit_.healthy());
  EXPECT_TRUE(commit_.Retry());
  EXPECT_TRUE(commit_.healthy());
  EXPECT_EQ(commit_.waiting_outcomes(), 0u);
  auto replay = Begin({.id = 2, .email = "b@example.com"});
  auto fresh = Begin({});
  Run();
  EXPECT_EQ((*replay)->own->state, State::kSucceeded);
  EXPECT_EQ((*replay)->own->answer.user_intent_id, "intent-1");
  EXPECT_EQ((*fresh)->verdict, V::kGo);
  CheckCounters();
}

TEST_F(GroupCommitTest, WhenNothingCanBeReadEverythingIsStillAnswered) {
  Begin({});
  Run();
  store_.fail_at = store_.calls;
  store_.run = 1'000'000;
  auto begin = Begin({.id = 2, .email = "b@example.com"});
  auto end = Finish(Succeeded(key_));
  auto got = Get(key_);
  auto next = Next(key_);
  Run();
  EXPECT_EQ((*begin)->verdict, V::kUnavailable);
  EXPECT_FALSE((*end)->committed);
  EXPECT_EQ((*end)->record.key, key_);
  EXPECT_EQ((*end)->record.state, State::kUnknown);
  EXPECT_FALSE((*got)->available);
  EXPECT_FALSE(**next);
  store_.fail_at = -1;
  EXPECT_TRUE(commit_.Retry());
  auto after = Get(key_);
  Run();
  EXPECT_EQ((*after)->record->state, State::kSucceeded);
}

// An intent can be read while nothing can be written; what Astra said then is asked again later.
TEST_F(GroupCommitTest, AReadingDoesNotWaitForTheDisk) {
  Begin({});
  Finish(Succeeded(key_));
  Run();
  store_.fail_at = store_.calls;  // the next transaction cannot start; reading goes on
  auto lost = RecordReading(key_, Said("converted", 9));
  auto found = FindIntent("intent-1");
  Run();
  EXPECT_FALSE(**lost);
  EXPECT_EQ((*found)->record->latest.astra_status, "pending");
  EXPECT_TRUE(commit_.Retry());
  auto after = FindIntent("intent-1");
  auto kept = RecordReading(key_, Said("converted", 9));
  auto then = FindIntent("intent-1");
  Run();
  EXPECT_EQ((*after)->record->latest.astra_status, "pending");
  EXPECT_TRUE(**kept);
  EXPECT_EQ((*then)->record->latest.astra_status, "converted");
}

TEST_F(GroupCommitTest, WithoutAdmissionOnlyStartingStops) {
  auto first = Begin({});
  Run();
  commit_.set_admit(false);
  auto refused = Begin({.id = 2, .email = "b@example.com"});
  auto look = Begin({.id = 2, .email = "b@example.com", .may_start = false});
  auto join = Begin({});
  auto busy = Begin({.id = 2});
  Run();
  EXPECT_EQ((*refused)->verdict, V::kUnavailable);
  EXPECT_EQ((*look)->verdict, V::kUnavailable);
  EXPECT_EQ((*busy)->verdict, V::kEmailBusy);
  EXPECT_FALSE(join->has_value());
  auto end = Finish(Succeeded(key_));
  Run();
  EXPECT_TRUE((*end)->committed);
  EXPECT_TRUE((*join)->joined);
  commit_.set_admit(true);
  auto again = Begin({.id = 2, .email = "b@example.com"});
  Run();
  EXPECT_EQ((*again)->verdict, V::kGo);
}

TEST_F(GroupCommitTest, ATransactionOfItsOwnHarmsNobody) {
  Begin({});
  Run();
  const auto put = [this]() -> absl::Status {
    Lookup lookup;
    lookup.key = &key_;
    absl::StatusOr<View> view = store_.Load(lookup);
    if (!view.ok()) return view.status();
    view->own->record.posts = 7;
    Changes changes;
    changes.rows.push_back({*std::move(view->own), RowChange::Part::kProgress});
    return store_.Apply(std::move(changes));
  };
  EXPECT_EQ(commit_.Transact([&] { return put().ok() ? absl::NotFoundError("no") : absl::OkStatus(); }).message(),
            "no");
  EXPECT_TRUE(commit_.healthy());
  EXPECT_EQ(store_.store.Find(key_)->record.posts, 1);
  EXPECT_TRUE(commit_.Transact(put).ok());
  EXPECT_EQ(store_.store.Find(key_)->record.posts, 7);
  // Load, Apply, Commit: the third fails, and with it the ledger, until a retry.
  store_.fail_at = store_.calls + 3;
  EXPECT_TRUE(absl::IsUnavailable(commit_.Transact(put)));
  EXPECT_FALSE(commit_.healthy());
  EXPECT_TRUE(absl::IsUnavailable(commit_.last_error()));
  store_.fail_at = -1;
  bool ran = false;
  EXPECT_TRUE(absl::IsUnavailable(commit_.Transact([&] {
    ran = true;
    return absl::OkStatus();
  })));
  EXPECT_FALSE(ran);
  EXPECT_TRUE(commit_.Retry());
  EXPECT_TRUE(commit_.Transact(put).ok());
}

TEST_F(GroupCommitTest, ARetryWritesEveryOutcomeOrNone) {
  const Key other{"one", Id(2)};
  const auto state = [this](const Key& key) { return store_.store.Find(key)->record.state; };
  Begin({});
  Begin({.id = 2, .email = "b@example.com"});
  Run();
  EXPECT_TRUE(commit_.last_error().ok());
  store_.fail_at = store_.calls;
  Finish(Succeeded(key_));
  Finish(Failed(other));
  Run();
  EXPECT_TRUE(absl::IsUnavailable(commit_.last_error()));
  int failed = 0;  // the place of the call that fails
  for (; failed < 100; ++failed) {
    store_.fail_at = store_.calls + failed;
    if (commit_.Retry()) break;
    EXPECT_FALSE(commit_.healthy());
    EXPECT_TRUE(absl::IsUnavailable(commit_.last_error())) << commit_.last_error();
    EXPECT_EQ(commit_.waiting_outcomes(), 2u);
    EXPECT_EQ(state(key_), State::kSending);
    EXPECT_EQ(state(other), State::kSending);
  }
  EXPECT_GT(failed, 5);
  EXPECT_LT(failed, 100);
  EXPECT_TRUE(commit_.last_error().ok());
  EXPECT_EQ(state(key_), State::kSucceeded);
  EXPECT_EQ(state(other), State::kFailed);
  CheckCounters();
}

TEST_F(GroupCommitTest, ARetryWithoutOutcomesWritesAllTheSame) {
  store_.fail_at = store_.calls;
  Begin({});
  Run();
  for (const int after : {1, 2}) {  // Start works, writing or committing does not
    store_.fail_at = store_.calls + after;
    EXPECT_FALSE(commit_.Retry()) << after;
  }
  EXPECT_TRUE(commit_.Retry());
}

TEST_F(GroupCommitTest, AnOutcomeThatComesTooLateChangesNothing) {
  const Key running{"one", Id(2)};
  Begin({});
  Begin({.id = 2, .email = "b@example.com"});
  Finish(Succeeded(key_));
  Run();
  store_.fail_at = store_.calls;
  store_.run = 1'000'000;
  Finish(Failed(key_));  // nobody can see that the row has ended
  Run();
  EXPECT_EQ(commit_.waiting_outcomes(), 1u);

  store_.fail_at = -1;  // reading goes on
  auto late = Finish(Failed(key_));
  auto got = Get(key_);
  auto sending = Get(running);
  auto replay = Begin({.previous = {kOldKey}});  // also where a row might have to move, which would be writing
  Run();
  EXPECT_FALSE((*late)->committed);
  EXPECT_EQ((*late)->record.state, State::kSucceeded);
  EXPECT_EQ((*got)->record->state, State::kSucceeded);
  EXPECT_EQ((*sending)->record->state, State::kSending);
  EXPECT_EQ((*replay)->verdict, V::kRecorded);

  EXPECT_TRUE(commit_.Retry());
  EXPECT_EQ(commit_.waiting_outcomes(), 0u);
  EXPECT_EQ(store_.store.Find(key_)->record.state, State::kSucceeded);
}

TEST_F(GroupCommitTest, OneJoinForgottenIsTheOtherOnesNoMatter) {
  Begin({});
  auto forgotten = Begin({});
  auto waiting = Begin({});
  Run();
  EXPECT_EQ(commit_.waiting_joins(), 2u);
  Forget(2);
  Forget(2);
  Run();
  EXPECT_EQ(commit_.waiting_joins(), 1u);
  Finish(Succeeded(key_));
  Run();
  EXPECT_FALSE(forgotten->has_value());
  ASSERT_TRUE(waiting->has_value());
  EXPECT_TRUE((*waiting)->joined);
  EXPECT_EQ(commit_.waiting_joins(), 0u);
  Forget(3);  // too late
  Run();
}

// Answers as told, and counts.
struct Gatekeeper final : Admission {
  explicit Gatekeeper(bool lets) : lets_start(lets) {}
  bool MayStart() override {
    ++asked;
    return lets_start;
  }
  void OnWaiting() override { ++waiting; }
  const bool lets_start;
  int asked = 0;
  int waiting = 0;
};

TEST_F(GroupCommitTest, AdmissionIsAskedOnlyByWhatWouldStart) {
  Gatekeeper opens(true);
  Gatekeeper shuts(false);
  auto go = Begin({.admission = &opens});
  auto join = Begin({.admission = &shuts});
  auto reused = Begin({.ip = "8.8.4.4", .admission = &shuts});
  auto busy = Begin({.id = 2, .admission = &shuts});
  auto look = Begin({.id = 3, .email = "c@example.com", .may_start = false, .admission = &shuts});
  Run();
  EXPECT_EQ((*go)->verdict, V::kGo);
  EXPECT_EQ((*reused)->verdict, V::kReused);
  EXPECT_EQ((*busy)->verdict, V::kEmailBusy);
  EXPECT_EQ((*look)->verdict, V::kWouldGo);
  EXPECT_FALSE(join->has_value());
  EXPECT_EQ(opens.asked, 1);
  EXPECT_EQ(opens.waiting, 0);
  EXPECT_EQ(shuts.asked, 0);
  EXPECT_EQ(shuts.waiting, 1) << "the join alone waits";

  Finish(Succeeded(key_));
  auto replay = Begin({.admission = &shuts});
  auto refused = Begin({.id = 4, .email = "d@example.com", .admission = &shuts});
  Run();
  EXPECT_EQ((*replay)->verdict, V::kRecorded);
  EXPECT_EQ((*refused)->verdict, V::kWouldGo);
  EXPECT_FALSE((*refused)->own);
  EXPECT_EQ(shuts.asked, 1);
  EXPECT_EQ(store_.store.AllRows().size(), 1u) << "who was not admitted has a row";
}

// A guess at another caller's person that would have been sent is told; one that the gate holds back is not.
TEST_F(GroupCommitTest, AnothersPersonIsToldOnlyToWhoIsAdmitted) {
  Begin({.caller = "two"});
  Finish(Succeeded({"two", Id(1)}));
  Run();
  Gatekeeper opens(true);
  Gatekeeper shuts(false);
  auto held_back = Begin({.admission = &shuts});
  auto told = Begin({.admission = &opens});
  Run();
  EXPECT_EQ((*held_back)->verdict, V::kWouldGo);
  EXPECT_EQ((*told)->verdict, V::kPersonExists);
  EXPECT_EQ((*told)->existing_intent_id, "");
}

// Whoever was let in hears whether it goes, wherever the disk fails after that, and is not let in a second time.
TEST_F(GroupCommitTest, WhoWasAdmittedIsAskedOnceThoughTheDiskFails) {
  int admitted = 0;
  for (int after = 0;; ++after) {
    Gatekeeper opens(true);
    store_.fail_at = store_.calls + after;
    auto go = Begin({.admission = &opens});
    Run();
    ASSERT_TRUE(go->has_value()) << after;
    EXPECT_LE(opens.asked, 1) << after;
    if ((*go)->verdict == V::kGo) break;
    EXPECT_EQ((*go)->verdict, V::kUnavailable) << after;
    admitted += opens.asked;
    store_.fail_at = -1;
    ASSERT_TRUE(commit_.Retry()) << after;
  }
  EXPECT_GE(admitted, 2);  // writing its row, and committing it
}

TEST_F(GroupCommitTest, OthersWhoAreQuickerAgainAndAgainMakeTheStoreNoWorse) {
  constexpr int kTriesOfOne = 20;
  constexpr int kTriesOfBatch = 3;
  auto running = Begin({.id = 2, .email = "b@example.com"});
  Run();
  {
    store_.outrun = kTriesOfOne - 1;
    auto late = Begin({});
    Run();
    EXPECT_EQ((*late)->verdict, V::kGo) << "the last try counts";
  }
  {
    // Of two, the first loses all its tries; the second is decided all the same.
    store_.outrun = kTriesOfBatch + kTriesOfOne;
    auto loses = Begin({.id = 5, .email = "e@example.com"});
    auto other = Begin({.id = 6, .email = "f@example.com"});
    Run();
    EXPECT_EQ(store_.outrun, 0);
    EXPECT_EQ((*loses)->verdict, V::kUnavailable);
    EXPECT_EQ((*other)->verdict, V::kGo);
    EXPECT_TRUE(commit_.healthy());
  }
  {
    // An outcome that waits is another matter: nothing new starts before it is written.
    store_.outrun = kTriesOfOne;
    auto end = Finish(Succeeded({"one", Id(2)}));
    Run();
    EXPECT_FALSE((*end)->committed);
    EXPECT_FALSE(commit_.healthy());
    EXPECT_EQ(commit_.waiting_outcomes(), 1u);
    auto fresh = Begin({.id = 7, .email = "g@example.com"});
    Run();
    EXPECT_EQ((*fresh)->verdict, V::kUnavailable);
    EXPECT_FALSE(commit_.healthy());
    EXPECT_TRUE(commit_.Retry());
    EXPECT_EQ(commit_.waiting_outcomes(), 0u);
  }
  CheckCounters();
}

class WaiterLimitsTest : public GroupCommitTest {
 protected:
  WaiterLimitsTest() : GroupCommitTest({.per_request = 2, .per_caller = 3}) {}
};

TEST_F(WaiterLimitsTest, OneWaiterTooManyOfARequestIsAnsweredAtOnce) {
  Begin({});  // token 1
  auto first = Begin({});
  auto second = Begin({});
  auto third = Begin({});
  Run();
  EXPECT_EQ(commit_.waiting_joins(), 2u);
  EXPECT_FALSE(first->has_value() || second->has_value());
  ASSERT_TRUE(third->has_value());
  EXPECT_EQ((*third)->verdict, V::kInProgress);
  EXPECT_TRUE((*third)->own);

  // A place that is given up may be taken.
  Forget(2);
  auto fourth = Begin({});
  Run();
  EXPECT_FALSE(fourth->has_value());
  Finish(Succeeded(key_));
  Run();
  EXPECT_EQ((*second)->verdict, V::kRecorded);
  EXPECT_EQ((*fourth)->verdict, V::kRecorded);
  EXPECT_FALSE(first->has_value());
  EXPECT_EQ(commit_.waiting_joins(), 0u);
}

TEST_F(WaiterLimitsTest, OneWaiterTooManyOfACallerIsAnsweredAtOnce) {
  const auto request = [](const std::string& caller, int id) {
    return Call{.caller = caller, .id = id, .email = caller + std::to_string(id) + "@example.com"};
  };
  for (const int id : {1, 2}) Begin(request("one", id));
  Begin(request("two", 1));
  Run();
  std::vector<std::shared_ptr<std::optional<BeginAnswer>>> waiting = {
      Begin(request("one", 1)), Begin(request("one", 1)), Begin(request("one", 2)), Begin(request("two", 1))};
  auto too_many = Begin(request("one", 2));
  Run();
  for (const auto& one : waiting) EXPECT_FALSE(one->has_value());
  ASSERT_TRUE(too_many->has_value());
  EXPECT_EQ((*too_many)->verdict, V::kInProgress);

  // Both places of the request that ends are free again, and only those.
  Finish(Succeeded({"one", Id(1)}));
  Run();
  EXPECT_EQ((*waiting[0])->verdict, V::kRecorded);
  auto next = Begin(request("one", 2));
  auto beyond = Begin(request("one", 2));
  Run();
  EXPECT_FALSE(next->has_value());
  EXPECT_TRUE(beyond->has_value());
  Finish(Succeeded({"one", Id(2)}));
  Run();

  // So is the place of one that left.
  Begin(request("one", 3));  // token 11
  for (int i = 0; i < 2; ++i) Begin(request("one", 3));
  Begin(request("one", 4));
  waiting = {Begin(request("one", 4))};
  auto third = Begin(request("one", 4));
  Run();
  EXPECT_TRUE(third->has_value());
  Forget(12);
  third = Begin(request("one", 4));
  Run();
  EXPECT_FALSE(third->has_value());
}

TEST_F(GroupCommitTest, AStartThatFailsHalfWayIsUndone) {
  store_.fails_begun = true;
  store_.fail_at = store_.calls;
  auto refused = Begin({});
  Run();
  EXPECT_EQ((*refused)->verdict, V::kUnavailable);
  EXPECT_TRUE(commit_.Retry());  // it could not start while the other one is open
  store_.fail_at = store_.calls;
  EXPECT_FALSE(commit_.Transact([] { return absl::OkStatus(); }).ok());
  EXPECT_TRUE(commit_.Retry());
  auto go = Begin({});
  Run();
  EXPECT_EQ((*go)->verdict, V::kGo);
}

TEST_F(GroupCommitTest, CrashPointsAreNamedForWhatTheBatchHolds) {
  static std::vector<std::string> reached;
  GroupCommit commit(store_, 19, [](std::string_view name) { reached.emplace_back(name); });
  const auto run = [&](std::unique_ptr<Operation> op) {
    reached.clear();
    commit.Run({&op, 1});
    pump_.Drain();
    return reached;
  };
  using Names = std::vector<std::string>;
  const auto begin = [&](const Call& call) {
    return run(NewBegin(0, call.request(), pump_, [](const BeginAnswer&) {}));
  };
  EXPECT_EQ(begin({}), (Names{"before-sending-commit", "after-sending-commit"}));
  EXPECT_EQ(begin({.id = 2}), Names{});  // refused: nothing will be sent
  EXPECT_EQ(begin({.id = 2, .previous = {kOldKey}}), Names{"during-rekey"});
  EXPECT_EQ(run(NewGet({key_, {}}, pump_, [](const GetAnswer&) {})), Names{});
  EXPECT_EQ(run(NewNextAttempt({key_, Id(77), Sent::kYes, At(4)}, pump_, [](bool) {})),
            (Names{"before-next-attempt-commit", "after-next-attempt-commit"}));
  EXPECT_EQ(run(NewFinish(Succeeded(key_), pump_, [](const FinishAnswer&) {})),
            (Names{"before-outcome-commit", "after-outcome-commit"}));
  const auto settle = [&](const SettleRequest& proof) {
    return run(NewSettle(proof, pump_, [](const SettleAnswer&) {}));
  };
  EXPECT_EQ(settle(ProofOf(key_, "intent-1", 77)), Names{});  // says so
  EXPECT_EQ(settle(ProofOf(key_, "intent-2", 77)), Names{});  // a mark alone
  begin({.id = 3, .email = "c@example.com"});
  run(NewFinish(Unknown({"one", Id(3)}), pump_, [](const FinishAnswer&) {}));
  EXPECT_EQ(settle(ProofOf({"one", Id(3)})), (Names{"before-settle-commit", "settled-not-notified"}));
}

TEST_F(GroupCommitTest, AChangeIsToldAfterItsCommitAndBeforeTheAnswer) {
  Listener listener;
  commit_.set_listener(&listener);
  Begin({});
  Run();
  EXPECT_TRUE(listener.heard.empty());
  bool told = false;
  Finish(Unknown(key_), [&] { told = !listener.heard.empty(); });
  Run();
  EXPECT_TRUE(told);
  EXPECT_EQ(listener.heard, (std::vector<Change>{{1, key_}}));
  // What is not committed is not told, and its number is not spent.
  store_.fail_at = store_.calls + 3;  // Start, Load, Apply, and then the commit
  const auto lost = Settle(ProofOf(key_));
  Run();
  EXPECT_EQ((*lost)->verdict, SettleVerdict::kUnavailable);
  EXPECT_EQ(commit_.revision(), 1);
  EXPECT_EQ(listener.heard.size(), 1u);
  ASSERT_TRUE(commit_.Retry());
  const auto settled = Settle(ProofOf(key_));
  Run();
  EXPECT_EQ((*settled)->verdict, SettleVerdict::kSettled);
  EXPECT_EQ(listener.heard, (std::vector<Change>{{1, key_}, {2, key_}}));
  EXPECT_EQ(commit_.revision(), 2);
  EXPECT_EQ(store_.store.audit().size(), 1u);
  EXPECT_EQ(store_.store.audit()[0].actor, "astra");
}

TEST_F(GroupCommitTest, WhatWaitsForTheDiskStillRuns) {
  Listener listener;
  commit_.set_listener(&listener);
  Begin({});
  Begin({.id = 2, .email = "b@example.com"});
  Run();
  Finish(Succeeded({"one", Id(2)}, "intent-7"));
  Run();
  listener.heard.clear();
  store_.fail_at = store_.calls;
  Finish(Unknown(key_));
  Run();
  ASSERT_FALSE(commit_.healthy());
  const auto waits = Settle(ProofOf(key_));
  const auto agrees = Settle(ProofOf({"one", Id(2)}));
  const auto contradicts = Settle(ProofOf({"one", Id(2)}, "intent-8"));
  const auto nobody = Settle(ProofOf({"one", Id(3)}));
  const auto another = Settle(ProofOf(key_, "intent-7", 1));
  Run();
  EXPECT_EQ((*waits)->verdict, SettleVerdict::kStillRuns);
  EXPECT_EQ((*waits)->record.state, State::kUnknown);
  EXPECT_EQ((*agrees)->verdict, SettleVerdict::kSaysSo);
  EXPECT_EQ((*contradicts)->verdict, SettleVerdict::kUnavailable);  // its mark cannot be made
  EXPECT_EQ((*nobody)->verdict, SettleVerdict::kNotFound);
  EXPECT_EQ((*another)->verdict, SettleVerdict::kNotFound);
  EXPECT_TRUE(listener.heard.empty());
  ASSERT_TRUE(commit_.Retry());
  EXPECT_EQ(listener.heard, (std::vector<Change>{{2, key_}}));
  const auto settled = Settle(ProofOf(key_));
  Run();
  EXPECT_EQ((*settled)->verdict, SettleVerdict::kSettled);
  EXPECT_EQ((*settled)->record.state, State::kSucceeded);
  EXPECT_TRUE(store_.store.conflicts().empty());
  CheckCounters();
}

// One story, with the n-th call of the store failing (and the two after it), for every n.
class EveryFailureTest : public testing::TestWithParam<int> {};

TEST_P(EveryFailureTest, LosesNothingAndAnswersAll) {
  int calls = 1;
  for (int fail_at = 0; fail_at < calls; ++fail_at) {
    SCOPED_TRACE(fail_at);
    FailingStore store;
    store.fail_at = fail_at;
    store.run = GetParam();
    Pump pump;
    GroupCommit commit(store, 19);
    Listener listener;
    commit.set_listener(&listener);
    Ledger::Token token = 0;
    int asked = 0;
    int answered = 0;
    std::map<int, int> posts;  // per id, that were not proved unsent

    const auto run = [&](std::unique_ptr<Operation> op) {
      commit.Run({&op, 1});
      pump.Drain();
      if (!commit.healthy()) commit.Retry();
    };
    // Asks again until the ledger works, as callers do; sends when told to go, and then tells `end`.
    const auto call = [&](const Call& what, const FinishRequest& end) {
      for (int tries = 0; tries < 5; ++tries) {
        V verdict = V::kUnavailable;
        ++asked;
        run(NewBegin(++token, what.request(), pump, [&](BeginAnswer answer) {
          ++answered;
          verdict = answer.verdict;
        }));
        if (verdict == V::kUnavailable) continue;
        if (verdict != V::kGo) return;
        ++posts[what.id];
        ++asked;
        run(NewNextAttempt({what.key_of(), Id(5), Sent::kYes, At(2)}, pump, [&](bool) { ++answered; }));
        ++asked;
        run(NewFinish(end, pump, [&](FinishAnswer) { ++answered; }));
        if (end.state == State::kReleased) --posts[what.id];
        return;
      }
      ADD_FAILURE() << "the ledger did not come back";
    };
    Call old{.id = 1, .email = "b@example.com", .key = kOldKey};
    call(old, Succeeded(old.key_of()));
    Call now{.id = 1, .email = "b@example.com", .previous = {kOldKey}};
    call(now, Succeeded(now.key_of(), "another"));
    const Call first{.id = 2, .previous = {kOldKey}};
    call(first, Unknown(first.key_of()));
    const Call second{.id = 3, .supersedes = 2, .previous = {kOldKey}};
    call(second, Released(second.key_of()));
    for (int tries = 0; tries < 10 && !commit.healthy(); ++tries) commit.Retry();  // while that waits, 3 is unknown
    call(second, Succeeded(second.key_of(), "second"));
    for (int tries = 0; tries < 10 && !commit.healthy(); ++tries) commit.Retry();

    // The operator repeats himself until it is done.
    absl::Status resolved = absl::UnavailableError("");
    for (int tries = 0; tries < 10 && !resolved.ok(); ++tries) {
      if (!commit.healthy()) commit.Retry();
      resolved = commit.Transact([&] { return Execute(store, AsCreated(first.key_of())).status(); });
    }
    EXPECT_TRUE(resolved.ok()) << resolved;

    // So does who has proof.
    const Call fourth{.id = 4, .email = "d@example.com"};
    call(fourth, Unknown(fourth.key_of()));
    auto verdict = SettleVerdict::kUnavailable;
    int attempt = 5;
    for (int tries = 0; tries < 20 && verdict != SettleVerdict::kSettled; ++tries) {
      ++asked;
      run(NewSettle(ProofOf(fourth.key_of(), "fourth", attempt), pump, [&](const SettleAnswer& answer) {
        ++answered;
        verdict = answer.verdict;
        if (verdict == SettleVerdict::kNotFound) attempt = 1000;  // the next attempt could not be written
      }));
    }
    EXPECT_EQ(verdict, SettleVerdict::kSettled);
    ASSERT_EQ(store.store.audit().size(), 2u);

    // Every change was told, once and in order.
    std::vector<int64_t> revisions(static_cast<size_t>(store.logged()));
    std::iota(revisions.begin(), revisions.end(), 1);
    std::vector<int64_t> told;
    for (const Change& change : listener.heard) told.push_back(change.revision);
    EXPECT_EQ(told, revisions);
    EXPECT_EQ(commit.revision(), store.logged());

    EXPECT_TRUE(commit.healthy());
    EXPECT_EQ(commit.waiting_outcomes(), 0u);
    EXPECT_EQ(asked, answered);
    for (const auto& [id, count] : posts) EXPECT_LE(count, 1) << id;
    std::map<Digest, Counters> sums;
    for (const Row& row : store.store.AllRows()) {
      Counters& sum = sums[row.email];
      if (row.record.answer.confirmed) {
        ++sum.confirmed;
      } else if (row.record.state != State::kReleased) {
        ++sum.possible;
      }
      const int id = row.record.key.request_id[15];
      const std::map<int, State> want = {
          {1, State::kSucceeded}, {2, State::kSucceeded}, {3, State::kSucceeded}, {4, State::kSucceeded}};
      EXPECT_EQ(row.record.state, want.at(id)) << id;
    }
    EXPECT_EQ(store.store.AllRows().size(), 4u);
    for (const auto& [email, counters] : store.store.AllCounters()) EXPECT_EQ(counters, sums[email]);
    calls = store.calls;
  }
  EXPECT_GT(calls, 40);
}
INSTANTIATE_TEST_SUITE_P(GroupCommit, EveryFailureTest, testing::Values(1, 2, 3, 7));

}  // namespace
}  // namespace userintent::ledger
