// Internal to SqliteStore: how its two source files run statements and read columns. Single-threaded like the store.
#pragma once

#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/sqlite_store.h"

// What Decode reads.
#define REQUEST_COLUMNS                                                                               \
  "r.caller, r.request_id, r.state, r.sent, r.reason, r.http_status, r.confirmed, r.user_intent_id, " \
  "r.astra_status, r.astra_request_id, r.answered_at, r.attempt_id, r.attempts, r.supersedes, "       \
  "r.superseded_by, r.created_at, r.updated_at, r.key_id, r.content, r.person, e.digest, r.id, "      \
  "r.verification_type, r.read_at, r.latest_status, r.latest_user_id, r.latest_type, r.status_since " \
  "FROM request r JOIN email e ON e.id = r.email "

namespace userintent::ledger {

inline int64_t Micros(absl::Time time) { return absl::ToUnixMicros(time); }

// A column that must be a blob of exactly this size.
template <size_t N>
bool Bytes(sqlite3_stmt* statement, int column, std::array<uint8_t, N>& out) {
  const void* data = sqlite3_column_blob(statement, column);
  if (data == nullptr || sqlite3_column_bytes(statement, column) != static_cast<int>(N)) return false;
  std::memcpy(out.data(), data, N);
  return true;
}

inline bool OptionalId(sqlite3_stmt* statement, int column, std::optional<Uuid>& out) {
  if (sqlite3_column_type(statement, column) == SQLITE_NULL) return true;
  return Bytes(statement, column, out.emplace());
}

inline std::string Text(sqlite3_stmt* statement, int column) {
  const void* data = sqlite3_column_blob(statement, column);
  const int size = sqlite3_column_bytes(statement, column);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

// One use of a statement, kept or made for it: bind, step, and reset or drop it at the end, whatever happened.
class SqliteStore::Use {
 public:
  Use(const SqliteStore& store, StatementName name)
      : store_(store), statement_(store.statements_[static_cast<size_t>(name)]), kept_(true) {}
  Use(const SqliteStore& store, const char* sql) : store_(store), kept_(false) {
    bound_ = sqlite3_prepare_v2(store.db_, sql, -1, &statement_, nullptr);
  }
  ~Use() {
    if (!kept_) {
      sqlite3_finalize(statement_);
      return;
    }
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  // What is bound must live until the last Step.
  Use& Bind(int at, int64_t value) { return Keep(sqlite3_bind_int64(statement_, at, value)); }
  Use& Bind(int at, const std::string& text) {
    return Keep(sqlite3_bind_text64(statement_, at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8));
  }
  template <size_t N>
  Use& Bind(int at, const std::array<uint8_t, N>& bytes) {
    return Keep(sqlite3_bind_blob64(statement_, at, bytes.data(), N, SQLITE_STATIC));
  }
  Use& Bind(int at, const std::optional<Uuid>& id) { return id ? Bind(at, *id) : *this; }

  // True: there is a row.
  absl::StatusOr<bool> Step() {
    if (bound_ != SQLITE_OK) return store_.Error("prepare a statement");
    const int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code == SQLITE_DONE) return false;
    return store_.Error("run a statement");
  }
  absl::Status Run() { return Step().status(); }
  sqlite3_stmt* statement() const { return statement_; }
  int64_t Number(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  Use& Keep(int code) {
    if (bound_ == SQLITE_OK) bound_ = code;
    return *this;
  }
  const SqliteStore& store_;
  sqlite3_stmt* statement_ = nullptr;
  const bool kept_;
  int bound_ = SQLITE_OK;
};

}  // namespace userintent::ledger
