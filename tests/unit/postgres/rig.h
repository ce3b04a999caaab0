// A ledger's database with rows that tests put there by hand, past every rule. One thread.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/ledger/ledger.h"
#include "tests/unit/postgres/postgres_server.h"

namespace userintent::postgres {

inline Uuid Id(int n) {
  Uuid id{};
  id[14] = static_cast<uint8_t>(n >> 8);
  id[15] = static_cast<uint8_t>(n);
  return id;
}
// The same in SQL.
inline std::string IdText(int n) { return absl::StrCat("'", UuidText(Id(n)), "'"); }

class RigTest : public PostgresTest {
 protected:
  void SetUp() override {
    PostgresTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    url_ = PostgresServer::Get().NewDatabase();
    c_ = Connect();
  }

  std::unique_ptr<Connection> Connect() const { return PostgresServer::Connect(url_); }

  void Do(const std::string& sql) { Do(*c_, sql); }
  static void Do(Connection& connection, const std::string& sql) {
    const absl::Status s = connection.Execute(sql);
    ASSERT_TRUE(s.ok()) << s << ": " << sql;
  }
  int64_t Number(const std::string& sql) {
    queries_.push_back(std::make_unique<std::string>(sql));
    const auto rows = c_->Query(*queries_.back(), std::initializer_list<Value>{});
    EXPECT_TRUE(rows.ok()) << rows.status() << ": " << sql;
    return rows.ok() && rows->size() == 1 ? rows->Number(0, 0) : -1;
  }

  struct Put {
    int id = 1;
    std::string caller = "one";
    ledger::State state = ledger::State::kSucceeded;
    std::string intent = "";
    int attempt = 1000;
    int64_t created = 0;  // seconds
  };
  // Returns the number of the row. Its address is its own, with 2 attempts confirmed and 1 possible.
  int64_t PutRow(const Put& put) {
    Do(absl::StrCat("INSERT INTO caller (name) VALUES ('", put.caller, "') ON CONFLICT DO NOTHING"));
    const int64_t email =
        Number(absl::StrCat("INSERT INTO email (confirmed, possible, digest) VALUES (2, 1, decode(lpad('", ++emails_,
                            "', 64, '0'), 'hex')) RETURNING id"));
    return Number(absl::StrCat(
        "INSERT INTO request (key_id, email, owner, created_at, updated_at, answered_at, caller, reason, "
        "verification_type, state, sent, http_status, attempts, confirmed, request_id, attempt_id, content, person, "
        "user_intent_id, astra_status, astra_request_id) SELECT 1, ",
        email, ", 0, ", put.created, "::bigint * 1000000, 1, 1, c.id, 0, 0, ", static_cast<int>(put.state),
        ", 2, 201, 1, true, ", IdText(put.id), ", ", IdText(put.attempt),
        ", decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), '", put.intent,
        "', 'pending', '' FROM caller c WHERE c.name = '", put.caller, "' RETURNING id"));
  }
  // As the store writes a change of this row.
  static std::string Change(int64_t handle, int place = 0) {
    return absl::StrCat("INSERT INTO change SELECT (pg_current_xact_id()::text::bigint << 20) + ", place,
                        ", r.id, r.caller FROM request r WHERE r.id = ", handle, ";");
  }

  std::string url_;
  std::unique_ptr<Connection> c_;

 private:
  int emails_ = 0;
  std::vector<std::unique_ptr<std::string>> queries_;  // a connection knows statements by texts that stay
};

}  // namespace userintent::postgres
