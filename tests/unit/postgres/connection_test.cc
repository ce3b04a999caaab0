// One connection to a real server: values there and back, what a failure means, and what leaves a commit in doubt.
#include "server/postgres/connection.h"

#include <gmock/gmock.h>

#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using testing::HasSubstr;
using testing::Not;

class ConnectionTest : public RigTest {
 protected:
  // Has a process of its own end the connection `c_` at the server.
  void EndAtTheServer() { Do(*Connect(), absl::StrCat("SELECT pg_terminate_backend(", c_->backend_pid(), ")")); }
};

// As libpq reads a URL of several servers; each is tried by itself.
TEST(ServersOf, EachHasItsOwnHostAndPort) {
  using Places = std::vector<std::string>;
  const auto places = [](const std::string& url) {
    Places all;
    for (Parameters& one : ServersOf(url)) all.push_back(one["host"] + "|" + one["hostaddr"] + "|" + one["port"]);
    return all;
  };
  EXPECT_EQ(places("postgresql://u@a/db"), Places{"a||"});
  EXPECT_EQ(places("postgresql:///db"), Places{"||"});
  EXPECT_EQ(places("postgresql://u@a,b/db"), (Places{"a||5432", "b||5432"}));
  EXPECT_EQ(places("postgresql://u@a,b:6000/db"), (Places{"a||5432", "b||6000"}));
  EXPECT_EQ(places("postgresql://u@/db?host=/x,/y&port=5433"), (Places{"/x||5433", "/y||5433"}));
  EXPECT_EQ(places("postgresql://u@a,b/db?hostaddr=10.0.0.1,10.0.0.2"), (Places{"a|10.0.0.1|5432", "b|10.0.0.2|5432"}));
  EXPECT_EQ(ServersOf("postgresql://u@a,b/db?sslmode=verify-full")[1]["sslmode"], "verify-full");
}

