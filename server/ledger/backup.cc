#include "server/ledger/backup.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"
#include "server/base/uuid.h"
#include "server/ledger/files.h"

namespace userintent::ledger {
namespace {

// So many bytes are copied before they are sent to the disk: by us, and not by a commit of the ledger, whose sync would
// have to wait for them on some file systems.
constexpr int64_t kSyncEvery = 16 << 20;
constexpr int64_t kSlice = 10'000;

absl::Status RefuseBackup(const std::string& path, absl::StatusCode code, const std::string& why) {
  return absl::Status(code, absl::StrCat("backup ", path, ": ", why));
}

absl::Status RefuseBackupErrno(const std::string& path, const std::string& what) {
  const int error = errno;
  return RefuseBackup(
      path,
      error == ENOSPC || error == EDQUOT ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition,
      absl::StrCat("cannot ", what, ": ", ErrnoText(error)));
}

absl::Status Cancelled(const std::string& path) {
  return RefuseBackup(path, absl::StatusCode::kCancelled, "was given up; nothing is left of it");
}

// The file that the copy is until it is whole. Gone with this object, unless it got its name.
class Unfinished {
 public:
  static absl::StatusOr<std::unique_ptr<Unfinished>> Make(const std::string& path) {
    const std::string name = absl::StrCat(path, ".partial-", UuidText(RandomUuid()).substr(0, 8));
    const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return RefuseBackupErrno(path, "make a file there");
    auto file = std::unique_ptr<Unfinished>(new Unfinished(path, name, fd));
    if (::fchmod(fd, 0600) != 0) return RefuseBackupErrno(path, "make it private (mode 0600)");
    return file;
  }
  ~Unfinished() {
    ::close(fd_);
    if (!named_) ::unlink(name_.c_str());
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  const std::string& name() const { return name_; }

  // Is there room for so many bytes more?
  absl::Status CheckRoom(int64_t bytes) const {
    struct statvfs space {};
    if (::fstatvfs(fd_, &space) != 0) return absl::OkStatus();  // writing will tell
    const int64_t free = static_cast<int64_t>(space.f_bavail) * static_cast<int64_t>(space.f_frsize);
    if (free >= bytes) return absl::OkStatus();
    return RefuseBackup(path_, absl::StatusCode::kResourceExhausted,
                        absl::StrCat("the disk has ", free >> 20, " MiB free, and ", bytes >> 20, " MiB must be"));
  }
  absl::Status Sync() const { return ::fsync(fd_) == 0 ? absl::OkStatus() : RefuseBackupErrno(path_, "sync it"); }

  // Its name, for good; never over another file.
  absl::Status Name() {
    int result = ::renameat2(AT_FDCWD, name_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
    if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {  // a file system that cannot promise it
      result = ::link(name_.c_str(), path_.c_str());
      if (result == 0) ::unlink(name_.c_str());
    }
    if (result != 0) return RefuseBackupErrno(path_, "give it its name");
    named_ = true;
    const std::string directory = std::filesystem::path(path_).parent_path().string();
    const int holder = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = holder >= 0 && ::fsync(holder) == 0;
    absl::Status status = synced ? absl::OkStatus() : RefuseBackupErrno(path_, "sync its directory");
    if (holder >= 0) ::close(holder);
    return status;
  }

 private:
  Unfinished(std::string path, std::string name, int fd) : path_(std::move(path)), name_(std::move(name)), fd_(fd) {}

  const std::string path_;
  const std::string name_;
  const int fd_;
  bool named_ = false;
};

absl::Status CheckPlace(const std::string& path) {
  if (path.empty() || path.front() != '/') {
    return RefuseBackup(path, absl::StatusCode::kInvalidArgument, "the path must be absolute");
  }
  if (path.back() == '/' || path.size() > 4000) {
    return RefuseBackup(path, absl::StatusCode::kInvalidArgument, "the path must name a file");
  }
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    return RefuseBackup(path, absl::StatusCode::kAlreadyExists, "is there already; a backup never replaces a file");
  }
  if (errno != ENOENT) return RefuseBackupErrno(path, "look there");
  return absl::OkStatus();
}

}  // namespace

// SQLite's online backup. Made, used and destroyed on the thread of the store, which outlives it; not inside a
// transaction. What the store commits meanwhile is written into the copy too, as far as it was copied before.
class SqliteCopy {
 public:
  SqliteCopy(SqliteStore& store, std::string file, const std::string& path, const char* vfs)
      : store_(store), file_(std::move(file)), path_(path), vfs_(vfs) {}
  ~SqliteCopy() {
    sqlite3_backup_finish(backup_);
    sqlite3_close(to_);
  }
  SqliteCopy(const SqliteCopy&) = delete;
  SqliteCopy& operator=(const SqliteCopy&) = delete;

