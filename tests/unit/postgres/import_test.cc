// Another ledger's content in the database: every value arrives, and every value that did not is noticed.
#include "server/postgres/import.h"

#include <gmock/gmock.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/postgres/schema.h"
#include "tests/unit/postgres/rig.h"

namespace userintent::postgres {
namespace {

using ledger::PartSum;
using ledger::Row;
using ledger::State;
using testing::ElementsAre;
using testing::IsEmpty;

absl::Time At(int64_t micros) { return absl::FromUnixMicros(1'700'000'000'000'000 + micros); }

ledger::Digest DigestOf(int n) {
  ledger::Digest digest{};
  for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<uint8_t>(n * 37 + static_cast<int>(i) * 11);
  return digest;
}

// A ledger in memory, with something of everything.
class Held final : public ledger::Content {
 public:
  absl::StatusOr<ledger::Life> GetLife() override { return life; }
  absl::StatusOr<std::vector<ledger::LedgerKey>> Keys() override { return keys; }
  absl::Status Rows(Each<Row> each) override { return Tell(rows, each); }
  absl::Status Addresses(Each<ledger::AddressAttempts> each) override { return Tell(addresses, each); }
  absl::Status Audit(Each<ledger::AuditEntry> each) override { return Tell(audit, each); }
  absl::Status Conflicts(Each<ledger::Conflict> each) override { return Tell(conflicts, each); }
  absl::Status Webhooks(Each<ledger::KeptWebhook> each) override { return Tell(webhooks, each); }
  absl::Status Periods(Each<ledger::ReceiverPeriod> each) override { return Tell(periods, each); }
  absl::Status Restores(Each<ledger::Restored> each) override { return Tell(restores, each); }
  absl::Status Changes(Each<ledger::LoggedChange> each) override { return Tell(changes, each); }

  ledger::Life life{1'700'000'000'123'456, "sandbox", 6, 9};
  std::vector<ledger::LedgerKey> keys;
  std::vector<Row> rows;
  std::vector<ledger::AddressAttempts> addresses;
  std::vector<ledger::AuditEntry> audit;
  std::vector<ledger::Conflict> conflicts;
  std::vector<ledger::KeptWebhook> webhooks;
  std::vector<ledger::ReceiverPeriod> periods;
  std::vector<ledger::Restored> restores;
  std::vector<ledger::LoggedChange> changes;

 private:
  template <typename T>
  static absl::Status Tell(const std::vector<T>& all, Each<T> each) {
    for (const T& one : all) {
      if (absl::Status s = each(one); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
};

Row RowOf(int n, State state) {
  Row row;
  ledger::Record& record = row.record;
  record.key = {n % 2 == 0 ? "one" : "two", Id(1000 - n)};
  record.state = state;
  record.sent = ledger::Sent::kYes;
  record.reason = state == State::kSucceeded ? 0 : 7;
  record.answer = {201,       state == State::kSucceeded, absl::StrCat("intent-", n),
                   "pending", absl::StrCat("req-", n),    At(n)};
  if (state == State::kUnknown) record.answer = {};
  record.attempt_id = Id(2000 + n);
  record.posts = n + 1;
  record.verification_type = 2;
  record.latest = LatestOf(record);
  record.created = At(1000 - n);
  record.updated = At(2000 + n);
  row.key_id = 0xfedcba9876543210;
  row.content = DigestOf(n);
  row.person = DigestOf(n + 50);
  row.email = DigestOf(100 + n / 2);
  return row;
}

// Rows 0 and 1 are of one address, 2 and 3, 4.
Held Everything() {
  Held held;
  held.keys = {{0xfedcba9876543210, At(1), std::nullopt}, {5, At(0), At(1)}};
  for (const State state : {State::kSucceeded, State::kFailed, State::kUnknown, State::kSucceeded, State::kReleased}) {
    held.rows.push_back(RowOf(static_cast<int>(held.rows.size()), state));
  }
  held.rows[0].record.supersedes = Id(999);
  held.rows[1].record.superseded_by = Id(1000);
  held.rows[3].record.latest = {"approved", "user-7", 1, At(77), At(78)};
  held.addresses = {{DigestOf(100), {2, 1}, {1, 0}}, {DigestOf(101), {1, 3}, {0, 2}}, {DigestOf(777), {3, 0}, {3, 0}}};
  held.audit = {{8, At(5), "operator", "resolve", {"one", Id(1)}, State::kUnknown, State::kFailed, "ticket 1"},
                {9, At(4), "astra", "settle", {"two", Id(2)}, State::kUnknown, State::kSucceeded, "hook"}};
  held.conflicts = {
      {3, At(6), {"two", Id(3)}, Id(4), State::kFailed, "", State::kSucceeded, "intent", "settle", "hook"}};
  held.webhooks = {{{"hook-b", "user_intent_updated", "intent-0", Id(2000), At(7)}, At(9), 4, "no answer"},
                   {{"hook-a", "other", "", std::nullopt, At(8)}, std::nullopt, 0, "read"}};
  held.periods = {{At(1), At(2)}, {At(3), At(4)}};
  held.restores = {{11, 12, 13}};
  held.changes = {{7, held.rows[3].record.key}, {8, std::nullopt}, {9, held.rows[0].record.key}};
  return held;
}

class ImportTest : public RigTest {
 protected:
  void SetUp() override {
    RigTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto opened = Import::Open(url_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    import_ = *std::move(opened);
  }
  void Write(ledger::Content& held) {
    const auto found = import_->Begin();
    ASSERT_TRUE(found.ok()) << found.status();
    ASSERT_FALSE(found->used);
    ASSERT_EQ(found->schema_version, SchemaVersion());
    const absl::Status written = import_->Write(held, Id(1));
    ASSERT_TRUE(written.ok()) << written;
  }
  // In the database, by another session.
  std::vector<PartSum> Sums() {
    Do("BEGIN");
    Content content(*c_);
    auto sums = ledger::SumsOf(content);
    Do("COMMIT");
    EXPECT_TRUE(sums.ok()) << sums.status();
    return sums.ok() ? *std::move(sums) : std::vector<PartSum>();
  }
  std::set<std::string> Names(const std::string& sql) {
    const auto rows = c_->Query(sql, std::initializer_list<Value>{});
    EXPECT_TRUE(rows.ok()) << rows.status();
    std::set<std::string> names;
    for (int at = 0; rows.ok() && at < rows->size(); ++at) names.insert(rows->Text(at, 0));
    return names;
  }
  static std::vector<PartSum> SumsOf(Held held) { return *ledger::SumsOf(held); }

  std::unique_ptr<Import> import_;
};

std::vector<std::string> Differing(const std::vector<PartSum>& a, const std::vector<PartSum>& b) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(a[i] == b[i])) parts.push_back(a[i].part);
  }
  return parts;
}

TEST_F(ImportTest, EverythingIsThereAndNothingBeforeTheCommit) {
  Held held = Everything();
  Write(held);
  EXPECT_THAT(Differing(*ledger::SumsOf(import_->content()), SumsOf(held)), IsEmpty());
  EXPECT_TRUE(import_->CheckCounters().ok());
  EXPECT_EQ(Number("SELECT count(*) FROM request"), 0);
  ASSERT_TRUE(import_->Commit().ok());
  EXPECT_THAT(Differing(Sums(), SumsOf(held)), IsEmpty());
  EXPECT_EQ(Number("SELECT value::bigint FROM setting WHERE name = 'ledger_id'"), held.life.made_at);
  const auto found = import_->Begin();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(found->used);
  EXPECT_EQ(found->copy, Id(1));
}

TEST_F(ImportTest, WhatIsRolledBackWasNeverThere) {
  Held held = Everything();
  Write(held);
  import_->Rollback();
  Write(held);  // it is empty
}

TEST_F(ImportTest, NobodyElseMeanwhile) {
  ASSERT_TRUE(import_->Begin().ok());
  Do("SET lock_timeout TO '100ms'; BEGIN");
  EXPECT_TRUE(absl::IsAborted(c_->Query(kJoinLock, std::initializer_list<Value>{}).status()));
}

TEST_F(ImportTest, CountersThatAreNotTheSum) {
  Held held = Everything();
  held.addresses[1].all.possible = 2;
  Write(held);
  EXPECT_FALSE(import_->CheckCounters().ok());
}

TEST_F(ImportTest, MoreRowsThanAreSentAtOnce) {
  Held held;
  for (int n = 0; n < 4500; ++n) {
    Row row = RowOf(n % 7, State::kReleased);
    row.record.key.request_id = Id(9000 - n);
    row.record.created = At(n);
    held.rows.push_back(row);
  }
  held.changes = {};
  held.life.logged = 0;
  Write(held);
  EXPECT_THAT(Differing(*ledger::SumsOf(import_->content()), SumsOf(held)), IsEmpty());
}

// Every column of every table that is copied: another value in it is another digest, and only there.
TEST_F(ImportTest, EveryValueCounts) {
  Held held = Everything();
  Write(held);
  ASSERT_TRUE(import_->Commit().ok());
  const std::vector<PartSum> whole = Sums();
  Do("DROP TRIGGER audit_is_append_only ON audit; DROP TRIGGER conflict_is_append_only ON conflict");
  struct Column {
    const char* table;
    const char* name;
    const char* value;  // another one
    const char* part;
  };
  const std::vector<Column> columns = {
      {"request", "reason", "99", "requests"},
      {"request", "http_status", "299", "requests"},
      {"request", "state", "5", "requests"},
      {"request", "sent", "0", "requests"},
      {"request", "confirmed", "NOT confirmed", "requests"},
      {"request", "user_intent_id", "'x'", "requests"},
      {"request", "astra_status", "'x'", "requests"},
      {"request", "astra_request_id", "'x'", "requests"},
      {"request", "answered_at", "1", "requests"},
      {"request", "attempt_id", "gen_random_uuid()", "requests"},
      {"request", "attempts", "99", "requests"},
      {"request", "supersedes", "gen_random_uuid()", "requests"},
      {"request", "superseded_by", "gen_random_uuid()", "requests"},
      {"request", "updated_at", "1", "requests"},
      {"request", "created_at", "1", "requests"},
      {"request", "owner", "1", "requests"},
      {"request", "key_id", "1", "requests"},
      {"request", "content", "decode(repeat('00', 32), 'hex')", "requests"},
      {"request", "person", "decode(repeat('00', 32), 'hex')", "requests"},
      {"request", "verification_type", "9", "requests"},
      {"request", "read_at", "9", "requests"},
      {"request", "latest_status", "'x'", "requests"},
      {"request", "latest_user_id", "'x'", "requests"},
      {"request", "latest_type", "9", "requests"},
      {"request", "status_since", "9", "requests"},
      {"email", "confirmed", "confirmed + 1", "addresses"},
      {"email", "possible", "possible + 1", "addresses"},
      {"email", "purged_confirmed", "7", "addresses"},
      {"email", "purged_possible", "7", "addresses"},
      {"audit", "at", "1", "audit entries"},
      {"audit", "actor", "'x'", "audit entries"},
      {"audit", "action", "'x'", "audit entries"},
      {"audit", "caller", "'x'", "audit entries"},
      {"audit", "request_id", "gen_random_uuid()", "audit entries"},
      {"audit", "from_state", "1", "audit entries"},
      {"audit", "to_state", "1", "audit entries"},
      {"audit", "evidence", "'x'", "audit entries"},
      {"conflict", "at", "1", "conflicts"},
      {"conflict", "caller", "'x'", "conflicts"},
      {"conflict", "request_id", "gen_random_uuid()", "conflicts"},
      {"conflict", "attempt_id", "gen_random_uuid()", "conflicts"},
      {"conflict", "recorded_state", "1", "conflicts"},
      {"conflict", "recorded_intent", "'x'", "conflicts"},
      {"conflict", "claimed_state", "1", "conflicts"},
      {"conflict", "claimed_intent", "'x'", "conflicts"},
      {"conflict", "action", "'x'", "conflicts"},
      {"conflict", "evidence", "'x'", "conflicts"},
      {"webhook", "webhook_id", "'x'", "webhooks"},
      {"webhook", "type", "'x'", "webhooks"},
      {"webhook", "resource_id", "'x'", "webhooks"},
      {"webhook", "attempt_id", "gen_random_uuid()", "webhooks"},
      {"webhook", "received_at", "1", "webhooks"},
      {"webhook", "due_at", "1", "webhooks"},
      {"webhook", "tries", "9", "webhooks"},
      {"webhook", "result", "'x'", "webhooks"},
      {"receiver_period", "began", "1", "receiver times"},
      {"receiver_period", "until", "1", "receiver times"},
      {"restored", "backup_of", "1", "restores"},
      {"restored", "served_until", "1", "restores"},
      {"restored", "acknowledged_at", "1", "restores"},
      {"change", "request", "0", "changes"},
      {"ledger_key", "key_id", "1", "keys"},
      {"ledger_key", "since", "1", "keys"},
      {"ledger_key", "retired_at", "1", "keys"},
  };
  // What is not told by a column of its own: numbers of this database, and what rows are found by.
  std::set<std::string> known = {
      "audit.seq",  "change.caller",      "change.revision",    "conflict.seq",       "email.digest",
      "email.id",   "email.version",      "receiver_period.id", "request.caller",     "request.email",
      "request.id", "request.request_id", "restored.seq",       "webhook.claimed_by", "webhook.claimed_until",
      "webhook.id"};
  for (const Column& column : columns) known.insert(absl::StrCat(column.table, ".", column.name));
  EXPECT_EQ(Names("SELECT c.table_name || '.' || c.column_name FROM information_schema.columns c "
                  "WHERE c.table_schema = 'userintent' AND c.table_name NOT IN ('migration', 'setting', 'replica', "
                  "'session', 'caller')"),
            known)
      << "a column that is new must be copied, or named here";
  for (const Column& column : columns) {
    // Of requests the one that has a reading.
    const char* const one = column.table == std::string("request") ? " WHERE read_at IS NOT NULL)" : ")";
    Do("BEGIN");
    Do(absl::StrCat("UPDATE ", column.table, " SET ", column.name, " = ", column.value,
                    " WHERE ctid = (SELECT min(ctid) FROM ", column.table, one));
    Content content(*c_);
    const auto sums = ledger::SumsOf(content);
    ASSERT_TRUE(sums.ok()) << sums.status();
    EXPECT_THAT(Differing(*sums, whole), ElementsAre(column.part)) << column.table << "." << column.name;
    Do("ROLLBACK");
  }
}

// What another order is told by, and what a part that is missing.
TEST_F(ImportTest, OrderAndAbsenceCount) {
  const Held held = Everything();
  const std::vector<PartSum> whole = SumsOf(held);
  Held other = held;
  std::swap(other.rows[0], other.rows[4]);
  std::swap(other.audit[0], other.audit[1]);
  std::swap(other.webhooks[0], other.webhooks[1]);
  std::swap(other.periods[0], other.periods[1]);
  std::swap(other.addresses[0], other.addresses[1]);  // of no meaning
  EXPECT_THAT(Differing(SumsOf(other), whole), ElementsAre("requests", "audit entries", "webhooks", "receiver times"));
  other = held;
  other.addresses.push_back({DigestOf(888), {}, {}});  // as if it was never seen
  EXPECT_THAT(Differing(SumsOf(other), whole), IsEmpty());
  other.addresses.pop_back();
  other.addresses.pop_back();
  other.rows.pop_back();
  other.life.environment = "production";
  EXPECT_THAT(Differing(SumsOf(other), whole), ElementsAre("requests", "addresses", "identity"));
}

}  // namespace
}  // namespace userintent::postgres