TEST_F(ConnectionTest, ValuesComeBackAsTheyWent) {
  const std::vector<std::optional<int64_t>> numbers = {1, std::nullopt, -3};
  const std::vector<std::optional<Uuid>> ids = {std::nullopt, Id(7)};
  ledger::Digest digest{};
  digest[31] = 9;
  const auto rows = c_->Query(
      "SELECT $1::bigint, $2::text, $3::uuid, $4::bytea, $5::boolean, ($6::bigint[])[3], ($6::bigint[])[2], "
      "($7::uuid[])[2], cardinality($8::text[]), 5::smallint, -6::int, NULL::bigint",
      {std::numeric_limits<int64_t>::min(), "a\"{,}\\ä", Id(258), digest, true, numbers, ids,
       std::vector<std::string>{}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1);
  EXPECT_EQ(rows->Number(0, 0), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(rows->Text(0, 1), "a\"{,}\\ä");
  EXPECT_EQ(rows->Id(0, 2), Id(258));
  EXPECT_EQ(rows->DigestAt(0, 3), digest);
  EXPECT_TRUE(rows->Bool(0, 4));
  EXPECT_EQ(rows->Number(0, 5), -3);
  EXPECT_TRUE(rows->IsNull(0, 6));
  EXPECT_EQ(rows->OptionalId(0, 7), Id(7));
  EXPECT_EQ(rows->Number(0, 8), 0);
  EXPECT_EQ(rows->Number(0, 9), 5);
  EXPECT_EQ(rows->Number(0, 10), -6);
  EXPECT_EQ(rows->Time(0, 11), absl::InfinitePast());
}

TEST_F(ConnectionTest, ATransactionIsAllOrNothing) {
  constexpr char kSet[] = "INSERT INTO setting (name, value) VALUES ($1, $2)";
  ASSERT_TRUE(c_->Transact(std::vector<Statement>{{kSet, {"a", "1"}}, {kSet, {"b", "2"}}}).ok());
  const auto twice = c_->Transact(std::vector<Statement>{{kSet, {"c", "3"}}, {kSet, {"a", "4"}}, {kSet, {"d", "5"}}});
  EXPECT_TRUE(absl::IsAborted(twice.status())) << twice.status();
  EXPECT_FALSE(c_->in_doubt());
  EXPECT_FALSE(c_->IsBroken());
  EXPECT_EQ(c_->sqlstate(), "23505");
  EXPECT_EQ(Number("SELECT count(*) FROM setting WHERE name IN ('a', 'b', 'c', 'd')"), 2) << "and it goes on";
  const auto last = c_->Transact(std::vector<Statement>{{kSet, {"c", "3"}}, {"SELECT count(*) FROM setting", {}}});
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->size(), 2U);
}

TEST_F(ConnectionTest, ARefusalNamesNoValue) {
  const auto rows = c_->Query("SELECT $1::text::uuid", {"Jane Doe, example.com"});
  EXPECT_TRUE(absl::IsInternal(rows.status()));
  EXPECT_THAT(std::string(rows.status().message()), HasSubstr("22P02"));
  EXPECT_THAT(std::string(rows.status().message()), Not(HasSubstr("Jane")));
}

TEST_F(ConnectionTest, TheSchemasOwnRefusals) {
  const auto fenced = c_->Transact(std::vector<Statement>{{"SELECT fence($1)", {int64_t{12345}}}});
  EXPECT_TRUE(absl::IsPermissionDenied(fenced.status())) << fenced.status();
  const auto lost = c_->Transact(std::vector<Statement>{{"SELECT expect($1, $2)", {int64_t{1}, int64_t{2}}}});
  EXPECT_TRUE(absl::IsAborted(lost.status())) << lost.status();
  EXPECT_FALSE(c_->in_doubt());
  EXPECT_TRUE(c_->Query("SELECT expect($1, $2)", {int64_t{2}, int64_t{2}}).ok());
}

TEST_F(ConnectionTest, AStatementThatFailsWhenItIsUsedFirstIsMadeAnew) {
  constexpr char kLater[] = "SELECT count(*) FROM later";
  EXPECT_TRUE(absl::IsInternal(c_->Query(kLater, std::initializer_list<Value>{}).status()));
  Do("CREATE TABLE later (n int)");
  EXPECT_TRUE(c_->Query(kLater, std::initializer_list<Value>{}).ok());
}

TEST_F(ConnectionTest, AConnectionThatEndedBetweenIsOfNoUse) {
  EndAtTheServer();
  const auto rows = c_->Query("SELECT 1", std::initializer_list<Value>{});
  EXPECT_TRUE(absl::IsUnavailable(rows.status())) << rows.status();
  EXPECT_TRUE(c_->IsBroken());
  EXPECT_TRUE(absl::IsUnavailable(c_->Execute("SELECT 1")));
}

TEST_F(ConnectionTest, ALossOnceACommitWasSentLeavesItInDoubt) {
  std::thread end([this] {
    const auto other = Connect();
    while (true) {
      const auto rows = other->Query(
          "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%' AND pid = $1 "
          "AND wait_event = 'PgSleep'",
          {c_->backend_pid()});
      if (rows.ok() && rows->Number(0, 0) > 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    Do(*other, absl::StrCat("SELECT pg_terminate_backend(", c_->backend_pid(), ")"));
  });
  const auto lost = c_->Transact(std::vector<Statement>{{"SELECT 1 FROM pg_sleep(20)", {}}});
  end.join();
  EXPECT_TRUE(absl::IsUnavailable(lost.status())) << lost.status();
  EXPECT_TRUE(c_->in_doubt());
  EXPECT_TRUE(c_->IsBroken());
}

// As the wait for a standby says when it is cancelled: the answer is COMMIT, with a warning before it.
TEST_F(ConnectionTest, ACommitWithARemarkIsInDoubt) {
  Do("CREATE FUNCTION remark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'oh'; RETURN NULL; END $$; "
     "CREATE TABLE remarked (n int); "
     "CREATE CONSTRAINT TRIGGER remarks AFTER INSERT ON remarked DEFERRABLE INITIALLY DEFERRED "
     "FOR EACH ROW EXECUTE FUNCTION remark()");
  const auto done = c_->Transact(std::vector<Statement>{{"INSERT INTO remarked VALUES (1)", {}}});
  EXPECT_TRUE(absl::IsUnavailable(done.status())) << done.status();
  EXPECT_TRUE(c_->in_doubt());
  EXPECT_TRUE(c_->IsBroken());
}

TEST_F(ConnectionTest, WhereNobodyListensItSaysSo) {
  const auto none = Connection::Open({"postgresql://nobody@/none?host=/nowhere", "tests"});
  EXPECT_TRUE(absl::IsUnavailable(none.status())) << none.status();
}

}  // namespace
}  // namespace userintent::postgres
