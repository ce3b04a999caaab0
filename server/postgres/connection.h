// postgres::Connection: one connection to the database, by libpq. The only file that knows libpq is connection.cc.
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

#include <array>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
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
#include "server/base/uuid.h"
#include "server/ledger/ledger.h"

struct pg_conn;
struct pg_result;

namespace userintent::postgres {

// A value of a statement: NULL, a scalar or an array of scalars.
class Value {
 public:
  Value(bool value);                                                 // NOLINT(google-explicit-constructor)
  Value(int value) : Value(static_cast<int64_t>(value)) {}           // NOLINT(google-explicit-constructor)
  Value(int64_t value);                                              // NOLINT(google-explicit-constructor)
  Value(size_t value) : Value(static_cast<int64_t>(value)) {}        // NOLINT(google-explicit-constructor)
  Value(std::string_view text);                                      // NOLINT(google-explicit-constructor)
  Value(const std::string& text) : Value(std::string_view(text)) {}  // NOLINT(google-explicit-constructor)
  Value(const char* text) : Value(std::string_view(text)) {}         // NOLINT(google-explicit-constructor)
  Value(const Uuid& id);                                             // NOLINT(google-explicit-constructor)
  Value(const ledger::Digest& digest);                               // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::string>& texts);                      // NOLINT(google-explicit-constructor)
  Value(const std::vector<int64_t>& numbers);                        // NOLINT(google-explicit-constructor)
  Value(const std::vector<Uuid>& ids);                               // NOLINT(google-explicit-constructor)
  Value(const std::vector<ledger::Digest>& digests);                 // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<Uuid>>& ids);                // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<int64_t>>& numbers);         // NOLINT(google-explicit-constructor)
  Value(const std::vector<std::optional<std::string>>& texts);       // NOLINT(google-explicit-constructor)

  unsigned type() const { return type_; }
  bool is_null() const { return null_; }
  const std::string& bytes() const { return bytes_; }

 private:
  friend class ArrayWriter;
  explicit Value(unsigned type) : type_(type) {}
  unsigned type_;
  bool null_ = false;
  std::string bytes_;
};

// The answer to one statement. Columns are read as what they are: a wrong type or place is a bug, and reads as zero or
// empty. Booleans and integers of any width are numbers.
class Rows {
 public:
  explicit Rows(pg_result* result) : result_(result) {}
  int size() const;
  bool IsNull(int row, int column) const;
  int64_t Number(int row, int column) const;
  int Int(int row, int column) const { return static_cast<int>(Number(row, column)); }
  bool Bool(int row, int column) const { return Number(row, column) != 0; }
  std::string Text(int row, int column) const;
  Uuid Id(int row, int column) const;
  std::optional<Uuid> OptionalId(int row, int column) const;
  ledger::Digest DigestAt(int row, int column) const;
  absl::Time Time(int row, int column) const;  // of microseconds since 1970; NULL: InfinitePast
  // Rows that an INSERT, UPDATE or DELETE touched.
  int64_t touched() const;
  std::string_view tag() const;

 private:
  std::string_view Bytes(int row, int column) const;
  struct Deleter {
    void operator()(pg_result* result) const;
  };
  std::unique_ptr<pg_result, Deleter> result_;
};

struct Statement {
  std::string_view sql;  // lives as long as the connection, or is a literal
  std::vector<Value> values;
};

struct ConnectionOptions {
  std::string url;               // as given to --ledger
  std::string application_name;  // shown in pg_stat_activity
  absl::Duration connect_timeout = absl::Seconds(3);
  absl::Duration statement_timeout = absl::Seconds(15);  // on our side; the server's own is shorter
  bool read_write = true;                                // skip servers that are read-only
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
  absl::Status SetUp();
  absl::Status Wait(short events, BootNanos deadline);
  absl::Status Flush(BootNanos deadline);
  // Null at the end of one statement's answers.
  absl::StatusOr<pg_result*> Next(BootNanos deadline);
  absl::StatusOr<Rows> One(BootNanos deadline);
  absl::Status Send(std::string_view sql, absl::Span<const Value> values, bool& prepared_now);
  absl::Status Refusal(pg_result* result);
  absl::Status Lost(std::string_view what);
  absl::StatusOr<std::vector<Rows>> Pipeline(absl::Span<const Statement> statements, bool commits);
  BootNanos Deadline() const { return BootNow() + absl::ToInt64Nanoseconds(options_.statement_timeout); }
  static void OnNotice(void* self, const pg_result* result);

  const ConnectionOptions options_;
  pg_conn* conn_ = nullptr;
  absl::flat_hash_map<std::string, std::string> names_;  // of prepared statements, by their text
  bool broken_ = false;
  bool in_doubt_ = false;
  bool noticed_ = false;  // something was remarked during the COMMIT
  std::string sqlstate_;
  std::atomic<BootNanos> committing_since_{0};
};

}  // namespace userintent::postgres
