#include "server/postgres/connection.h"

#include <arpa/inet.h>
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "server/base/time.h"

namespace userintent::postgres {
namespace {

// Types of PostgreSQL by their fixed numbers.
constexpr Oid kBool = 16, kBytea = 17, kInt8 = 20, kText = 25, kUuid = 2950;
constexpr Oid kByteaArray = 1001, kTextArray = 1009, kInt8Array = 1016, kUuidArray = 2951;

constexpr BootNanos kForEver = std::numeric_limits<BootNanos>::max();

void AppendInt32(std::string& out, uint32_t value) {
  const uint32_t wire = htonl(value);
  out.append(reinterpret_cast<const char*>(&wire), sizeof wire);
}

void AppendInt64(std::string& out, int64_t value) {
  const auto bits = static_cast<uint64_t>(value);
  AppendInt32(out, static_cast<uint32_t>(bits >> 32));
  AppendInt32(out, static_cast<uint32_t>(bits));
}

std::string Wire(int64_t value) {
  std::string out;
  AppendInt64(out, value);
  return out;
}

template <size_t N>
std::string_view View(const std::array<uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

constexpr char kPathOfSchema[] = "SET search_path TO userintent, pg_catalog; ";

}  // namespace

// ---- values ----

// The binary form of an array of one dimension.
class ArrayWriter {
 public:
  ArrayWriter(Value& value, Oid element, size_t size) : out_(value.bytes_) {
    out_.reserve(20 + size * 20);
    AppendInt32(out_, size == 0 ? 0 : 1);
    AppendInt32(out_, 1);  // NULLs are possible
    AppendInt32(out_, element);
    if (size == 0) return;
    AppendInt32(out_, static_cast<uint32_t>(size));
    AppendInt32(out_, 1);
  }
  void Add(std::string_view bytes) {
    AppendInt32(out_, static_cast<uint32_t>(bytes.size()));
    out_.append(bytes);
  }
  void Add(int64_t number) {
    AppendInt32(out_, sizeof number);
    AppendInt64(out_, number);
  }
  void AddNull() { AppendInt32(out_, std::numeric_limits<uint32_t>::max()); }

 private:
  std::string& out_;
};

Value::Value(bool value) : type_(kBool), bytes_(1, value ? '\1' : '\0') {}
Value::Value(int64_t value) : type_(kInt8), bytes_(Wire(value)) {}
Value::Value(std::string_view text) : type_(kText), bytes_(text) {}
Value::Value(const Uuid& id) : type_(kUuid), bytes_(View(id)) {}
Value::Value(const ledger::Digest& digest) : type_(kBytea), bytes_(View(digest)) {}
Value::Value(const std::vector<std::string>& texts) : type_(kTextArray) {
  ArrayWriter writer(*this, kText, texts.size());
  for (const std::string& text : texts) writer.Add(text);
}
Value::Value(const std::vector<int64_t>& numbers) : type_(kInt8Array) {
  ArrayWriter writer(*this, kInt8, numbers.size());
  for (const int64_t number : numbers) writer.Add(number);
}
Value::Value(const std::vector<Uuid>& ids) : type_(kUuidArray) {
  ArrayWriter writer(*this, kUuid, ids.size());
  for (const Uuid& id : ids) writer.Add(View(id));
}
Value::Value(const std::vector<ledger::Digest>& digests) : type_(kByteaArray) {
  ArrayWriter writer(*this, kBytea, digests.size());
  for (const ledger::Digest& digest : digests) writer.Add(View(digest));
}
Value::Value(const std::vector<std::optional<Uuid>>& ids) : type_(kUuidArray) {
  ArrayWriter writer(*this, kUuid, ids.size());
  for (const std::optional<Uuid>& id : ids) id ? writer.Add(View(*id)) : writer.AddNull();
}
Value::Value(const std::vector<std::optional<int64_t>>& numbers) : type_(kInt8Array) {
  ArrayWriter writer(*this, kInt8, numbers.size());
  for (const std::optional<int64_t>& number : numbers) number ? writer.Add(*number) : writer.AddNull();
}
Value::Value(const std::vector<std::optional<std::string>>& texts) : type_(kTextArray) {
  ArrayWriter writer(*this, kText, texts.size());
  for (const std::optional<std::string>& text : texts) text ? writer.Add(*text) : writer.AddNull();
}

// ---- answers ----

void Rows::Deleter::operator()(pg_result* result) const { PQclear(result); }

int Rows::size() const { return PQntuples(result_.get()); }

bool Rows::IsNull(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }

std::string_view Rows::Bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column), static_cast<size_t>(PQgetlength(result_.get(), row, column))};
}

