#include "server/admin/restore.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/descriptor.h"
#include "server/ledger/files.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/mark.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::admin {
namespace {

using ledger::Unable;

constexpr const char* kParts[] = {"", "-wal", "-journal", "-shm"};

bool There(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

absl::Status CopyFile(const std::string& from, const std::string& to) {
  const Descriptor in(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (in.get() < 0) return Unable(from, "open it");
  const Descriptor out(::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (out.get() < 0) return Unable(to, "make it");
  std::vector<char> buffer(1 << 20);
  for (;;) {
    const ssize_t size = ::read(in.get(), buffer.data(), buffer.size());
    if (size < 0) return Unable(from, "read it");
    if (size == 0) break;
    for (ssize_t done = 0; done < size;) {
      const ssize_t written = ::write(out.get(), buffer.data() + done, static_cast<size_t>(size - done));
      if (written < 0) return Unable(to, "write it");
      done += written;
    }
  }
  return ::fsync(out.get()) == 0 ? absl::OkStatus() : Unable(to, "sync it");
}

// The copy under the name from which it takes the ledger's place, one file without a log. It gets that name when it is
// whole. Where a restore was cut off and there is no ledger, the name stays until there is one: a start refuses then.
class Candidate {
 public:
  explicit Candidate(const std::string& ledger)
      : ledger_(ledger), ready_(ledger::RestoringPath(ledger)), path_(ready_ + ".new") {
    Remove(path_);
  }
  ~Candidate() {
    Remove(path_);
    if (There(ledger_)) Remove(ready_);
  }
  Candidate(const Candidate&) = delete;
  Candidate& operator=(const Candidate&) = delete;
  const std::string& path() const { return ready_; }

  absl::Status Make(const std::string& copy, std::optional<uint64_t> key_id, RestoreResult* result,
                    ledger::Standing* standing) {
    if (absl::Status s = CopyFile(copy, path_); !s.ok()) return s;
    if (There(copy + "-wal")) {
      if (absl::Status s = CopyFile(copy + "-wal", path_ + "-wal"); !s.ok()) return s;
    }
    ledger::SqliteStoreOptions options;
    options.path = path_;
    options.for_operator = true;
    options.check_whole = true;
    {
      const absl::StatusOr<std::unique_ptr<ledger::SqliteStore>> opened = ledger::SqliteStore::Open(options);
      if (!opened.ok()) return Named(copy, opened.status());
      ledger::SqliteStore& store = **opened;
      if (absl::Status s = CheckKey(store, copy, key_id); !s.ok()) return s;
      const absl::StatusOr<int64_t> last_change = store.NewestRevision();
      if (!last_change.ok()) return Named(copy, last_change.status());
      *standing = {store.made_at(), store.revision(), *last_change};
      result->rows = store.rows();
      result->last_change = *last_change;
    }
    if (ledger::HoldsBytes(path_ + "-wal")) {
      return absl::UnavailableError(absl::StrCat(copy, ": its log cannot be copied into it; is the disk full?"));
    }
    if (absl::Status s = GiveAway(path_, ledger_); !s.ok()) return s;
    return ::rename(path_.c_str(), ready_.c_str()) == 0 ? absl::OkStatus() : Unable(ready_, "make it");
  }

 private:
  static absl::Status CheckKey(ledger::SqliteStore& store, const std::string& copy, std::optional<uint64_t> key_id) {
    if (!key_id) return absl::OkStatus();
    const absl::StatusOr<bool> has = store.IsCurrentKey(*key_id);
    if (!has.ok()) return Named(copy, has.status());
    if (*has) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(copy, ": was made with another key than --ledger_key_file"));
  }
  // Who reads it knows the copy by the name that they gave.
  static absl::Status Named(const std::string& copy, const absl::Status& status) {
    return {status.code(), absl::StrCat(copy, " cannot be restored: ", std::string(status.message()))};
  }
  static void Remove(const std::string& path) {
    for (const char* part : kParts) ::unlink((path + part).c_str());
  }
  const std::string ledger_;
  const std::string ready_;
  const std::string path_;
};

absl::Status CheckCopy(const std::string& copy, const std::string& ledger) {
  struct stat from {};
  struct stat to {};
  if (::stat(copy.c_str(), &from) != 0) return Unable(copy, "find it");
  if (!S_ISREG(from.st_mode)) return absl::FailedPreconditionError(absl::StrCat(copy, ": is not a regular file"));
  if (from.st_size == 0) return absl::FailedPreconditionError(absl::StrCat(copy, ": is a file of 0 bytes"));
  if (::lstat(ledger.c_str(), &to) == 0 && S_ISLNK(to.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("ledger ", ledger, ": is a symbolic link; put the file itself there first, or remove the link"));
  }
  if (::stat(ledger.c_str(), &to) == 0 && from.st_dev == to.st_dev && from.st_ino == to.st_ino) {
    return absl::FailedPreconditionError(absl::StrCat(copy, ": is the ledger itself"));
  }
  return absl::OkStatus();
}

// Where what is at the path is kept. A log alone was left there by a restore that was cut off after it had set the
// ledger aside: the two stay together.
std::string Aside(const std::string& path) {
  const std::string stem = path + ".before-restore-";
  std::string aside = stem + absl::FormatTime("%Y%m%dT%H%M%E3SZ", absl::Now(), absl::UTCTimeZone());
  if (There(path) || !There(path + "-wal")) return aside;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  std::string last;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(parent.empty() ? "." : parent, error)) {
    const std::string name = (parent / entry.path().filename()).string();
    if (name.size() != aside.size() || name.substr(0, stem.size()) != stem || There(name + "-wal")) continue;
    last = std::max(last, name);
  }
  return last.empty() ? aside : last;
}

// The ledger first: without it, and with the candidate there, every start refuses until this is done again.
absl::Status KeepAside(const ledger::LedgerFile& file, RestoreResult* result) {
  const std::string& path = file.path();
  const std::string aside = Aside(path);
  std::vector<const char*> moved;
  for (const char* part : kParts) {
    if (!There(path + part)) continue;
    if (::rename((path + part).c_str(), (aside + part).c_str()) != 0) {
      const absl::Status status = Unable(path + part, "set it aside");
      for (const char* back : moved) std::rename((aside + back).c_str(), (path + back).c_str());
      return status;
    }
    moved.push_back(part);
  }
  if (!moved.empty()) result->kept_as = aside;
  return file.SyncDirectory();
}

}  // namespace

absl::Status GiveAway(const std::string& path, const std::string& ledger) {
  struct stat owner {};
  if (::geteuid() != 0) return absl::OkStatus();
  if (::stat(ledger.c_str(), &owner) != 0 && ::stat(ledger::DataDirectory(ledger).c_str(), &owner) != 0) {
    return Unable(ledger, "look whose it is");
  }
  return ::chown(path.c_str(), owner.st_uid, owner.st_gid) == 0 ? absl::OkStatus() : Unable(path, "give it away");
}

absl::StatusOr<RestoreResult> Restore(const std::string& copy, const std::string& ledger,
                                      std::optional<uint64_t> key_id) {
  if (absl::Status s = CheckCopy(copy, ledger); !s.ok()) return s;
  const absl::StatusOr<std::unique_ptr<ledger::LedgerFile>> file = ledger::LedgerFile::Lock(ledger, true);
  if (absl::IsAborted(file.status())) {
    return absl::FailedPreconditionError(absl::StrCat("ledger ", ledger, ": a server runs on it; stop it first"));
  }
  if (!file.ok()) return file.status();
  RestoreResult result;
  ledger::Standing standing;
  Candidate candidate(ledger);
  if (absl::Status s = candidate.Make(copy, key_id, &result, &standing); !s.ok()) return s;
  if (absl::Status s = (*file)->SyncDirectory(); !s.ok()) return s;
  if (absl::Status s = KeepAside(**file, &result); !s.ok()) return s;
  if (::rename(candidate.path().c_str(), ledger.c_str()) != 0) return Unable(ledger, "put the copy in place");
  if (absl::Status s = (*file)->SyncDirectory(); !s.ok()) return s;
  const ledger::Comparison compared = ledger::Compare(standing, ledger::ReadMark(ledger));
  result.must_be_acknowledged = compared == ledger::Comparison::kOlder || compared == ledger::Comparison::kOther;
  return result;
}

}  // namespace userintent::admin
