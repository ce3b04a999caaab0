// ledger::SqliteConnection: one connection to a SQLite database, and how statements run on it.
//
// Single-threaded; it may move to another thread between two statements.
#pragma once

#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/uuid.h"

namespace userintent::ledger {

inline int64_t Micros(absl::Time time) { return absl::ToUnixMicros(time); }

class SqliteConnection {
 public:
  explicit SqliteConnection(std::string path) : path_(std::move(path)) {}
  ~SqliteConnection() { sqlite3_close(db_); }
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // `name` is what SQLite opens: the path, or a URI of it. Flags: SQLITE_OPEN_*.
  absl::Status Open(const std::string& name, int flags, const char* vfs);
  absl::Status Execute(const char* sql);
  // The first column of the first row, or the first two; 0 where there is none.
  absl::StatusOr<int64_t> Number(const char* sql, std::optional<int64_t> bound = std::nullopt);
  absl::StatusOr<std::pair<int64_t, int64_t>> Numbers(const char* sql, std::optional<int64_t> bound = std::nullopt);

  // The last call on this connection failed while `doing`. Without data of a row.
  absl::Status Error(const char* doing) const;
  absl::Status Damaged(const std::string& what) const;

  sqlite3* db() const { return db_; }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  sqlite3* db_ = nullptr;
};

// One use of a statement, kept or made for it: bind, step, and reset or drop it at the end, whatever happened.
class SqliteUse {
 public:
  SqliteUse(const SqliteConnection& connection, sqlite3_stmt* kept)
      : connection_(connection), statement_(kept), kept_(true) {}
  SqliteUse(const SqliteConnection& connection, const std::string& sql) : connection_(connection), kept_(false) {
    bound_ = sqlite3_prepare_v2(connection.db(), sql.c_str(), -1, &statement_, nullptr);
  }
  ~SqliteUse() {
    if (!kept_) {
      sqlite3_finalize(statement_);
      return;
    }
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  SqliteUse(const SqliteUse&) = delete;
  SqliteUse& operator=(const SqliteUse&) = delete;

  // What is bound must live until the last Step.
  SqliteUse& Bind(int at, int64_t value) { return Keep(sqlite3_bind_int64(statement_, at, value)); }
  SqliteUse& Bind(int at, const std::string& text) {
    return Keep(sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8));
  }
  template <size_t N>
  SqliteUse& Bind(int at, const std::array<uint8_t, N>& bytes) {
    return Keep(sqlite3_bind_blob64(statement_, at, bytes.data(), N, SQLITE_STATIC));
  }
  SqliteUse& Bind(int at, const std::optional<Uuid>& id) { return id ? Bind(at, *id) : *this; }

  // True: there is a row.
  absl::StatusOr<bool> Step() {
    if (bound_ != SQLITE_OK) return connection_.Error("prepare a statement");
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return connection_.Error("run a statement");
  }
  absl::Status Run() { return Step().status(); }

  bool IsNull(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  int64_t Number(int column) const { return sqlite3_column_int64(statement_, column); }
  int Int(int column) const { return sqlite3_column_int(statement_, column); }
  absl::Time Time(int column) const { return absl::FromUnixMicros(Number(column)); }
  std::string Text(int column) const {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
  }
  // Of a column that must be a blob of exactly this size; false: it is not.
  template <size_t N>
  bool Bytes(int column, std::array<uint8_t, N>& out) const {
    const void* data = sqlite3_column_blob(statement_, column);
    if (data == nullptr || sqlite3_column_bytes(statement_, column) != static_cast<int>(N)) return false;
    std::memcpy(out.data(), data, N);
    return true;
  }
  bool OptionalId(int column, std::optional<Uuid>& out) const { return IsNull(column) || Bytes(column, out.emplace()); }

 private:
  SqliteUse& Keep(int code) {
    if (bound_ == SQLITE_OK) bound_ = code;
    return *this;
  }
  const SqliteConnection& connection_;
  sqlite3_stmt* statement_ = nullptr;
  const bool kept_;
  int bound_ = SQLITE_OK;
};

// The file as SQLite reads it without a lock and without a look for its log. https://www.sqlite.org/uri.html
std::string ImmutableUri(const std::string& path);

}  // namespace userintent::ledger
