// The store against other replicas and a server that fails: what a lost answer to COMMIT leads to, what a fenced
// replica may do no more, whose change counts when two meet, and how many round trips an operation costs. What any
// store must do is tested in tests/unit/ledger, of this one too.
#include "server/postgres/store.h"

#include <gmock/gmock.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/ledger/decide.h"
#include "server/ledger/execute.h"
#include "server/postgres/schema.h"
#include "tests/unit/ledger/support.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using ledger::BeginVerdict;
using ledger::Call;
using ledger::FinishRequest;

constexpr int kReleasedReason = 14;

class StoreTest : public RigTest {
 protected:
  void SetUp() override {
    RigTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    here_ = Open(here_epoch_);
    there_ = Open(there_epoch_);
  }

  std::unique_ptr<Store> Open(int64_t& epoch) {
    epoch = Number("INSERT INTO replica (name) VALUES ('one of them') RETURNING epoch");
    StoreOptions options;
    options.connection = {url_, "tests"};
    options.owner = [&epoch] { return ledger::Owner{epoch, nullptr}; };
    options.released_reason = kReleasedReason;
    options.on_lost = [this](size_t rows) { lost_ += rows; };
    options.now = [] { return ledger::At(9); };
    return Store::Open(std::move(options)).value();
  }

  // One transaction, as a batch makes it, up to its commit.
  static absl::Status Decide(Store& store, const std::vector<Call>& calls, std::vector<BeginVerdict>* verdicts) {
    std::vector<ledger::BeginRequest> requests;
    for (const Call& call : calls) requests.push_back(call.request());
    std::vector<ledger::Lookup> lookups;
    for (const auto& request : requests) lookups.push_back(ledger::LookupFor(request));
    absl::Status s = store.Start();
    if (s.ok()) s = store.Prepare(lookups);
    for (auto request = requests.begin(); s.ok() && request != requests.end(); ++request) {
      request->owner = store.owner().epoch;
      const absl::StatusOr<ledger::BeginAnswer> answer = ledger::Execute(store, *request, ledger::kRules);
      s = answer.status();
      if (s.ok() && verdicts != nullptr) verdicts->push_back(answer->verdict);
    }
    return s;
  }
  static absl::Status Ended(Store& store, absl::Status s) {
    if (s.ok()) s = store.Commit();
    if (!s.ok()) store.Rollback();
    return s;
  }
  static absl::Status Begin(Store& store, const std::vector<Call>& calls,
                            std::vector<BeginVerdict>* verdicts = nullptr) {
    return Ended(store, Decide(store, calls, verdicts));
  }
  static absl::Status Finish(Store& store, FinishRequest request, int64_t owner) {
    request.owner = owner;
    const std::vector<ledger::Lookup> lookups = {ledger::LookupFor(request)};
    absl::Status s = store.Start();
    if (s.ok()) s = store.Prepare(lookups);
    if (s.ok()) s = ledger::Execute(store, request).status();
    return Ended(store, s);
  }
  // A transaction that changes nothing; settles what is in doubt.
  static absl::Status Settle(Store& store) { return Ended(store, store.Start()); }

  // What is there, past the store: "state owner" of the row of this id, or "none".
  std::string RowOf(const Call& call) {
    const auto rows = c_->Query(
        "SELECT r.state, r.owner, r.sent, r.reason FROM request r JOIN caller c ON c.id = r.caller "
        "WHERE c.name = $1 AND r.request_id = $2",
        {call.caller, call.key_of().request_id});
    EXPECT_TRUE(rows.ok()) << rows.status();
    if (!rows.ok() || rows->size() == 0) return "none";
    return absl::StrCat("state ", rows->Number(0, 0), ", owner ", rows->Number(0, 1), ", sent ", rows->Number(0, 2),
                        ", reason ", rows->Number(0, 3));
  }
  static std::string Sending(int64_t owner) { return absl::StrCat("state 1, owner ", owner, ", sent 0, reason 0"); }
  static std::string ReleasedInDoubt() { return absl::StrCat("state 5, owner 0, sent 0, reason ", kReleasedReason); }

