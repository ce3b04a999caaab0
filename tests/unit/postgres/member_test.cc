// Replicas of one ledger with a real server: who may join, who is fenced, what is swept, and how a fenced one goes on.
// Times are short, and every wait is for a condition.
#include "server/postgres/member.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/base/mutex.h"
#include "server/postgres/schema.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class MemberTest : public RigTest {
 protected:
  MemberOptions Options() const {
    MemberOptions options;
    options.connection = {url_, "tests"};
    options.name = "replica";
    options.constants = {absl::Milliseconds(1500), absl::Seconds(3), absl::Seconds(1)};
    options.beat = absl::Milliseconds(200);
    options.key_id = 7;
    options.environment = "sandbox";
    options.single_node = true;
    return options;
  }
  std::unique_ptr<Member> Joined() {
    auto joined = Member::Join(Options());
    EXPECT_TRUE(joined.ok()) << joined.status();
    return *std::move(joined);
  }
  std::unique_ptr<Member> Running() {
    auto member = Joined();
    member->Run({});
    return member;
  }
  static std::string Refusal(const MemberOptions& options) {
    const auto joined = Member::Join(options);
    EXPECT_FALSE(joined.ok());
    return std::string(joined.status().message());
  }
  static bool Until(const std::function<bool()>& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!holds()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  }
  bool Is(const std::string& what, int64_t epoch) {
    return Number(absl::StrCat("SELECT count(*) FROM replica WHERE epoch = ", epoch, " AND ", what)) == 1;
  }
};

TEST_F(MemberTest, WhoJoinsHasAnEpochOfItsOwnAndALease) {
  const auto first = Joined();
  const auto second = Joined();
  EXPECT_GT(first->owner().epoch, 0);
  EXPECT_GT(second->owner().epoch, first->owner().epoch);
  EXPECT_TRUE(first->owner().lease->Holds());
  EXPECT_NE(first->ledger_id(), 0U);
  EXPECT_EQ(first->ledger_id(), second->ledger_id());
}

TEST_F(MemberTest, WhatDoesNotFitIsRefusedInOneLine) {
  MemberOptions options = Options();
  options.single_node = false;
  EXPECT_THAT(Refusal(options), HasSubstr("synchronous_standby_names is empty"));
  const auto member = Joined();
  options = Options();
  options.key_id = 8;
  EXPECT_THAT(Refusal(options), HasSubstr("another key"));
  options.previous_key_ids = {7};
  EXPECT_THAT(Refusal(options), HasSubstr("only while no other replica runs"));
  options = Options();
  options.constants.fence = absl::Seconds(4);
  EXPECT_THAT(Refusal(options), HasSubstr("ledger_fence"));
  options = Options();
  options.environment = "production";
  EXPECT_THAT(Refusal(options), HasSubstr("is of Astra's sandbox"));
  options = Options();
  options.connection.url = PostgresServer::Get().NewEmptyDatabase();
  EXPECT_THAT(Refusal(options), HasSubstr("holds no ledger"));
  options.migrate = true;
  EXPECT_TRUE(Member::Join(options).ok());
  EXPECT_EQ(Number("SELECT count(*) FROM replica"), 1) << "who was refused left nothing";
}

TEST_F(MemberTest, ASettingThatMayLoseCommitsIsRefused) {
  Do("ALTER ROLE postgres SET default_transaction_read_only = on");
  EXPECT_FALSE(Member::Join(Options()).ok());
  const auto again = PostgresServer::Connect(url_ + "&options=-cdefault_transaction_read_only%3Doff");
  Do(*again, "ALTER ROLE postgres RESET default_transaction_read_only");
}

TEST_F(MemberTest, OneThatGivesNoSignIsFencedAndItsRowsAreSwept) {
  const auto lives = Running();
  auto dies = Running();
  const int64_t epoch = dies->owner().epoch;
  const std::shared_ptr<const Lease> lease = dies->owner().lease;
  Do(absl::StrCat("INSERT INTO session (epoch) VALUES (", epoch, ")"));
  const int64_t row = PutRow({.id = 1, .state = ledger::State::kSending});
  Do(absl::StrCat("UPDATE request SET owner = ", epoch, " WHERE id = ", row));
  EXPECT_TRUE(Until([&] { return lives->share().count == 2 && dies->share().count == 2; }));
  EXPECT_EQ(lives->share().rank, 0);
  EXPECT_EQ(dies->share().rank, 1);

  dies->Stop(false);  // as if it had been killed
  EXPECT_TRUE(Is("ended IS NULL", epoch));
  EXPECT_THAT(lives->gone(), Not(Contains(epoch)));
  EXPECT_TRUE(Until([&] { return Is("ended IS NOT NULL", epoch); }));
  EXPECT_FALSE(lease->Holds()) << "the fence comes after the lease";
  EXPECT_EQ(Number(absl::StrCat("SELECT count(*) FROM session WHERE open AND epoch = ", epoch)), 0);
  EXPECT_TRUE(Until([&] { return std::ranges::count(lives->gone(), epoch) == 1; }));
  EXPECT_FALSE(Is("swept", epoch)) << "one of its rows is SENDING";
  Do(absl::StrCat("UPDATE request SET state = 4 WHERE id = ", row));
  EXPECT_TRUE(Until([&] { return Is("swept", epoch); }));
  EXPECT_TRUE(Until([&] { return lives->share().count == 1 && lives->gone().empty(); }));
  EXPECT_TRUE(Is("ended IS NULL", lives->owner().epoch));
}