  absl::Status Begin() {
    // Nobody else knows the file, so it needs no locks, which a file system of a network may not have. A copy that is
    // not whole is thrown away, so it needs no journal, and its syncs are ours, not the writer's.
    int code = sqlite3_open_v2(file_.c_str(), &to_, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                               vfs_ != nullptr ? vfs_ : "unix-none");
    for (const char* pragma : {"PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA mmap_size = 0",
                               "PRAGMA cache_size = -2000"}) {
      if (code == SQLITE_OK) code = sqlite3_exec(to_, pragma, nullptr, nullptr, nullptr);
    }
    if (code != SQLITE_OK) return Error(code);
    backup_ = sqlite3_backup_init(to_, "main", store_.connection_.db(), "main");
    return backup_ != nullptr ? absl::OkStatus() : Error(sqlite3_extended_errcode(to_));
  }
  // True: that was the last page.
  absl::StatusOr<bool> Step(int pages) {
    const int code = sqlite3_backup_step(backup_, pages);
    if (code == SQLITE_DONE) return true;
    if (code == SQLITE_OK) return false;
    return Error(code);
  }
  absl::StatusOr<int64_t> Bytes() const {
    const absl::StatusOr<int64_t> pages = store_.connection_.Number("PRAGMA page_count");
    const absl::StatusOr<int64_t> size = store_.connection_.Number("PRAGMA page_size");
    if (!pages.ok() || !size.ok())
      return RefuseBackup(path_, absl::StatusCode::kUnavailable, "the ledger cannot be read");
    return *pages * *size;
  }

 private:
  absl::Status Error(int code) const {
    const bool full = (code & 0xff) == SQLITE_FULL;
    return RefuseBackup(path_, full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kUnavailable,
                        absl::StrCat("cannot copy the ledger: ", sqlite3_errstr(code), " (SQLite ", code, ")"));
  }

