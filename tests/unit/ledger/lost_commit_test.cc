// ledger::GroupCommit and BatchLedger over a store that several processes share: commits that met another process's
// changes, rows that belong to others, and a writer that hangs.
#include <algorithm>
#include <future>
#include <map>
#include <thread>

#include "gmock/gmock.h"
#include "server/ledger/group_commit.h"
#include "server/ledger/memory_store.h"
#include "tests/unit/ledger/support.h"

namespace userintent::ledger {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using V = BeginVerdict;

// Loses, as often as told, the commits that change anything; and keeps count.
class LosingStore final : public MemoryStore {
 public:
  absl::Status Start() override {
    changed_.clear();
    prepared_.clear();
    return MemoryStore::Start();
  }
  bool prepares() const override { return true; }
  absl::Status Prepare(absl::Span<const Lookup> lookups) override {
    for (const Lookup& lookup : lookups) prepared_.push_back(lookup.key);
    return absl::OkStatus();
  }
  absl::StatusOr<View> Load(const Lookup& lookup) override {
    if (std::find(prepared_.begin(), prepared_.end(), lookup.key) == prepared_.end()) ++unprepared;
    return MemoryStore::Load(lookup);
  }
  absl::Status Apply(Changes changes) override {
    for (const RowChange& change : changes.rows) changed_.push_back(change.row.record.key);
    return MemoryStore::Apply(std::move(changes));
  }
  absl::Status Commit() override {
    if (!changed_.empty()) ++commits;
    const bool hot = !only || std::find(changed_.begin(), changed_.end(), *only) != changed_.end();
    if (hot && !changed_.empty() && losses > 0) {
      --losses;
      return absl::AbortedError("another process was quicker");
    }
    return MemoryStore::Commit();
  }
  void Rollback() override {
    MemoryStore::Rollback();
    if (auto what = std::exchange(meanwhile, nullptr)) what(*this);
  }
  Owner owner() const override { return me; }

  int losses = 0;
  std::optional<Key> only;  // lost only where this row changed
  std::function<void(LosingStore&)> meanwhile;
  Owner me{7, nullptr};
  int commits = 0;
  int unprepared = 0;

 private:
  std::vector<Key> changed_;
  std::vector<const Key*> prepared_;
};

// As another process does.
V BeginElsewhere(Store& store, const Call& call) {
  BeginRequest request = call.request();
  request.owner = 8;
  EXPECT_TRUE(store.Start().ok());
  const absl::StatusOr<BeginAnswer> answer = Execute(store, request);
  EXPECT_TRUE(store.Commit().ok());
  return answer.value().verdict;
}

class CountingAdmission final : public Admission {
 public:
  explicit CountingAdmission(bool may) : may_(may) {}
  bool MayStart() override { return ++asked == 1 ? may_ : !may_; }
  void OnWaiting() override { ++waiting; }
  int asked = 0;
  int waiting = 0;

 private:
  const bool may_;
};

class LostCommitTest : public testing::Test {
 protected:
  Ledger::Token Begin(const Call& call, std::vector<BeginAnswer>& answers) {
    ops_.push_back(NewBegin(++token_, call.request(), pump_, [&answers](BeginAnswer a) { answers.push_back(a); }));
    return token_;
  }
  void Finish(FinishRequest request) {
    request.owner = store_.me.epoch;
    ops_.push_back(NewFinish(std::move(request), pump_, [this](const FinishAnswer& a) { ended_.push_back(a); }));
  }
  void Add(std::unique_ptr<Operation> operation) { ops_.push_back(std::move(operation)); }
  void Run() {
    commit_.Run(ops_);
    ops_.clear();
    pump_.Drain();
  }

  LosingStore store_;
  Pump pump_;
  GroupCommit commit_{store_, 19};
  std::vector<BeginAnswer> answers_;
  std::vector<FinishAnswer> ended_;
  const Key key_{"one", Id(1)};

 private:
  std::vector<std::unique_ptr<Operation>> ops_;
  Ledger::Token token_ = 0;
};

TEST_F(LostCommitTest, WhatLostIsDecidedAgain) {
  store_.losses = 2;
  Begin({}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].verdict, V::kGo);
  EXPECT_EQ(store_.commits, 3);
  EXPECT_TRUE(commit_.healthy());
  ASSERT_EQ(store_.AllRows().size(), 1u);
  EXPECT_EQ(store_.Find(key_)->record.posts, 1);
}

TEST_F(LostCommitTest, WhatTheOtherDidIsSeen) {
  store_.losses = 1;
  store_.meanwhile = [](LosingStore& store) { EXPECT_EQ(BeginElsewhere(store, {.id = 2}), V::kGo); };
  Begin({}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].verdict, V::kEmailBusy);
  EXPECT_EQ(store_.Find(key_), nullptr);
}