TEST_F(MemberTest, WhoLeavesCleanlyIsNotWaitedFor) {
  auto member = Running();
  const int64_t epoch = member->owner().epoch;
  const int64_t row = PutRow({.id = 1, .state = ledger::State::kSucceeded});
  Do(absl::StrCat("UPDATE request SET owner = ", epoch, " WHERE id = ", row));
  member->Stop(true);
  EXPECT_TRUE(Is("ended IS NOT NULL AND swept", epoch));
}

TEST_F(MemberTest, WhoLeavesWithARowThatRunsIsSweptByOthers) {
  auto member = Running();
  const int64_t epoch = member->owner().epoch;
  const int64_t row = PutRow({.id = 1, .state = ledger::State::kSending});
  Do(absl::StrCat("UPDATE request SET owner = ", epoch, " WHERE id = ", row));
  member->Stop(true);
  EXPECT_TRUE(Is("ended IS NOT NULL AND NOT swept", epoch));
}

TEST_F(MemberTest, AFencedOneGoesOnUnderAnotherEpoch) {
  const auto member = Running();
  const ledger::Owner before = member->owner();
  Do(absl::StrCat("UPDATE replica SET ended = now() WHERE epoch = ", before.epoch));
  EXPECT_TRUE(Until([&] { return member->owner().epoch > before.epoch; }));
  EXPECT_FALSE(before.lease->Holds()) << "for ever";
  EXPECT_TRUE(member->owner().lease->Holds());
  EXPECT_TRUE(Until([&] { return member->well(); }));
}

TEST_F(MemberTest, WithoutItsDatabaseItIsNotWellAndComesBackByItself) {
  const auto member = Running();
  EXPECT_TRUE(Until([&] { return member->well(); }));
  const std::shared_ptr<const Lease> lease = member->owner().lease;
  const std::string name = url_.substr(url_.find("@/") + 2, url_.find('?') - url_.find("@/") - 2);
  const auto admin = PostgresServer::Connect(PostgresServer::Get().NewDatabase());
  Do(*admin, absl::StrCat("ALTER DATABASE ", name, " ALLOW_CONNECTIONS false"));
  Do(*admin, absl::StrCat("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '", name, "'"));
  EXPECT_TRUE(Until([&] { return !member->well(); }));
  EXPECT_FALSE(lease->Holds()) << "as long as it held, nothing was wrong";
  EXPECT_LT(member->report().lease_left, 0);
  Do(*admin, absl::StrCat("ALTER DATABASE ", name, " ALLOW_CONNECTIONS true"));
  EXPECT_TRUE(Until([&] { return member->well(); }));
}

// Its standby is gone: nothing fails, and nothing is answered.
TEST_F(MemberTest, ATransactionThatHoldsWatchersBackIsTold) {
  Mutex mutex;
  std::vector<std::string> lines;
  MemberOptions options = Options();
  options.long_transaction = absl::Seconds(1);
  options.warn = [&](const std::string& line) {
    const MutexLock lock(mutex);
    lines.push_back(line);
  };
  const auto told = [&](const char* what) {
    const MutexLock lock(mutex);
    return std::any_of(lines.begin(), lines.end(),
                       [what](const std::string& line) { return line.find(what) != std::string::npos; });
  };
  auto joined = Member::Join(std::move(options));
  ASSERT_TRUE(joined.ok()) << joined.status();
  (*joined)->Run({});
  const auto other = PostgresServer::Connect(url_);
  ASSERT_TRUE(other->Execute("BEGIN; CREATE TABLE held ()").ok());
  EXPECT_TRUE(Until([&] { return told("has written and is open for"); }));
  ASSERT_TRUE(other->Execute("ROLLBACK").ok());
  EXPECT_TRUE(Until([&] { return told("holds watchers back any more"); }));
  EXPECT_TRUE((*joined)->well());
  (*joined)->Stop(true);
}

TEST_F(MemberTest, WhileItsOwnBeatHangsItSaysSoAndComesBackByItself) {
  std::atomic<int> given_up = 0;
  const auto member = Joined();
  Member::Hooks hooks;
  hooks.give_up = [&given_up] { ++given_up; };
  member->Run(std::move(hooks));
  EXPECT_TRUE(Until([&] { return member->well(); }));
  const int64_t epoch = member->owner().epoch;
  EXPECT_EQ(given_up, 0);
  Do("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
  Do("SELECT pg_reload_conf()");
  EXPECT_TRUE(Until([&] { return given_up > 0; }));
  EXPECT_FALSE(member->well());
  EXPECT_GT(member->report().commit_waits, 2);
  EXPECT_LT(member->report().commit_waits, 10) << "before anybody gives the connection up";
  Do("ALTER SYSTEM RESET synchronous_standby_names");
  Do("SELECT pg_reload_conf()");
  EXPECT_TRUE(Until([&] { return member->well(); }));
  EXPECT_EQ(member->owner().epoch, epoch);
}

}  // namespace
}  // namespace userintent::postgres
