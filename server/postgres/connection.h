// postgres::Connection: one connection to the database, by libpq, which connection.cc and value.cc alone know.
//
// One thread at a time: its owner's. Every call waits for the server, by poll, at most as long as its deadline; only an
// answer to COMMIT is waited for as long as the connection lives, because a commit that waits for its standby must
// neither be given up nor cancelled (a cancelled one says success, and is not on the standby).
//
// Statements are prepared at their first use, one name for each text; values and answers travel in binary form.
//
// Statuses: Aborted: nothing was committed, and nothing is wrong: another transaction was in the way (or a guard of the
// statement said so), decide again. Unavailable: the connection is lost or of no use; IsBroken() is true then.
// PermissionDenied: this replica was fenced. Anything else is a fault of the code or of the database. No status holds a
// value of a row: messages name SQLSTATE and constraint only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/base/lease.h"
#include "server/postgres/url.h"
#include "server/postgres/value.h"

struct pg_conn;
struct pg_result;

namespace userintent::postgres {

struct Statement {
  std::string_view sql;  // lives as long as the connection, or is a literal
  std::vector<Value> values;
};

struct ConnectionOptions {
  std::string url;               // as given to --ledger
  std::string application_name;  // shown in pg_stat_activity
  // Not for the look-up of a host's name, which libpq does without any limit but the resolver's own (10 s for a name
  // that nobody answers is usual): while it lasts, a lease is not extended, and nothing is watched by this thread.
  absl::Duration connect_timeout = absl::Seconds(3);     // for each of several hosts
  absl::Duration statement_timeout = absl::Seconds(15);  // on our side; the server's own is shorter
  bool read_write = true;                                // skip servers that are read-only
  // Asked five times a second while an answer is waited for, by a connection that was begun at that time. False: give
  // it up, and the connection.
  std::function<bool(BootNanos opened)> while_waiting = [](BootNanos) { return true; };
};

class Connection {
 public:
  // Connected, with the session's settings made, and the ledger's schema first in the search path.
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const ConnectionOptions& options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // One statement, in a transaction of its own unless one is open.
  absl::StatusOr<Rows> Query(std::string_view sql, absl::Span<const Value> values);
  absl::StatusOr<Rows> Query(std::string_view sql, std::initializer_list<Value> values) {
    return Query(sql, absl::MakeConstSpan(values.begin(), values.size()));
  }
  // Several statements in one round trip, each in a transaction of its own; the answers in their order.
  absl::StatusOr<std::vector<Rows>> QueryAll(absl::Span<const Statement> statements);
  // Any number of statements in the simple protocol, without values: migrations, SET.
  absl::Status Execute(const std::string& sql);

  // BEGIN, the statements, COMMIT, in one round trip. A failure means that nothing was committed, unless in_doubt().
  absl::StatusOr<std::vector<Rows>> Transact(absl::Span<const Statement> statements);
  // COMMIT of a transaction that Execute("BEGIN") opened.
  absl::Status Commit();
  // After a failed Transact or Commit: COMMIT was sent, and whether it took place is not known.
  bool in_doubt() const { return in_doubt_; }

  // No further use: the connection is lost, or the server has become read-only.
  bool IsBroken() const { return broken_; }
  // SQLSTATE of the last failure; empty: it was not the server that refused.
  const std::string& sqlstate() const { return sqlstate_; }
  int socket() const;
  int backend_pid() const;

  // Any thread: since when an answer to COMMIT is waited for; 0: none is.
  BootNanos committing_since() const { return committing_since_.load(std::memory_order_acquire); }

 private:
  explicit Connection(const ConnectionOptions& options) : options_(options) {}
  absl::Status Connect();
  absl::Status ConnectTo(Parameters parameters);
  absl::Status CheckPrivate();
  absl::Status SetUp();
  absl::Status Wait(short events, BootNanos deadline);
  absl::Status Flush(BootNanos deadline);
  // Null at the end of one statement's answers.
  absl::StatusOr<pg_result*> Next(BootNanos deadline);
  absl::StatusOr<Rows> One(BootNanos deadline);
  absl::Status Send(std::string_view sql, absl::Span<const Value> values, bool& prepared_now);
  absl::Status Refusal(pg_result* result);
  absl::Status Lost(std::string_view what);
  // Statements that are sent together.
  struct Flight {
    absl::Span<const Statement> statements;
    bool commits = false;        // the last one is a COMMIT
    std::vector<bool> prepared;  // for the first time, so that it has an answer of its own
    BootNanos deadline = 0;
    std::vector<Rows> answers;
    absl::Status refused;  // the first one that was
  };
  absl::StatusOr<std::vector<Rows>> Pipeline(absl::Span<const Statement> statements, bool commits);
  absl::Status SendFlight(Flight& flight);
  absl::Status TakeAnswer(Flight& flight, size_t at);
  absl::StatusOr<std::vector<Rows>> Landed(Flight& flight);
  BootNanos Deadline() const { return BootNow() + absl::ToInt64Nanoseconds(options_.statement_timeout); }
  absl::Status ExecuteUntil(const std::string& sql, BootNanos deadline);
  static void OnNotice(void* self, const pg_result* result);

  const ConnectionOptions options_;
  const BootNanos opened_ = BootNow();
  pg_conn* conn_ = nullptr;
  absl::flat_hash_map<std::string, std::string> names_;  // of prepared statements, by their text
  bool broken_ = false;
  bool in_doubt_ = false;
  bool noticed_ = false;  // something was remarked since a COMMIT was sent
  std::string sqlstate_;
  std::atomic<BootNanos> committing_since_{0};
};

}  // namespace userintent::postgres
