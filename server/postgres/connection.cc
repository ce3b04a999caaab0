#include "server/postgres/connection.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::postgres {
namespace {

constexpr BootNanos kForEver = std::numeric_limits<BootNanos>::max();
constexpr BootNanos kLookUp = 200;  // milliseconds between two calls of while_waiting

constexpr char kPathOfSchema[] = "SET search_path TO userintent, pg_catalog; ";

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionOptions& options) {
  auto connection = std::unique_ptr<Connection>(new Connection(options));
  if (absl::Status s = connection->Connect(); !s.ok()) return s;
  if (absl::Status s = connection->SetUp(); !s.ok()) return s;
  return connection;
}

Connection::~Connection() { PQfinish(conn_); }

int Connection::socket() const { return PQsocket(conn_); }
int Connection::backend_pid() const { return PQbackendPID(conn_); }

// libpq tries several hosts by itself, but goes on to the next one only where the one before refuses; one that takes a
// connection and says nothing, as a frozen server does, would keep all of the time.
absl::Status Connection::Connect() {
  std::string why;
  for (const Parameters& server : ServersOf(options_.url)) {
    PQfinish(std::exchange(conn_, nullptr));
    broken_ = false;
    const absl::Status s = ConnectTo(server);
    if (s.ok() || absl::IsFailedPrecondition(s)) return s;
    absl::StrAppend(&why, why.empty() ? "" : "; ", std::string(s.message()));
    if (!options_.while_waiting(opened_)) break;
  }
  return absl::UnavailableError(why);
}

absl::Status Connection::ConnectTo(Parameters parameters) {
  const std::pair<const char*, std::string> ours[] = {
      {"application_name", options_.application_name},
      {"target_session_attrs", options_.read_write ? "read-write" : "any"},
      {"client_encoding", "UTF8"},
      {"keepalives", "1"},
      {"keepalives_idle", "5"},
      {"keepalives_interval", "2"},
      {"keepalives_count", "2"},
      {"tcp_user_timeout", "8000"},
  };
  for (const auto& [key, value] : ours) parameters[key] = value;
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : parameters) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  conn_ = PQconnectStartParams(keys.data(), values.data(), 0);
  if (conn_ == nullptr) return Lost("no memory for a connection");
  PQsetNoticeReceiver(conn_, &Connection::OnNotice, this);
  const BootNanos deadline = BootNow() + absl::ToInt64Nanoseconds(options_.connect_timeout);
  if (PQstatus(conn_) == CONNECTION_BAD) return Lost("cannot connect");
  for (PostgresPollingStatusType next = PGRES_POLLING_WRITING; next != PGRES_POLLING_OK; next = PQconnectPoll(conn_)) {
    if (next == PGRES_POLLING_FAILED) return Lost("cannot connect");
    if (absl::Status s = Wait(next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline); !s.ok()) return s;
  }
  if (PQsetnonblocking(conn_, 1) != 0) return Lost("cannot connect");
  // Of an error the details may hold values of a row.
  PQsetErrorVerbosity(conn_, PQERRORS_TERSE);
  return CheckPrivate();
}

// What the URL does not say may come from the environment of the process (PGHOST and its like).
absl::Status Connection::CheckPrivate() {
  const char* const host = PQhost(conn_);
  const bool socket = PQhostaddr(conn_) == nullptr || PQhostaddr(conn_)[0] == '\0';
  if (socket && host != nullptr && host[0] == '/') return absl::OkStatus();
  bool verified = false;
  PQconninfoOption* const all = PQconninfo(conn_);
  for (const PQconninfoOption* option = all; option != nullptr && option->keyword != nullptr; ++option) {
    if (std::strcmp(option->keyword, "sslmode") != 0) continue;
    verified = option->val != nullptr && std::strcmp(option->val, "verify-full") == 0;
  }
  PQconninfoFree(all);
  if (verified && PQsslInUse(conn_) != 0) return absl::OkStatus();
  broken_ = true;
  return absl::FailedPreconditionError(
      "the database is reached over the network without sslmode=verify-full; name its hosts in the URL");
}