int64_t Rows::Number(int row, int column) const {
  const std::string_view bytes = Bytes(row, column);
  if (bytes.empty() || bytes.size() > 8) return 0;
  // Of 2, 4 or 8 bytes, with a sign; booleans have one byte.
  uint64_t bits = bytes.size() > 1 && (static_cast<uint8_t>(bytes[0]) & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (const char byte : bytes) bits = bits << 8 | static_cast<uint8_t>(byte);
  return static_cast<int64_t>(bits);
}

std::string Rows::Text(int row, int column) const { return std::string(Bytes(row, column)); }

Uuid Rows::Id(int row, int column) const {
  Uuid id{};
  const std::string_view bytes = Bytes(row, column);
  if (bytes.size() == id.size()) std::memcpy(id.data(), bytes.data(), id.size());
  return id;
}

std::optional<Uuid> Rows::OptionalId(int row, int column) const {
  if (IsNull(row, column)) return std::nullopt;
  return Id(row, column);
}

ledger::Digest Rows::DigestAt(int row, int column) const {
  ledger::Digest digest{};
  const std::string_view bytes = Bytes(row, column);
  if (bytes.size() == digest.size()) std::memcpy(digest.data(), bytes.data(), digest.size());
  return digest;
}

absl::Time Rows::Time(int row, int column) const {
  return IsNull(row, column) ? absl::InfinitePast() : absl::FromUnixMicros(Number(row, column));
}

std::string_view Rows::tag() const { return PQcmdStatus(result_.get()); }

int64_t Rows::touched() const {
  const char* const text = PQcmdTuples(result_.get());
  return std::strtoll(text, nullptr, 10);
}

// ---- the connection ----

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionOptions& options) {
  auto connection = std::unique_ptr<Connection>(new Connection(options));
  if (absl::Status s = connection->Connect(); !s.ok()) return s;
  if (absl::Status s = connection->SetUp(); !s.ok()) return s;
  return connection;
}

Connection::~Connection() { PQfinish(conn_); }

int Connection::socket() const { return PQsocket(conn_); }
int Connection::backend_pid() const { return PQbackendPID(conn_); }