TEST_F(LostCommitTest, TheAdmissionIsAskedOnce) {
  CountingAdmission yes(true);
  CountingAdmission no(false);
  store_.losses = 2;
  Begin({.admission = &yes}, answers_);
  Begin({.id = 2, .email = "b@example.com", .admission = &no}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[0].verdict, V::kGo);
  EXPECT_EQ(answers_[1].verdict, V::kWouldGo);
  EXPECT_EQ(yes.asked, 1);
  EXPECT_EQ(no.asked, 1);
}

TEST_F(LostCommitTest, OneHotAddressHoldsUpNobodyElse) {
  store_.only = key_;
  store_.losses = 15;
  for (int id = 1; id <= 8; ++id) Begin({.id = id, .email = "e" + std::to_string(id) + "@example.com"}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 8u);
  for (const BeginAnswer& answer : answers_) EXPECT_EQ(answer.verdict, V::kGo);
  // The batch, half, quarter three times each, the hot one alone seven times; three parts without it once.
  EXPECT_EQ(store_.commits, 3 * 3 + 7 + 3);
  EXPECT_TRUE(commit_.healthy());
}

TEST_F(LostCommitTest, WhatAlwaysLosesIsGivenUp) {
  store_.losses = 1000;
  Begin({}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].verdict, V::kUnavailable);
  EXPECT_EQ(store_.commits, 20);
  EXPECT_EQ(store_.Find(key_), nullptr);
}

TEST_F(LostCommitTest, ARetryBelongsToTheEpochOfItsTime) {
  store_.losses = 1;
  store_.meanwhile = [](LosingStore& store) { store.me = {9, std::make_shared<Lease>()}; };
  Begin({}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 1u);
  EXPECT_EQ(answers_[0].owner.epoch, 9);
  EXPECT_EQ(answers_[0].owner.lease, store_.me.lease);
  EXPECT_EQ(store_.Find(key_)->owner, 9);
}

TEST_F(LostCommitTest, EverythingThatIsLoadedWasAnnounced) {
  Begin({}, answers_);
  Run();
  Add(NewNextAttempt({key_, Id(77), Sent::kYes, At(4)}, pump_, [](bool committed) { EXPECT_TRUE(committed); }));
  Add(NewGet({key_, {}}, pump_, [](const GetAnswer& answer) { EXPECT_TRUE(answer.available); }));
  Run();
  Finish(Unknown(key_));
  Run();
  Add(NewSettle(ProofOf(key_, "intent-7", 77), pump_,
                [](const SettleAnswer& answer) { EXPECT_EQ(answer.verdict, SettleVerdict::kSettled); }));
  Run();
  Begin({}, answers_);
  Run();
  ASSERT_EQ(answers_.size(), 2u);
  EXPECT_EQ(answers_[1].verdict, V::kRecorded);
  EXPECT_EQ(store_.unprepared, 0);
}

TEST_F(LostCommitTest, ACallWaitsForTheEndOfAnotherProcesssRequest) {
  Session session(store_);
  EXPECT_EQ(BeginElsewhere(store_, {}), V::kGo);
  const Ledger::Token first = Begin({}, answers_);
  Begin({}, answers_);
  Run();
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_THAT(commit_.ForeignWaits(), ElementsAre(key_));

  Add(NewForget(first));
  Add(NewWakeEnded({key_}));  // too early
  Run();
  EXPECT_THAT(answers_, IsEmpty());
  EXPECT_THAT(commit_.ForeignWaits(), ElementsAre(key_));

  FinishRequest end = Succeeded(key_);
  end.owner = 8;
  session.Finish(end);
  Add(NewWakeEnded({key_}));
  Run();
  ASSERT_EQ(answers_.size(), 1u) << "the call that was forgotten hears nothing";
  EXPECT_EQ(answers_[0].verdict, V::kRecorded);
  EXPECT_TRUE(answers_[0].joined);
  EXPECT_EQ(answers_[0].own->state, State::kSucceeded);
  EXPECT_THAT(commit_.ForeignWaits(), IsEmpty());
}

TEST_F(LostCommitTest, OwnRequestsAreNotForeign) {
  Begin({}, answers_);
  const Ledger::Token waiting = Begin({}, answers_);
  Run();
  EXPECT_EQ(commit_.waiting_joins(), 1u);
  EXPECT_THAT(commit_.ForeignWaits(), IsEmpty());
  Add(NewForget(waiting));
  Run();
}

// ---- whose row it is ----

TEST_F(LostCommitTest, OnlyTheOwnerEndsItsRow) {
  Session session(store_);
  Begin({}, answers_);
  Run();
  FinishRequest foreign = Failed(key_);
  foreign.owner = 8;
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(foreign)));
  EXPECT_EQ(store_.Find(key_)->record.state, State::kSending);
  foreign.owner = 7;
  EXPECT_TRUE(session.TryFinish(foreign).ok());
  EXPECT_EQ(store_.Find(key_)->record.state, State::kFailed);
  EXPECT_EQ(store_.Find(key_)->owner, 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(foreign))) << "once";
}

