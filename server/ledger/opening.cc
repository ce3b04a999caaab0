#include "server/ledger/opening.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"
#include "server/ledger/files.h"
#include "server/ledger/refuse.h"

namespace userintent::ledger {
namespace {

// Under another name first: whenever this process ends, the path holds a whole ledger or none.
absl::Status MakeLedger(const SqliteStoreOptions& options, const LedgerFile& file) {
  SqliteStoreOptions fresh = options;
  fresh.path = options.path + ".new";
  fresh.crash_point = nullptr;
  for (const char* end : {"", "-wal", "-journal"}) ::unlink((fresh.path + end).c_str());
  const int fd = ::open(fresh.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0 || ::fchmod(fd, 0600) != 0) {
    const std::string why = absl::StrCat("cannot make it: ", ErrnoText());
    if (fd >= 0) ::close(fd);
    return RefuseLedger(options.path, why);
  }
  ::close(fd);
  {
    absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(fresh);
    if (!store.ok()) return store.status();
  }
  // Closing copies the log; what is left of one would be a second part of the ledger.
  if (HoldsBytes(fresh.path + "-wal")) return RefuseLedger(options.path, "cannot make it whole; is the disk full?");
  if (::rename(fresh.path.c_str(), options.path.c_str()) != 0) {
    return RefuseLedger(options.path, absl::StrCat("cannot make it: ", ErrnoText()));
  }
  return file.SyncDirectory();
}

absl::Status MayBeNew(const OpeningOptions& options, const absl::StatusOr<std::optional<Mark>>& mark) {
  const std::string& path = options.store.path;
  if (options.must_exist) return RefuseLedger(path, "does not exist, and --ledger_must_exist says that it must");
  if (HoldsBytes(RestoringPath(path))) {
    return RefuseLedger(path, "does not exist, because a restore was cut off; run userintent-ledger restore again");
  }
  const Standing none;
  if (Compare(none, mark) != Comparison::kOther) return absl::OkStatus();
  return Acknowledges(options.restored, path, none, **mark, options.store.now());
}

// A log that lies beside an older copy than it was written for would be played into that copy, page by page. Whether
// the copy is whole without it is not for this process to guess.
absl::Status CheckLog(const std::string& path, const std::optional<Standing>& without_log,
                      const std::optional<Mark>& mark) {
  if (!without_log || !mark) return absl::OkStatus();
  const bool same = without_log->made_at == mark->made_at;
  if (without_log->revision >= (same ? mark->in_file : mark->revision)) return absl::OkStatus();
  return RefuseLedger(
      path,
      "the log beside it (-wal) was written for a newer ledger than this copy; put the newest ledger back, "
      "or a backup by userintent-ledger restore, which sets the log aside");
}

absl::Status RecordRestored(SqliteStore& store, const OpeningOptions& options, int64_t served_until) {
  Restored record;
  record.backup_of = absl::ToUnixMicros(*options.restored);
  record.served_until = served_until;
  record.acknowledged_at = absl::ToUnixMicros(options.store.now());
  absl::Status s = store.Start();
  if (s.ok()) s = store.AddRestored(record);
  // Beyond what was served, so that the next start finds nothing older.
  if (s.ok()) s = store.Advance(served_until);
  if (s.ok()) s = store.Commit();
  if (!s.ok()) {
    store.Rollback();
    return s;
  }
  // Into the database file, so that its log is never taken for another ledger's.
  return store.Checkpoint();
}

// A ledger without a mark came from elsewhere: a copy moved here, or a backup. Only the operator knows which.
bool SaysThatItIsABackup(const OpeningOptions& options, const Standing& standing) {
  if (!options.restored) return false;
  const int64_t time = absl::ToUnixMicros(*options.restored);
  return time >= standing.revision / 1'000'000 * 1'000'000 && time <= absl::ToUnixMicros(options.store.now());
}

// A flag counts for the loss at whose start it was first given, and a start that lost nothing uses it up as well: else
// it would wait there for a restore that nobody has thought of yet. So it is, too, where the process that took it died
// before it could say so in the mark.
int64_t Spent(const OpeningOptions& options, int64_t before) {
  return options.restored ? absl::ToUnixMicros(*options.restored) : before;
}

// Another ledger in this directory whose own record says that it stands for the one in the mark: it was acknowledged by
// a process that died before it wrote the mark.
absl::StatusOr<bool> IsRecorded(SqliteStore& store, const Mark& mark) {
  if (store.revision() <= mark.revision) return false;
  const absl::StatusOr<std::optional<Restored>> last = store.LastRestored();
  if (!last.ok()) return last.status();
  return *last && (*last)->served_until == mark.revision;
}

absl::Status CompareWithMark(const OpeningOptions& options, const absl::StatusOr<std::optional<Mark>>& mark,
                             OpenedFiles& opened) {
  SqliteStore& store = *opened.store;
  const std::string& path = options.store.path;
  Standing standing{store.made_at(), store.revision(), 0};
  switch (Compare(standing, mark)) {
    case Comparison::kServed:
      opened.acknowledged = Spent(options, *mark ? (*mark)->acknowledged : 0);
      return absl::OkStatus();
    case Comparison::kNoMark:
      options.warn(absl::StrCat("ledger ", path, ": there is no mark beside it (", MarkPath(path),
                                "), so nobody can tell whether it is the newest copy; it was last changed at ",
                                TimeText(standing.revision),
                                ". If it is a backup, what was sent since then would be sent again"));
      opened.acknowledged = Spent(options, 0);
      if (!SaysThatItIsABackup(options, standing)) return absl::OkStatus();
      return RecordRestored(store, options, standing.revision);
    case Comparison::kBadMark:
      options.warn(absl::StrCat("ledger ", path, ": its mark cannot be used (", std::string(mark.status().message()),
                                "), so nobody can tell whether it is the newest copy; a new mark is made"));
      opened.acknowledged = Spent(options, 0);
      return absl::OkStatus();
    case Comparison::kOlder:
    case Comparison::kOther:
      break;
  }
  if (options.only_read) return absl::OkStatus();
  const absl::StatusOr<bool> recorded = IsRecorded(store, **mark);
  if (!recorded.ok()) return recorded.status();
  if (*recorded) {
    opened.acknowledged = Spent(options, (*mark)->acknowledged);
    return absl::OkStatus();
  }
  const absl::StatusOr<int64_t> last_change = store.NewestRevision();
  if (!last_change.ok()) return last_change.status();
  standing.last_change = *last_change;
  if (opened.made || store.rows() == 0) standing = {};
  if (absl::Status s = Acknowledges(options.restored, path, standing, **mark, options.store.now()); !s.ok()) return s;
  opened.acknowledged = absl::ToUnixMicros(*options.restored);
  return RecordRestored(store, options, (*mark)->revision);
}

}  // namespace

std::string RestoringPath(const std::string& ledger) { return ledger + ".restoring"; }

std::optional<Standing> LookWithoutLog(const std::string& path, const char* vfs) {
  sqlite3* db = nullptr;
  sqlite3_stmt* statement = nullptr;
  std::optional<Standing> standing;
  if (sqlite3_open_v2(ImmutableUri(path).c_str(), &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                      vfs) == SQLITE_OK &&
      sqlite3_prepare_v2(db, "SELECT m.applied_at, p.revision FROM migration m, probe p WHERE m.version = 1", -1,
                         &statement, nullptr) == SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW) {
    standing = Standing{sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1), 0};
  }
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return standing;
}