  SqliteStore& store_;
  const std::string file_;
  const std::string path_;
  const char* const vfs_;
  sqlite3* to_ = nullptr;
  sqlite3_backup* backup_ = nullptr;
};

namespace {

// Copies all pages into the file; what it holds is on the disk when this returns OK.
absl::Status CopyPages(Between between, const BackupOptions& options, const Unfinished& file, absl::Duration& longest) {
  std::unique_ptr<SqliteCopy> copy;
  int64_t bytes = 0;
  absl::Status status = between([&](SqliteStore& store) -> absl::Status {
    copy = std::make_unique<SqliteCopy>(store, file.name(), options.path, options.vfs);
    if (absl::Status s = copy->Begin(); !s.ok()) return s;
    const absl::StatusOr<int64_t> size = copy->Bytes();
    if (size.ok()) bytes = *size;
    return size.status();
  });
  if (status.ok()) status = file.CheckRoom(bytes + options.min_free_bytes);
  int64_t unsynced = 0;
  for (bool done = false; status.ok() && !done;) {
    if (options.cancelled()) {
      status = Cancelled(options.path);
      break;
    }
    status = between([&](SqliteStore&) -> absl::Status {
      const absl::Time from = absl::Now();
      const absl::StatusOr<bool> stepped = copy->Step(options.slice_pages);
      longest = std::max(longest, absl::Now() - from);
      done = stepped.ok() && *stepped;
      return stepped.status();
    });
    unsynced += options.slice_pages * int64_t{4096};
    if (!status.ok() || unsynced < kSyncEvery) continue;
    unsynced = 0;
    status = file.Sync();
    if (status.ok()) status = file.CheckRoom(options.min_free_bytes);
  }
  const absl::Status ended = between([&copy](SqliteStore&) {
    copy.reset();
    return absl::OkStatus();
  });
  if (status.ok()) status = ended;
  return status.ok() ? file.Sync() : status;
}

// On a thread that yields to everybody else: reading takes longer than copying, and nobody waits for it.
absl::StatusOr<CopyReport> CheckPatiently(const std::string& file, const BackupOptions& options) {
  absl::StatusOr<CopyReport> report = absl::InternalError("was not checked");
  std::thread checker([&] {
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), 19);
    report = CheckCopy(file, options.cancelled);
  });
  checker.join();
  if (report.ok()) return report;
  if (options.cancelled()) return Cancelled(options.path);
  return RefuseBackup(options.path, report.status().code(),
                      absl::StrCat("the copy is not sound: ", report.status().message()));
}

}  // namespace

absl::StatusOr<BackupReport> BackUp(Between between, const BackupOptions& options) {
  const absl::Time from = absl::Now();
  if (absl::Status s = CheckPlace(options.path); !s.ok()) return s;
  const absl::StatusOr<std::unique_ptr<Unfinished>> file = Unfinished::Make(options.path);
  if (!file.ok()) return file.status();
  BackupReport report;
  if (absl::Status s = CopyPages(between, options, **file, report.longest_slice); !s.ok()) return s;
  absl::StatusOr<CopyReport> checked = CheckPatiently((*file)->name(), options);
  if (!checked.ok()) return checked.status();
  report.copy = *std::move(checked);
  if (absl::Status s = (*file)->Name(); !s.ok()) return s;
  report.took = absl::Now() - from;
  return report;
}

absl::StatusOr<CopyReport> CheckCopy(const std::string& path, std::function<bool()> cancelled) {
  CopyReport report;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return absl::NotFoundError(absl::StrCat("ledger ", path, ": ", ErrnoText()));
  }
  if (!S_ISREG(status.st_mode)) return absl::FailedPreconditionError(absl::StrCat("ledger ", path, ": is no file"));
  report.bytes = status.st_size;
  for (const char* log : {"-wal", "-journal"}) {
    if (!HoldsBytes(path + log)) continue;
    return absl::FailedPreconditionError(absl::StrCat("ledger ", path, ": has its log beside it (", log,
                                                      "): it is in use, or was not closed, and is no backup"));
  }
  SqliteStoreOptions options;
  options.path = path;
  options.for_operator = true;
  options.inspect = true;
  options.cancelled = std::move(cancelled);
  const absl::StatusOr<std::unique_ptr<SqliteStore>> store = SqliteStore::Open(options);
  if (!store.ok()) return store.status();
  SqliteStore& copy = **store;
  while (!report.totals.done) {
    if (absl::Status s = copy.Add(3, kSlice, report.totals); !s.ok()) return s;
  }
  report.schema_version = copy.schema_version();
  const absl::StatusOr<std::vector<LedgerKey>> keys = copy.Keys();
  if (!keys.ok()) return keys.status();
  if (!keys->empty()) report.key_id = keys->front().id;
  const absl::StatusOr<int64_t> entries = copy.AuditEntries();
  if (!entries.ok()) return entries.status();
  report.audit_entries = *entries;
  const absl::StatusOr<absl::Time> last = copy.LastChange();
  if (!last.ok()) return last.status();
  report.last_change = *last;
  return report;
}

}  // namespace userintent::ledger