TEST_F(LostCommitTest, TheOwnersWordComesAfterASweep) {
  Session session(store_);
  Begin({}, answers_);
  Run();
  EXPECT_EQ(session.Recover(19), 1u);
  EXPECT_EQ(store_.Find(key_)->record.state, State::kUnknown);
  FinishRequest late = Succeeded(key_);
  late.owner = 8;
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(late))) << "of another process";
  late.owner = 7;
  EXPECT_TRUE(session.TryFinish(late).ok());
  EXPECT_EQ(store_.Find(key_)->record.state, State::kSucceeded);
  EXPECT_EQ(store_.Count(store_.Find(key_)->email), (Counters{1, 0}));
}

TEST_F(LostCommitTest, WhatSomebodyElseEndedTheOwnerDoesNotEnd) {
  Session session(store_);
  Begin({}, answers_);
  Run();
  session.Recover(19);
  session.Resolve(AsNotCreated(key_));
  FinishRequest late = Succeeded(key_);
  late.owner = 7;
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(late)));
  EXPECT_EQ(store_.Find(key_)->record.state, State::kFailed);
}

TEST_F(LostCommitTest, AReleaseComesTooLateOnceARowWasSuperseded) {
  Session session(store_);
  Begin({}, answers_);
  Run();
  session.Recover(19);
  EXPECT_EQ(session.Begin({.id = 2, .supersedes = 1}).verdict, V::kGo);
  FinishRequest late = Released(key_);
  late.owner = 7;
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(late)));
  late = Failed(key_);
  late.owner = 7;
  EXPECT_TRUE(session.TryFinish(late).ok());
}

TEST_F(LostCommitTest, WhereNothingHasAnOwnerAnEndIsAnEnd) {
  Session session(store_);
  EXPECT_EQ(session.Begin({}).verdict, V::kGo);
  session.Finish(Unknown(key_));
  EXPECT_TRUE(absl::IsFailedPrecondition(session.TryFinish(Succeeded(key_))));
  EXPECT_EQ(store_.Find(key_)->record.state, State::kUnknown);
}

// ---- a writer that hangs ----

class NoHousekeeper final : public Housekeeper {
 public:
  void Look(GroupCommit&, Time) override {}
  void BeforeWrites(GroupCommit&, Time) override {}
  void WhenIdle(GroupCommit&, Time) override {}
  void AfterTurn(const GroupCommit&) override {}
  void AtEnd(GroupCommit&) override {}
  Time NextDue(bool) const override { return Time::max(); }
  bool writable() const override { return true; }
};

TEST(GiveUpTest, AnswersWhatPromisesNothingAndKeepsOutcomes) {
  BatchLedger ledger(std::make_unique<MemoryStore>(), std::make_unique<NoHousekeeper>(), {});
  Pump pump;
  std::map<std::string, int> heard;
  const Key key{"one", Id(1)};
  ledger.Begin(Call{}.request(), pump, [&](const BeginAnswer& a) { heard["go"] += a.verdict == V::kGo; });
  pump.Until([&] { return heard["go"] == 1; });

  std::promise<void> hangs;
  std::promise<void> goes_on;
  std::thread hang([&] {
    EXPECT_TRUE(ledger
                    .RunOnWriter([&](GroupCommit&) {
                      hangs.set_value();
                      goes_on.get_future().wait();
                      return absl::OkStatus();
                    })
                    .ok());
  });
  hangs.get_future().wait();
  ledger.Begin(Call{.id = 2, .email = "b@example.com"}.request(), pump,
               [&](const BeginAnswer& a) { heard["begin"] += a.verdict == V::kUnavailable ? 1 : 100; });
  ledger.Get(key, pump, [&](const GetAnswer& a) { heard["get"] += a.available ? 100 : 1; });
  ledger.Settle(ProofOf(key), pump,
                [&](const SettleAnswer& a) { heard["settle"] += a.verdict == SettleVerdict::kUnavailable ? 1 : 100; });
  ledger.NextAttempt(key, Id(77), Sent::kNo, At(4), pump,
                     [&](bool committed) { heard["next"] += committed ? 1 : 100; });
  ledger.Finish(Succeeded(key), pump, [&](const FinishAnswer& a) { heard["finish"] += a.committed ? 1 : 100; });
  ledger.GiveUp();
  pump.Drain();
  EXPECT_EQ(heard["begin"], 1);
  EXPECT_EQ(heard["get"], 1);
  EXPECT_EQ(heard["settle"], 1);
  EXPECT_EQ(heard["next"], 0) << "waits";
  EXPECT_EQ(heard["finish"], 0) << "waits";

  goes_on.set_value();
  hang.join();
  pump.Until([&] { return heard["finish"] != 0 && heard["next"] != 0; });
  EXPECT_EQ(heard["next"], 1);
  EXPECT_EQ(heard["finish"], 1);
  EXPECT_EQ(heard["begin"], 1);
}

}  // namespace
}  // namespace userintent::ledger
