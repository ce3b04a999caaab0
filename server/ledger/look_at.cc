#include "server/ledger/look_at.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"
#include "server/ledger/files.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/sqlite_connection.h"
#include "server/ledger/sqlite_schema.h"

namespace userintent::ledger {
namespace {

// Without the path, which whoever asks has given: it may be a secret in the wrong place.
absl::Status Refuse(const std::string& why) { return absl::FailedPreconditionError(why); }

std::string Reason() { return ErrnoText(); }

// The directory, or the nearest one above it that is there: what is missing would be made in it.
absl::Status LookAtDirectory(std::filesystem::path directory) {
  struct stat info {};
  bool whole = true;
  while (::stat(directory.c_str(), &info) != 0) {
    if (errno != ENOENT) return Refuse(absl::StrCat("cannot look at its directory: ", Reason()));
    const std::filesystem::path above = directory.has_parent_path() ? directory.parent_path() : ".";
    if (above == directory) return Refuse("its directory is not there and cannot be made");
    directory = above;
    whole = false;
  }
  if (!S_ISDIR(info.st_mode)) return Refuse("its directory is not a directory");
  if (::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    return Refuse(absl::StrCat(whole ? "cannot write its directory: " : "cannot make its directory: ", Reason()));
  }
  return whole ? CheckDirectoryRights(directory.string(), false) : absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> Query(sqlite3* db, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  std::vector<int64_t> values;
  int code = sqlite3_prepare_v2(db, sql, -1, &statement, nullptr);
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) values.push_back(sqlite3_column_int64(statement, 0));
  }
  sqlite3_finalize(statement);
  if (code == SQLITE_DONE) return values;
  return Refuse(absl::StrCat("cannot read it: ", sqlite3_errstr(code)));
}

absl::Status CheckKnown(sqlite3* db, const char* sql, const std::vector<uint64_t>& keys, const char* otherwise) {
  const auto used = Query(db, sql);
  if (!used.ok()) return used.status();
  const bool all = std::all_of(used->begin(), used->end(), [&keys](int64_t key) {
    return std::find(keys.begin(), keys.end(), std::bit_cast<uint64_t>(key)) != keys.end();
  });
  return all ? absl::OkStatus() : Refuse(otherwise);
}

absl::Status CheckEnvironment(sqlite3* db, int64_t version, const std::string& environment) {
  if (environment.empty() || version < 8) return absl::OkStatus();
  sqlite3_stmt* statement = nullptr;
  absl::Status status;
  if (sqlite3_prepare_v2(db, "SELECT name FROM environment", -1, &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW) {
    const auto* const text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    const std::string name = text == nullptr ? "" : text;
    if (name != environment) status = Refuse(OfAnotherEnvironment(name));
  }
  sqlite3_finalize(statement);
  return status;
}

absl::Status AskDatabase(sqlite3* db, const std::vector<uint64_t>& keys, const std::string& environment) {
  const auto version = Query(db, "PRAGMA user_version");
  if (!version.ok()) return version.status();
  if (version->at(0) > SchemaVersion()) return Refuse("was written by a newer version");
  const auto application = Query(db, "PRAGMA application_id");
  if (!application.ok()) return application.status();
  if (application->at(0) == kMovedApplicationId) return Refuse("was copied into a database, and is served there");
  const auto tables = Query(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger_key'");
  if (!tables.ok()) return tables.status();
  if (tables->at(0) == 0) return absl::OkStatus();  // its making was cut short before it held anything
  if (absl::Status s = CheckEnvironment(db, version->at(0), environment); !s.ok()) return s;
  if (absl::Status s = CheckKnown(db, "SELECT key_id FROM ledger_key WHERE retired_at IS NULL", keys,
                                  "was made with another key; with this one it would know nobody");
      !s.ok()) {
    return s;
  }
  return CheckKnown(db,
                    "SELECT key_id FROM ledger_key WHERE EXISTS "
                    "(SELECT 1 FROM request WHERE request.key_id = ledger_key.key_id)",
                    keys, "still holds rows under an older key; give it as a previous key");
}

// The caller holds the lock, or there is none to hold.
absl::Status LookInside(const std::string& path, const std::vector<uint64_t>& keys, const std::string& environment) {
  sqlite3* db = nullptr;
  absl::Cleanup close = [&] { sqlite3_close(db); };
  // A log that a crash left can only be read by a writer, who then must not copy it at the end. Without a log nobody
  // writes: a writer would make an empty one.
  const bool has_log = HoldsBytes(path + "-wal");
  const int flags = (has_log ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY | SQLITE_OPEN_URI) | SQLITE_OPEN_NOMUTEX |
                    SQLITE_OPEN_EXRESCODE;
  const std::string name = has_log ? path : ImmutableUri(path);
  if (sqlite3_open_v2(name.c_str(), &db, flags, nullptr) != SQLITE_OK) return Refuse("cannot be opened as a database");
  sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  // Before the log is first used: its index then needs no file.
  sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON", nullptr, nullptr, nullptr);
  return AskDatabase(db, keys, environment);
}

}  // namespace

absl::Status LookAt(const std::string& path, const std::vector<uint64_t>& keys, const std::string& environment) {
  const std::filesystem::path file(path);
  if (absl::Status s = LookAtDirectory(file.has_parent_path() ? file.parent_path() : "."); !s.ok()) return s;
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (::lstat(path.c_str(), &info) == 0) return Refuse("is a symbolic link to a file that is not there");
    return absl::OkStatus();  // it will be made
  }
  if (absl::Status s = LookAtDirectory(DataDirectory(path)); !s.ok()) return s;
  const int lock = ::open((path + ".lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  const int error = errno;
  absl::Cleanup close = [lock] {
    if (lock >= 0) ::close(lock);
  };
  if (lock < 0 && error != ENOENT) return Refuse("cannot open its lock file");
  if (lock >= 0 && ::flock(lock, LOCK_EX | LOCK_NB) != 0) return absl::OkStatus();  // a server is at work on it
  if (absl::Status s = CheckIsLedger(path); !s.ok()) return s;
  if (::faccessat(AT_FDCWD, path.c_str(), R_OK | W_OK, AT_EACCESS) != 0) {
    return Refuse(absl::StrCat("cannot write it: ", Reason()));
  }
  if (info.st_size == 0) return absl::OkStatus();
  std::error_code none;  // a link's log lies beside what it leads to
  const std::filesystem::path real = std::filesystem::canonical(file, none);
  return LookInside(none ? path : real.string(), keys, environment);
}

}  // namespace userintent::ledger