absl::StatusOr<OpenedFiles> OpenFiles(const OpeningOptions& options) {
  const std::string& path = options.store.path;
  OpenedFiles opened;
  absl::StatusOr<std::unique_ptr<LedgerFile>> file = LedgerFile::Open(path, options.store.for_operator);
  if (!file.ok()) return file.status();
  opened.file = *std::move(file);
  const absl::StatusOr<std::optional<Mark>> mark = ReadMark(path);
  opened.made = !opened.file->exists();
  if (opened.made) {
    if (options.store.for_operator) return absl::NotFoundError(absl::StrCat("there is no ledger at ", path));
    if (absl::Status s = MayBeNew(options, mark); !s.ok()) return s;
    if (absl::Status s = MakeLedger(options.store, *opened.file); !s.ok()) return s;
  }
  const bool has_log = HoldsBytes(opened.file->log_path());
  std::optional<Standing> without_log;
  if (has_log) without_log = LookWithoutLog(path, options.store.vfs);
  const int64_t in_file = without_log ? without_log->revision : 0;
  if (mark.ok()) {
    if (absl::Status s = CheckLog(path, without_log, *mark); !s.ok()) return s;
  }
  if (!opened.made && !options.store.as_it_is && !options.store.inspect) {
    if (absl::Status s = KeepCopy(options); !s.ok()) return s;
  }

  absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(options.store);
  if (!store.ok()) return store.status();
  opened.store = *std::move(store);
  if (absl::Status s = opened.file->Watch(); !s.ok()) return s;
  opened.store->set_in_file(has_log ? in_file : opened.store->revision());
  if (absl::Status s = CompareWithMark(options, mark, opened); !s.ok()) return s;
  if (options.store.as_it_is) return opened;  // an older schema may know of no restores
  absl::StatusOr<std::optional<Restored>> restored = opened.store->LastRestored();
  if (!restored.ok()) return restored.status();
  opened.restored = *restored;
  return opened;
}

}  // namespace userintent::ledger