  // From now on a commit of a new request does this last.
  void AtCommit(const std::string& sql) {
    Do(absl::StrCat("CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql SET lock_timeout TO 0 AS $$ BEGIN ",
                    sql,
                    "; RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON request "
                    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()"));
  }
  void AtCommitNothing() { Do("DROP TRIGGER at_commit ON request"); }

  void WaitFor(const std::string& sql) {
    for (int tries = 0; Number(sql) == 0; ++tries) {
      ASSERT_LT(tries, 6000) << sql;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  void Fence(int64_t epoch) {
    Do(absl::StrCat("BEGIN; UPDATE replica SET ended = now() WHERE epoch = ", epoch,
                    "; UPDATE session SET open = false WHERE epoch = ", epoch, "; COMMIT"));
  }

  size_t lost_ = 0;  // that were told to be
  int64_t here_epoch_ = 0, there_epoch_ = 0;
  std::unique_ptr<Store> here_, there_;
  const Call a_{}, b_{.id = 2, .email = "b@example.com", .person = "bob", .attempt = 1001};
};

// ---- round trips ----

TEST_F(StoreTest, ABatchAsksOnceAndCommitsOnce) {
  ASSERT_TRUE(Settle(*here_).ok());  // has its session
  const int64_t before = here_->round_trips();
  ASSERT_TRUE(Begin(*here_, {a_, b_}).ok());
  EXPECT_EQ(here_->round_trips() - before, 2);
  ASSERT_TRUE(Finish(*here_, ledger::Succeeded(a_.key_of()), here_epoch_).ok());
  EXPECT_EQ(here_->round_trips() - before, 3) << "what runs here need not be asked for";
  std::vector<BeginVerdict> verdicts;
  ASSERT_TRUE(Begin(*here_, {a_, b_}, &verdicts).ok());
  EXPECT_THAT(verdicts, testing::ElementsAre(BeginVerdict::kRecorded, BeginVerdict::kInProgress));
  EXPECT_EQ(here_->round_trips() - before, 4) << "what only reads has nothing to commit";
}

// A transaction that was lost had read another request of the address of one that runs: what was known of the address
// is forgotten, and the row counts nothing without it.
TEST_F(StoreTest, ARowThatRunsIsFetchedWithItsAddress) {
  Call released = a_;
  released.id = 4;
  ASSERT_TRUE(Begin(*here_, {released}).ok());
  ASSERT_TRUE(Finish(*here_, ledger::Released(released.key_of()), here_epoch_).ok());
  ASSERT_TRUE(Begin(*here_, {a_}).ok());
  ASSERT_TRUE(here_->Start().ok());
  ASSERT_TRUE(ledger::Execute(*here_, ledger::GetRequest{released.key_of(), ""}).ok());
  ledger::BeginRequest begin = b_.request();
  begin.owner = here_epoch_;
  ASSERT_TRUE(ledger::Execute(*here_, begin, ledger::kRules).ok());
  ASSERT_EQ(Number(absl::StrCat("SELECT pg_terminate_backend(", here_->connection()->backend_pid(), ")::int")), 1);
  ASSERT_FALSE(here_->Commit().ok());
  here_->Rollback();
  FinishRequest finish = ledger::Succeeded(a_.key_of());
  finish.owner = here_epoch_;
  ASSERT_TRUE(here_->Start().ok());
  const auto answer = ledger::Execute(*here_, finish);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_TRUE(here_->Commit().ok());
  EXPECT_EQ(answer->budget.used_min, 1);
  EXPECT_EQ(answer->budget.used_max, 1);
  EXPECT_EQ(Number("SELECT sum(confirmed) FROM email"), 1);
  EXPECT_EQ(Number("SELECT sum(possible) FROM email"), 0);
}

TEST_F(StoreTest, APersonIsAskedForOfEachAddress) {
  Call first = a_;
  ASSERT_TRUE(Begin(*here_, {first}).ok());
  ASSERT_TRUE(Finish(*here_, ledger::Succeeded(first.key_of()), here_epoch_).ok());
  // In one transaction, each with a fetch of its own: the address without a person, the person at another address.
  Call repeat = a_;
  repeat.id = 4;
  repeat.allow_repeat = true;
  Call elsewhere = b_;
  Call again = a_;
  again.id = 5;
  std::vector<ledger::BeginRequest> requests = {repeat.request(), elsewhere.request(), again.request()};
  requests[1].current.person = requests[2].current.person;
  ASSERT_TRUE(there_->Start().ok());
  std::optional<ledger::View> view;
  for (const ledger::BeginRequest& request : requests) view = there_->Load(ledger::LookupFor(request)).value();
  there_->Rollback();
  ASSERT_TRUE(view->person);
  EXPECT_EQ(view->person->record.key, first.key_of());
}

// What hangs is seen from other threads, whatever it is that waits.
TEST_F(StoreTest, ASessionThatIsWaitedForCountsAsWaiting) {
  EXPECT_EQ(here_->committing_since(), 0);
  const auto beat = Connect();
  Do(*beat, "SET idle_in_transaction_session_timeout TO 0");
  Do(*beat, absl::StrCat("BEGIN; UPDATE replica SET beat = beat + 1 WHERE epoch = ", here_epoch_));
  absl::Status started;
  std::thread start([&] { started = Settle(*here_); });
  WaitFor("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO session%' AND wait_event_type = 'Lock'");
  EXPECT_NE(here_->committing_since(), 0);
  Do(*beat, "COMMIT");
  start.join();
  EXPECT_TRUE(started.ok()) << started;
  EXPECT_EQ(here_->committing_since(), 0);
}

// ---- two replicas ----

TEST_F(StoreTest, OfTwoReplicasThatBeginTheSameRequestOneDoes) {
  std::vector<BeginVerdict> here, there;
  ASSERT_TRUE(Decide(*here_, {a_}, &here).ok());
  ASSERT_TRUE(Decide(*there_, {a_}, &there).ok());
  EXPECT_THAT(here, testing::ElementsAre(BeginVerdict::kGo));
  EXPECT_EQ(here, there) << "neither can know";
  EXPECT_TRUE(there_->Commit().ok());
  const absl::Status lost = here_->Commit();
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  here_->Rollback();
  EXPECT_EQ(RowOf(a_), Sending(there_epoch_));
  here.clear();
  ASSERT_TRUE(Begin(*here_, {a_}, &here).ok());
  EXPECT_THAT(here, testing::ElementsAre(BeginVerdict::kInProgress));
}

TEST_F(StoreTest, OfTwoRequestsForOneAddressOneBegins) {
  Call other = b_;
  other.email = a_.email;
  ASSERT_TRUE(Begin(*here_, {a_}).ok());
  ASSERT_TRUE(Finish(*here_, ledger::Failed(a_.key_of()), here_epoch_).ok());  // so that the address is known
  Call again = a_;
  again.id = 3;
  ASSERT_TRUE(Decide(*here_, {other}, nullptr).ok());
  ASSERT_TRUE(Decide(*there_, {again}, nullptr).ok());
  EXPECT_TRUE(there_->Commit().ok());
  const absl::Status lost = here_->Commit();
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  here_->Rollback();
  EXPECT_EQ(RowOf(other), "none");
  std::vector<BeginVerdict> verdicts;
  ASSERT_TRUE(Begin(*here_, {other}, &verdicts).ok());
  EXPECT_THAT(verdicts, testing::ElementsAre(BeginVerdict::kEmailBusy));
  EXPECT_EQ(Number("SELECT confirmed + possible FROM email"), 2);
}

// What another replica changed since is not overwritten by what this one keeps in memory.
TEST_F(StoreTest, AnOutcomeMeetsWhatAnotherReplicaChanged) {
  ASSERT_TRUE(Begin(*here_, {a_}).ok());
  Do("BEGIN; UPDATE request SET state = 4; UPDATE email SET version = version + 1; COMMIT");  // recovered
  FinishRequest finish = ledger::Succeeded(a_.key_of());
  const absl::Status lost = Finish(*here_, finish, here_epoch_);
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  ASSERT_TRUE(Finish(*here_, finish, here_epoch_).ok()) << "the late outcome of what was recovered";
  EXPECT_EQ(RowOf(a_), "state 2, owner 0, sent 2, reason 0");
}

// ---- fenced ----

TEST_F(StoreTest, AFencedReplicaBeginsNothingAndEndsWhatRuns) {
  ASSERT_TRUE(Begin(*here_, {a_}).ok());
  const int64_t old = here_epoch_;
  ASSERT_TRUE(Decide(*here_, {b_}, nullptr).ok());
  Fence(old);
  const absl::Status fenced = Ended(*here_, absl::OkStatus());
  EXPECT_TRUE(absl::IsPermissionDenied(fenced)) << fenced;
  EXPECT_EQ(RowOf(b_), "none");
  EXPECT_TRUE(absl::IsPermissionDenied(Begin(*here_, {b_})));
  EXPECT_TRUE(Finish(*here_, ledger::Succeeded(a_.key_of()), old).ok());
  EXPECT_EQ(RowOf(a_), "state 2, owner 0, sent 2, reason 0");

  here_epoch_ = Number("INSERT INTO replica (name) VALUES ('anew') RETURNING epoch");
  EXPECT_TRUE(Begin(*here_, {b_}).ok());
  EXPECT_EQ(RowOf(b_), Sending(here_epoch_));
}

TEST_F(StoreTest, AnEpochThatHasEndedGetsNoSession) {
  Fence(here_epoch_);
  EXPECT_TRUE(absl::IsPermissionDenied(Begin(*here_, {a_})));
  EXPECT_EQ(RowOf(a_), "none");
  EXPECT_EQ(Number("SELECT count(*) FROM session WHERE open"), 0);
}

// ---- a commit in doubt ----

TEST_F(StoreTest, ACommitThatWasLostBeforeItHappenedLeavesNothing) {
  AtCommit("PERFORM pg_terminate_backend(pg_backend_pid())");
  EXPECT_TRUE(absl::IsUnavailable(Begin(*here_, {a_, b_})));
  EXPECT_EQ(here_->in_doubt(), 2U);
  AtCommitNothing();
  EXPECT_TRUE(Settle(*here_).ok());
  EXPECT_EQ(here_->in_doubt(), 0U);
  EXPECT_EQ(RowOf(a_), "none");
  std::vector<BeginVerdict> verdicts;
  EXPECT_TRUE(Begin(*here_, {a_, b_}, &verdicts).ok());
  EXPECT_THAT(verdicts, testing::ElementsAre(BeginVerdict::kGo, BeginVerdict::kGo)) << "nothing had happened";
}

// As when the wait for the standby was cancelled: it says COMMIT, and what it wrote is there, for now.
TEST_F(StoreTest, ACommitThatWasRemarkedOnIsReleasedAndNotSent) {
  ASSERT_TRUE(Begin(*here_, {b_}).ok());
  AtCommit("RAISE WARNING 'on this server only'");
  const Call more{.id = 3, .email = "c@example.com", .person = "cid", .attempt = 1002};
  EXPECT_TRUE(absl::IsUnavailable(Begin(*here_, {a_, more})));
  EXPECT_EQ(RowOf(a_), Sending(here_epoch_)) << "or this tests nothing";
  EXPECT_EQ(RowOf(more), Sending(here_epoch_));
  EXPECT_TRUE(Settle(*here_).ok());
  EXPECT_EQ(RowOf(a_), ReleasedInDoubt());
  EXPECT_EQ(RowOf(more), ReleasedInDoubt()) << "each of them";
  EXPECT_EQ(RowOf(b_), Sending(here_epoch_)) << "that one was confirmed";
  EXPECT_EQ(Number("SELECT sum(confirmed + possible) FROM email"), 1);
  EXPECT_EQ(here_->in_doubt(), 0U);
}

TEST_F(StoreTest, WhatWasRecoveredWhileInDoubtIsReleasedToo) {
  AtCommit("RAISE WARNING 'on this server only'");
  EXPECT_TRUE(absl::IsUnavailable(Begin(*here_, {a_})));
  Fence(here_epoch_);
  Do("BEGIN; UPDATE request SET state = 4; UPDATE email SET version = version + 1; COMMIT");
  EXPECT_TRUE(Settle(*here_).ok());
  EXPECT_EQ(RowOf(a_), ReleasedInDoubt());
}

// The connection is lost, and the old transaction is still under way: it may commit after any look.
TEST_F(StoreTest, TheOldTransactionIsWaitedForBeforeItsRowsAreLookedFor) {
  ASSERT_TRUE(Settle(*here_).ok());
  AtCommit("PERFORM pg_advisory_xact_lock_shared(5)");
  const auto gate = Connect();
  Do(*gate, "SELECT pg_advisory_lock(5)");
  const int backend = here_->connection()->backend_pid();
  const int socket = here_->connection()->socket();
  std::thread cut([&] {
    WaitFor(
        absl::StrCat("SELECT count(*) FROM pg_stat_activity WHERE pid = ", backend, " AND wait_event = 'advisory'"));
    shutdown(socket, SHUT_RDWR);
  });
  EXPECT_TRUE(absl::IsUnavailable(Begin(*here_, {a_})));
  cut.join();
  EXPECT_EQ(here_->in_doubt(), 1U);
  std::atomic<bool> done{false};
  absl::Status settled;
  std::thread settle([&] {
    settled = Settle(*here_);
    done = true;
  });
  while (!done && Number("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UPDATE session%' AND "
                         "wait_event_type = 'Lock'") == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_FALSE(done) << "looked while the old transaction could still commit";
  EXPECT_EQ(RowOf(a_), "none");
  Do(*gate, "SELECT pg_advisory_unlock(5)");
  settle.join();
  WaitFor(absl::StrCat("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ", backend));
  EXPECT_TRUE(settled.ok()) << settled;
  EXPECT_EQ(RowOf(a_), ReleasedInDoubt());
}

// An outcome whose commit was lost is written again, and counts once.
TEST_F(StoreTest, AnOutcomeInDoubtIsWrittenAgain) {
  ASSERT_TRUE(Begin(*here_, {a_}).ok());
  const FinishRequest finish = ledger::Succeeded(a_.key_of());
  Do("CREATE FUNCTION at_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'oh'; RETURN NULL; END $$;"
     "CREATE CONSTRAINT TRIGGER at_update AFTER UPDATE ON request DEFERRABLE INITIALLY DEFERRED "
     "FOR EACH ROW EXECUTE FUNCTION at_update()");
  EXPECT_TRUE(absl::IsUnavailable(Finish(*here_, finish, here_epoch_)));
  EXPECT_EQ(here_->in_doubt(), 0U);
  Do("DROP TRIGGER at_update ON request");
  const absl::Status again = Finish(*here_, finish, here_epoch_);
  EXPECT_TRUE(again.ok() || ledger::IsRefusal(again)) << again;
  EXPECT_EQ(RowOf(a_), "state 2, owner 0, sent 2, reason 0");
  EXPECT_EQ(Number("SELECT confirmed FROM email"), 1);
}

// ---- the schema ----

// A failover to a standby that did not have them looks like this: another server answers, and knows nothing of them.
TEST_F(StoreTest, WhatWasConfirmedAndIsGoneIsNoticedAfterAReconnect) {
  ASSERT_TRUE(Begin(*here_, {a_, b_}).ok());
  ASSERT_TRUE(Finish(*here_, ledger::Succeeded(a_.key_of()), here_epoch_).ok());
  const std::string cut =
      "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
      "application_name = 'tests' AND datname = current_database() AND pid <> pg_backend_pid()) s";
  const auto look = [this] { return Begin(*here_, {a_}); };
  Number(cut);
  EXPECT_FALSE(look().ok());  // the connection is lost
  EXPECT_TRUE(look().ok());
  EXPECT_EQ(lost_, 0u) << "all of it is there";
  Do("DELETE FROM request WHERE state = 1");  // b runs here
  Number(cut);
  EXPECT_FALSE(look().ok());
  EXPECT_TRUE(absl::IsDataLoss(look()));
  EXPECT_EQ(lost_, 1u);
  // What is read without a transaction, as while nothing can be written, fails too.
  const ledger::Key key = a_.key_of();
  ledger::Lookup lookup;
  lookup.key = &key;
  EXPECT_TRUE(absl::IsUnavailable(here_->Load(lookup).status()));
  EXPECT_TRUE(absl::IsUnavailable(here_->Trace({}).status()));
  EXPECT_TRUE(absl::IsUnavailable(here_->Succeeded({}).status()));
  Do("UPDATE request SET state = 1 WHERE state = 2");  // a had ended
  EXPECT_TRUE(absl::IsDataLoss(look())) << "it is looked at before anything is done";
  EXPECT_EQ(lost_, 3u);
}

TEST_F(StoreTest, RecordsCannotBeChanged) {
  Do("INSERT INTO audit (at, actor, action, caller, request_id, from_state, to_state, evidence) VALUES "
     "(1, 'op', 'resolve', 'one', gen_random_uuid(), 4, 3, 'ticket 1')");
  for (const char* const sql : {"UPDATE audit SET actor = 'x'", "DELETE FROM audit", "TRUNCATE audit",
                                "UPDATE conflict SET action = 'x'", "DELETE FROM conflict", "TRUNCATE conflict"}) {
    EXPECT_FALSE(c_->Execute(sql).ok()) << sql;
  }
  EXPECT_EQ(Number("SELECT count(*) FROM audit"), 1);
}

TEST_F(StoreTest, SeveralMayMigrateAtOnceAndAgain) {
  const std::string url = PostgresServer::Get().NewEmptyDatabase();
  const auto first = PostgresServer::Connect(url), second = PostgresServer::Connect(url);
  EXPECT_EQ(VersionOf(*first).value(), 0);
  absl::Status one, two;
  std::thread other([&] { two = Migrate(*second); });
  one = Migrate(*first);
  other.join();
  EXPECT_TRUE(one.ok()) << one;
  EXPECT_TRUE(two.ok()) << two;
  EXPECT_EQ(VersionOf(*first).value(), SchemaVersion());
  EXPECT_TRUE(Migrate(*first).ok());
}

}  // namespace
}  // namespace userintent::postgres