absl::Status Connection::Connect() {
  const std::string timeout = std::to_string(std::max<int64_t>(2, absl::ToInt64Seconds(options_.connect_timeout)));
  const std::vector<std::pair<const char*, const char*>> all = {
      {"dbname", options_.url.c_str()},
      {"application_name", options_.application_name.c_str()},
      {"target_session_attrs", options_.read_write ? "read-write" : "any"},
      {"connect_timeout", timeout.c_str()},
      {"client_encoding", "UTF8"},
      {"keepalives", "1"},
      {"keepalives_idle", "5"},
      {"keepalives_interval", "2"},
      {"keepalives_count", "2"},
      {"tcp_user_timeout", "8000"},
  };
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : all) {
    keys.push_back(key);
    values.push_back(value);
  }
  keys.push_back(nullptr);
  values.push_back(nullptr);
  conn_ = PQconnectStartParams(keys.data(), values.data(), 1);
  if (conn_ == nullptr) return Lost("no memory for a connection");
  PQsetNoticeReceiver(conn_, &Connection::OnNotice, this);
  // Each of several hosts has the time.
  const BootNanos deadline = BootNow() + 4 * absl::ToInt64Nanoseconds(options_.connect_timeout);
  if (PQstatus(conn_) == CONNECTION_BAD) return Lost("cannot connect");
  for (PostgresPollingStatusType next = PGRES_POLLING_WRITING; next != PGRES_POLLING_OK; next = PQconnectPoll(conn_)) {
    if (next == PGRES_POLLING_FAILED) return Lost("cannot connect");
    if (absl::Status s = Wait(next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline); !s.ok()) return s;
  }
  if (PQsetnonblocking(conn_, 1) != 0) return Lost("cannot connect");
  return absl::OkStatus();
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
    int timeout = -1;
    if (deadline != kForEver) {
      const BootNanos left = deadline - BootNow();
      if (left <= 0) return Lost("no answer in time");
      timeout = static_cast<int>(std::min<BootNanos>(left / 1'000'000 + 1, 60'000));
    }
    const int ready = poll(&fd, 1, timeout);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return Lost("its socket cannot be waited for");
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
  // Shut down, out of connections, lost; a server that has become a standby.
  if (sqlstate_.starts_with("08") || sqlstate_.starts_with("57P") || sqlstate_.starts_with("53") ||
      sqlstate_ == "25006" || sqlstate_ == "25P03") {
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
  if (PQenterPipelineMode(conn_) != 1) return Lost("cannot send");
  std::vector<bool> prepared(statements.size());
  for (size_t i = 0; i < statements.size(); ++i) {
    bool fresh = false;
    if (absl::Status s = Send(statements[i].sql, statements[i].values, fresh); !s.ok()) return s;
    prepared[i] = fresh;
    if (!commits || i + 1 == statements.size()) {
      if (PQpipelineSync(conn_) != 1) return Lost("cannot send");
    }
  }
  // From here on a loss leaves a commit in doubt: how much of it left is not known.
  in_doubt_ = commits;
  noticed_ = false;
  const BootNanos deadline = Deadline();
  if (absl::Status s = Flush(deadline); !s.ok()) return s;
  std::vector<Rows> answers;
  absl::Status first;  // that went wrong
  for (size_t i = 0; i < statements.size(); ++i) {
    const bool is_commit = commits && i + 1 == statements.size();
    if (is_commit) {
      noticed_ = false;
      committing_since_.store(BootNow(), std::memory_order_release);
    }
    absl::StatusOr<Rows> rows = absl::UnknownError("");
    for (int part = prepared[i] ? 0 : 1; part < 2; ++part) {
      rows = One(is_commit && first.ok() ? kForEver : deadline);
      if (!rows.ok() && broken_) {
        committing_since_.store(0, std::memory_order_release);
        if (first.ok()) return rows.status();
        in_doubt_ = false;  // a statement had failed before: the transaction cannot have been committed
        return first;
      }
      if (!rows.ok() && prepared[i] && part == 0) names_.erase(std::string(statements[i].sql));
      if (!rows.ok() && first.ok()) first = rows.status();
    }
    if (rows.ok()) answers.push_back(*std::move(rows));
    if (!commits || i + 1 == statements.size()) {
      const absl::StatusOr<pg_result*> sync = Next(is_commit && first.ok() ? kForEver : deadline);
      committing_since_.store(0, std::memory_order_release);
      if (!sync.ok()) return sync.status();
      PQclear(*sync);
    }
  }
  if (PQexitPipelineMode(conn_) != 1) return Lost("answers are left");
  if (!first.ok()) {
    in_doubt_ = false;
    if (commits) {
      if (absl::Status s = Execute("ROLLBACK"); !s.ok() && broken_) return first;
    }
    return first;
  }
  if (!commits) {
    in_doubt_ = false;
    return answers;
  }
  if (answers.back().tag() == "ROLLBACK") {
    in_doubt_ = false;
    return absl::AbortedError("the database: the transaction had failed");
  }
  if (noticed_) return Lost("a commit was remarked on, so it may not be on the standby");
  in_doubt_ = false;
  answers.pop_back();
  answers.erase(answers.begin());
  return answers;
}

absl::Status Connection::Commit() {
  sqlstate_.clear();
  noticed_ = false;
  in_doubt_ = true;
  const absl::Status s = Execute("COMMIT");
  if (!s.ok()) {
    in_doubt_ = broken_;
    return s;
  }
  if (noticed_) return Lost("a commit was remarked on, so it may not be on the standby");
  in_doubt_ = false;
  return absl::OkStatus();
}

absl::Status Connection::Execute(const std::string& sql) {
  if (broken_) return absl::UnavailableError("the database: the connection is lost");
  const BootNanos deadline = Deadline();
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
