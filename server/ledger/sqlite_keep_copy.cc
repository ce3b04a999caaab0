// Why a copy is kept before schema 9: opening.h.
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/ledger/backup.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_schema.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {
namespace {

absl::Status RefuseMigration(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(
      absl::StrCat("ledger ", path, ": cannot be brought up to date: ", why, "; nothing was changed"));
}

// Versions before that one cannot read what it makes of a ledger, and all rows are written anew.
constexpr int kOneWay = 9;

// The schema that the database file has without its log; the log can only be ahead. 0 where it cannot be told.
int64_t SchemaWithoutLog(const SqliteStoreOptions& options) {
  SqliteConnection connection(options.path);
  const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;
  if (!connection.Open(ImmutableUri(options.path), flags, options.vfs).ok()) return 0;
  return connection.Number("PRAGMA user_version").value_or(0);
}

// As a store's made_at() and NewestRevision(), of a file that nobody has open. Nothing: it is no ledger.
std::optional<Standing> StandingOf(const std::string& path) {
  std::optional<Standing> standing = LookWithoutLog(path);
  if (standing && standing->revision != 0) return standing;
  SqliteConnection connection(path);
  const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;
  if (!connection.Open(ImmutableUri(path), flags, nullptr).ok()) return std::nullopt;
  const absl::StatusOr<std::pair<int64_t, int64_t>> found = connection.Numbers(
      "SELECT applied_at, max(applied_at, (SELECT coalesce(max(updated_at), 0) FROM request)) "
      "FROM migration WHERE version = 1");
  if (!found.ok() || found->first == 0) return std::nullopt;
  return Standing{found->first, found->second, 0};
}

// Where a copy may go: what is there already is kept, but for one of the same revision, of a start that was cut off.
std::string FreePath(const std::string& ledger, const Standing& standing) {
  const std::string first = CopyBeforeMigrationPath(ledger);
  std::string path = first;
  for (int number = 2; ::access(path.c_str(), F_OK) == 0; ++number) {
    const std::optional<Standing> there = StandingOf(path);
    if (!there || (there->made_at == standing.made_at && there->revision == standing.revision)) {
      ::unlink(path.c_str());
      break;
    }
    path = absl::StrCat(first, ".", number);
  }
  return path;
}

// What a start that was cut off has left of a copy: each is as large as the ledger, and a server that is started again
// and again would fill the disk. The lock of the ledger's place says that nobody is at one now.
void RemoveUnfinished(const std::string& ledger) {
  const std::filesystem::path first = CopyBeforeMigrationPath(ledger);
  const std::string start = first.filename().string();
  std::vector<std::filesystem::path> unfinished;
  std::error_code error;
  for (std::filesystem::directory_iterator at(first.has_parent_path() ? first.parent_path() : ".", error), end;
       !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with(start) && absl::StrContains(name, ".partial-")) unfinished.push_back(at->path());
  }
  for (const std::filesystem::path& path : unfinished) ::unlink(path.c_str());
}

}  // namespace

std::string CopyBeforeMigrationPath(const std::string& ledger) { return ledger + ".before-schema-9"; }

absl::Status KeepCopy(const OpeningOptions& options) {
  if (SchemaWithoutLog(options.store) >= kOneWay) return absl::OkStatus();
  const std::string& path = options.store.path;
  SqliteStoreOptions as_it_is = options.store;
  as_it_is.for_operator = as_it_is.as_it_is = true;
  const absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(as_it_is);
  if (!store.ok()) return store.status();
  const int version = (*store)->schema_version();
  // One that never had a request has no caller; attempts outlive requests that were forgotten.
  if (version >= kOneWay || (version >= 2 && (*store)->callers() == 0)) return absl::OkStatus();
  const auto reach = [&options](const char* point) {
    if (options.store.crash_point != nullptr) options.store.crash_point(point);
  };
  const absl::StatusOr<int64_t> revision = (*store)->NewestRevision();
  if (!revision.ok()) return revision.status();
  RemoveUnfinished(path);
  BackupOptions backup;
  backup.path = FreePath(path, {(*store)->made_at(), *revision, 0});
  reach("migration-begun");
  const auto here = [&store](absl::FunctionRef<absl::Status(SqliteStore&)> work) { return work(**store); };
  const absl::StatusOr<BackupReport> kept = BackUp(here, backup);
  if (!kept.ok()) {
    return RefuseMigration(path, absl::StrCat("a copy must be kept, and ", std::string(kept.status().message())));
  }
  reach("migration-copied");
  // All rows and indexes once into the log, and from there into the file, beside the old ones.
  struct statvfs space {};
  const int64_t wanted = 2 * kept->copy.bytes;
  const bool known = ::statvfs(DataDirectory(path).c_str(), &space) == 0;
  const int64_t free = static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize);
  if (known && free < wanted) {
    return RefuseMigration(path,
                           absl::StrCat("the disk has ", free >> 20, " MiB free, and ", wanted >> 20, " MiB must be"));
  }
  options.warn(absl::StrCat("ledger ", path, ": is brought from schema ", version, " to schema ", SchemaVersion(),
                            ", which older versions cannot read; as it was it is kept as ", backup.path));
  return absl::OkStatus();
}

}  // namespace userintent::ledger