absl::Status Connection::SetUp() {
  return Execute(absl::StrCat(
      kPathOfSchema,
      "SET synchronous_commit TO on; SET lock_timeout TO '5s'; SET statement_timeout TO '10s'; "
      "SET idle_in_transaction_session_timeout TO '5s'; SET plan_cache_mode TO force_generic_plan; SET jit TO off; "
      "SET enable_seqscan TO off; SET enable_mergejoin TO off"));
}

// A remark during a COMMIT is about the commit: that its wait for the standby was cancelled, most of all. Texts are
// translated and names of functions may change, so any will do.
void Connection::OnNotice(void* self, const pg_result*) { static_cast<Connection*>(self)->noticed_ = true; }

absl::Status Connection::Lost(std::string_view what) {
  broken_ = true;
  sqlstate_.clear();
  std::string why = "the database: ";
  why += what;
  // libpq's own words about the connection: addresses, certificates, passwords that are missing. Never a value.
  if (conn_ != nullptr && PQstatus(conn_) == CONNECTION_BAD) {
    why += absl::StrCat(": ", PQerrorMessage(conn_));
    std::replace(why.begin(), why.end(), '\n', ' ');
    while (why.back() == ' ') why.pop_back();
  }
  return absl::UnavailableError(why);
}

absl::Status Connection::Wait(short events, BootNanos deadline) {
  for (;;) {
    pollfd fd{PQsocket(conn_), events, 0};
    const BootNanos left = deadline - BootNow();
    if (left <= 0) return Lost("no answer in time");
    const int ready = poll(&fd, 1, static_cast<int>(std::min<BootNanos>(left / 1'000'000 + 1, kLookUp)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return Lost("its socket cannot be waited for");
    if (!options_.while_waiting(opened_)) return Lost("an answer was given up");
  }
}

absl::Status Connection::Flush(BootNanos deadline) {
  for (;;) {
    const int left = PQflush(conn_);
    if (left < 0) return Lost("cannot send");
    if (left == 0) return absl::OkStatus();
    if (absl::Status s = Wait(POLLIN | POLLOUT, deadline); !s.ok()) return s;
    // What the server says meanwhile must be read, or neither goes on.
    if (PQconsumeInput(conn_) == 0) return Lost("the connection is lost");
  }
}

absl::StatusOr<pg_result*> Connection::Next(BootNanos deadline) {
  while (PQisBusy(conn_) != 0) {
    if (absl::Status s = Wait(POLLIN, deadline); !s.ok()) return s;
    if (PQconsumeInput(conn_) == 0) return Lost("the connection is lost");
  }
  pg_result* const result = PQgetResult(conn_);
  if (result == nullptr && PQstatus(conn_) == CONNECTION_BAD) return Lost("the connection is lost");
  return result;
}

absl::Status Connection::Refusal(pg_result* result) {
  const char* const state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  if (state == nullptr || PQstatus(conn_) == CONNECTION_BAD) return Lost("the connection is lost");
  sqlstate_ = state;
  const char* const constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
  const std::string text = absl::StrCat("the database refused: SQLSTATE ", sqlstate_,
                                        constraint == nullptr ? "" : absl::StrCat(", ", constraint));
  if (sqlstate_ == "UI001") return absl::PermissionDeniedError("this replica was fenced");
  for (const char* const again : {"40001", "40P01", "55P03", "57014", "UI002", "23505"}) {
    if (sqlstate_ == again) return absl::AbortedError(text);
  }
  // Shut down, out of connections, lost; a server that has become a standby; one that cannot tell what became of it.
  if (sqlstate_.starts_with("08") || sqlstate_.starts_with("57P") || sqlstate_.starts_with("53") ||
      sqlstate_ == "25006" || sqlstate_ == "25P03" || sqlstate_ == "40003") {
    broken_ = true;
    return absl::UnavailableError(text);
  }
  return absl::InternalError(text);
}

absl::Status Connection::Send(std::string_view sql, absl::Span<const Value> values, bool& prepared_now) {
  auto [at, fresh] = names_.try_emplace(std::string(sql));
  prepared_now = fresh;
  std::vector<Oid> types;
  std::vector<const char*> bytes;
  std::vector<int> lengths, formats;
  for (const Value& value : values) {
    types.push_back(value.type());
    bytes.push_back(value.is_null() ? nullptr : value.bytes().data());
    lengths.push_back(static_cast<int>(value.bytes().size()));
    formats.push_back(1);
  }
  const int count = static_cast<int>(values.size());
  if (fresh) {
    at->second = absl::StrCat("s", names_.size());
    if (PQsendPrepare(conn_, at->second.c_str(), at->first.c_str(), count, types.data()) != 1) {
      return Lost("cannot send");
    }
  }
  if (PQsendQueryPrepared(conn_, at->second.c_str(), count, bytes.data(), lengths.data(), formats.data(), 1) != 1) {
    return Lost("cannot send");
  }
  return absl::OkStatus();
}

// The one answer to one statement, and the null that ends it.
absl::StatusOr<Rows> Connection::One(BootNanos deadline) {
  const absl::StatusOr<pg_result*> got = Next(deadline);
  if (!got.ok()) return got.status();
  if (*got == nullptr) return Lost("an answer is missing");
  Rows rows(*got);
  const ExecStatusType status = PQresultStatus(*got);
  absl::Status refusal;
  if (status == PGRES_PIPELINE_ABORTED) {
    refusal = absl::AbortedError("the database: an earlier statement failed");
  } else if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
    refusal = Refusal(*got);
    if (broken_) return refusal;
  }
  const absl::StatusOr<pg_result*> end = Next(deadline);
  if (!end.ok()) return end.status();
  PQclear(*end);
  if (!refusal.ok()) return refusal;
  return rows;
}

absl::StatusOr<Rows> Connection::Query(std::string_view sql, absl::Span<const Value> values) {
  const Statement statement{sql, std::vector<Value>(values.begin(), values.end())};
  absl::StatusOr<std::vector<Rows>> all = Pipeline({&statement, 1}, false);
  if (!all.ok()) return all.status();
  return std::move(all->front());
}

absl::StatusOr<std::vector<Rows>> Connection::QueryAll(absl::Span<const Statement> statements) {
  return Pipeline(statements, false);
}

absl::StatusOr<std::vector<Rows>> Connection::Transact(absl::Span<const Statement> statements) {
  return Pipeline(statements, true);
}

// Sends everything, then reads everything: with `commits` as one transaction, otherwise each statement up to a Sync of
// its own.
absl::StatusOr<std::vector<Rows>> Connection::Pipeline(absl::Span<const Statement> statements, bool commits) {
  in_doubt_ = false;
  sqlstate_.clear();
  if (broken_) return absl::UnavailableError("the database: the connection is lost");
  std::vector<Statement> framed;
  if (commits) {
    framed.push_back({"BEGIN", {}});
    framed.insert(framed.end(), statements.begin(), statements.end());
    framed.push_back({"COMMIT", {}});
    statements = framed;
  }
  Flight flight{statements, commits, {}, 0, {}, absl::OkStatus()};
  if (absl::Status s = SendFlight(flight); !s.ok()) {
    committing_since_.store(0, std::memory_order_release);
    return s;
  }
  for (size_t i = 0; i < statements.size(); ++i) {
    const absl::Status lost = TakeAnswer(flight, i);
    if (lost.ok()) continue;
    committing_since_.store(0, std::memory_order_release);
    if (flight.refused.ok()) return lost;
    in_doubt_ = false;  // a statement had failed before: the transaction cannot have been committed
    return flight.refused;
  }
  committing_since_.store(0, std::memory_order_release);
  if (PQexitPipelineMode(conn_) != 1) return Lost("answers are left");
  return Landed(flight);
}

absl::Status Connection::SendFlight(Flight& flight) {
  // From here on a loss leaves a commit in doubt: libpq sends what it holds when that is much, and a COMMIT whose Sync
  // never came is executed all the same. And libpq may hand over a notice before the answer that it came with, so one
  // that comes at any time counts.
  in_doubt_ = flight.commits;
  noticed_ = false;
  // The server sends nothing before it has come to the end of the flight, so every answer waits for the commit. Its own
  // time-out bounds the statements before that.
  if (flight.commits) committing_since_.store(BootNow(), std::memory_order_release);
  if (PQenterPipelineMode(conn_) != 1) return Lost("cannot send");
  for (size_t i = 0; i < flight.statements.size(); ++i) {
    bool fresh = false;
    const Statement& statement = flight.statements[i];
    if (absl::Status s = Send(statement.sql, statement.values, fresh); !s.ok()) return s;
    flight.prepared.push_back(fresh);
    if (flight.commits && i + 1 < flight.statements.size()) continue;
    if (PQpipelineSync(conn_) != 1) return Lost("cannot send");
  }
  flight.deadline = Deadline();
  return Flush(flight.deadline);
}

// A failure is the connection's. What the server refused is noted in the flight.
absl::Status Connection::TakeAnswer(Flight& flight, size_t at) {
  const bool last = at + 1 == flight.statements.size();
  const BootNanos until = flight.commits && flight.refused.ok() ? kForEver : flight.deadline;
  for (int part = flight.prepared[at] ? 0 : 1; part < 2; ++part) {
    absl::StatusOr<Rows> rows = One(until);
    if (rows.ok()) {
      if (part == 1) flight.answers.push_back(*std::move(rows));
      continue;
    }
    if (broken_) return rows.status();
    if (part == 0) names_.erase(std::string(flight.statements[at].sql));
    if (flight.refused.ok()) flight.refused = rows.status();
  }
  if (flight.commits && !last) return absl::OkStatus();
  const absl::StatusOr<pg_result*> sync = Next(until);
  if (!sync.ok()) return sync.status();
  PQclear(*sync);
  return absl::OkStatus();
}

// Everything was answered.
absl::StatusOr<std::vector<Rows>> Connection::Landed(Flight& flight) {
  if (!flight.refused.ok()) {
    in_doubt_ = false;
    // The transaction stays open, and refuses everything.
    if (flight.commits) Execute("ROLLBACK").IgnoreError();  // were it lost, IsBroken() says so
    return flight.refused;
  }
  if (!flight.commits) return std::move(flight.answers);
  if (flight.answers.back().tag() == "ROLLBACK") {
    in_doubt_ = false;
    return absl::AbortedError("the database: the transaction had failed");
  }
  if (noticed_) return Lost("a commit was remarked on, so it may not be on the standby");
  in_doubt_ = false;
  flight.answers.pop_back();
  flight.answers.erase(flight.answers.begin());
  return std::move(flight.answers);
}

absl::Status Connection::Commit() {
  sqlstate_.clear();
  noticed_ = false;
  in_doubt_ = true;
  committing_since_.store(BootNow(), std::memory_order_release);
  const absl::Status s = ExecuteUntil("COMMIT", kForEver);
  committing_since_.store(0, std::memory_order_release);
  if (!s.ok()) {
    in_doubt_ = broken_;
    return s;
  }
  if (noticed_) return Lost("a commit was remarked on, so it may not be on the standby");
  in_doubt_ = false;
  return absl::OkStatus();
}

absl::Status Connection::Execute(const std::string& sql) { return ExecuteUntil(sql, Deadline()); }

absl::Status Connection::ExecuteUntil(const std::string& sql, BootNanos deadline) {
  if (broken_) return absl::UnavailableError("the database: the connection is lost");
  if (PQsendQuery(conn_, sql.c_str()) != 1) return Lost("cannot send");
  if (absl::Status s = Flush(deadline); !s.ok()) return s;
  absl::Status first;
  for (;;) {
    const absl::StatusOr<pg_result*> got = Next(deadline);
    if (!got.ok()) return got.status();
    if (*got == nullptr) return first;
    const Rows rows(*got);
    const ExecStatusType status = PQresultStatus(*got);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY && first.ok()) {
      first = Refusal(*got);
    }
    if (broken_) return first;
  }
}

}  // namespace userintent::postgres
