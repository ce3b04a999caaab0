#include "server/ledger/sqlite_connection.h"

#include "absl/strings/str_cat.h"
#include "server/base/text.h"

namespace userintent::ledger {
namespace {

// Without its account of memory, which nobody here reads, SQLite takes no lock for each piece that it allocates and
// frees: some 60 a call. Before main(), since it is refused once SQLite was used.
[[maybe_unused]] const int kNoMemoryStatus = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);

}  // namespace

absl::Status SqliteConnection::Open(const std::string& name, int flags, const char* vfs) {
  if (sqlite3_open_v2(name.c_str(), &db_, flags, vfs) != SQLITE_OK) return Error("open it");
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return absl::OkStatus();
}

absl::Status SqliteConnection::Error(const char* doing) const {
  // SQLite's words for its codes hold no data of a row; its longer messages may.
  const int code = sqlite3_extended_errcode(db_);
  const std::string text =
      absl::StrCat("ledger ", path_, ": cannot ", doing, ": ", sqlite3_errstr(code), " (SQLite ", code, ")");
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status SqliteConnection::Damaged(const std::string& what) const {
  return absl::DataLossError(absl::StrCat("ledger ", path_, ": is damaged (", what, "); restore it or ask for help"));
}

absl::Status SqliteConnection::Execute(const char* sql) {
  return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) == SQLITE_OK ? absl::OkStatus() : Error("run a statement");
}

absl::StatusOr<std::pair<int64_t, int64_t>> SqliteConnection::Numbers(const char* sql, std::optional<int64_t> bound) {
  SqliteUse use(*this, sql);
  if (bound) use.Bind(1, *bound);
  const absl::StatusOr<bool> found = use.Step();
  if (!found.ok()) return found.status();
  std::pair<int64_t, int64_t> numbers{};
  if (*found) numbers = {use.Number(0), use.Number(1)};
  return numbers;
}

absl::StatusOr<int64_t> SqliteConnection::Number(const char* sql, std::optional<int64_t> bound) {
  const absl::StatusOr<std::pair<int64_t, int64_t>> numbers = Numbers(sql, bound);
  if (!numbers.ok()) return numbers.status();
  return numbers->first;
}

std::string ImmutableUri(const std::string& path) {
  // "//a" would name a host; a relative path stays relative.
  return (path.starts_with("//") ? "file://" : "file:") + PercentEncoded(path, "/") + "?immutable=1";
}

}  // namespace userintent::ledger
