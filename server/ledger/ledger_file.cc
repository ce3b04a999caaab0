#include "server/ledger/ledger_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/descriptor.h"
#include "server/base/errno_text.h"
#include "server/ledger/files.h"
#include "server/ledger/refuse.h"
#include "server/ledger/sqlite_schema.h"

namespace userintent::ledger {
namespace {

constexpr uint64_t kTmpfs = 0x01021994;
constexpr uint64_t kRamfs = 0x858458f6;
constexpr char kLock[] = ".lock";

absl::Status RefuseErrno(const std::string& path, const std::string& what) {
  return RefuseLedger(path, absl::StrCat("cannot ", what, ": ", ErrnoText()));
}

// Makes what is missing of the directory, each new level durable in its parent.
absl::Status MakeDirectory(const std::string& path, const std::filesystem::path& directory) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) == 0) {
    return S_ISDIR(status.st_mode) ? absl::OkStatus() : RefuseLedger(path, "its directory is not a directory");
  }
  const std::filesystem::path parent = directory.has_parent_path() ? directory.parent_path() : ".";
  if (parent != directory) {
    if (absl::Status s = MakeDirectory(path, parent); !s.ok()) return s;
  }
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return RefuseErrno(path, "make its directory");
  const Descriptor above(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (above.get() >= 0) ::fsync(above.get());
  return absl::OkStatus();
}

// Without the path; Open puts it in front.
absl::Status Cannot(const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat("cannot ", what, ": ", ErrnoText()));
}

absl::Status WithPath(const std::string& path, const absl::Status& status) {
  return status.ok() ? status : RefuseLedger(path, std::string(status.message()));
}

bool InGroup(gid_t group) {
  if (group == getegid()) return true;
  const int count = getgroups(0, nullptr);
  if (count <= 0) return false;
  std::vector<gid_t> groups(static_cast<size_t>(count));
  const int got = getgroups(count, groups.data());
  return got > 0 && std::find(groups.begin(), groups.begin() + got, group) != groups.begin() + got;
}

uint32_t BigEndian(const std::array<unsigned char, 100>& head, size_t at) {
  return static_cast<uint32_t>(head[at]) << 24 | static_cast<uint32_t>(head[at + 1]) << 16 |
         static_cast<uint32_t>(head[at + 2]) << 8 | static_cast<uint32_t>(head[at + 3]);
}

int OpenLock(const std::string& path) {
  return ::open((path + kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

// Nothing is at the path: whether it may be a new ledger's.
absl::Status CheckAbsent(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) {
    return RefuseLedger(path, "is a symbolic link to a file that is not there; is a disk not mounted?");
  }
  if (HoldsBytes(path + "-wal")) {
    return RefuseLedger(path,
                        "is not there, but its log (-wal) is: put the ledger back, or a backup by "
                        "userintent-ledger restore");
  }
  return absl::OkStatus();
}

// The file that is there.
absl::Status MakePrivate(const std::string& path) {
  if (absl::Status s = CheckIsLedger(path); !s.ok()) return WithPath(path, s);
  const Descriptor data(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (data.get() < 0) return RefuseErrno(path, "open it");
  struct stat status {};
  if (::fstat(data.get(), &status) != 0) return RefuseErrno(path, "look at it");
  if (!S_ISREG(status.st_mode)) return RefuseLedger(path, "is not a regular file");
  if (status.st_size == 0) {
    return RefuseLedger(path,
                        "is a file of 0 bytes: what it held is lost; put a backup in place by userintent-ledger "
                        "restore, or remove the file to begin with a new ledger");
  }
  if ((status.st_mode & 07777) != 0600 && ::fchmod(data.get(), 0600) != 0) {
    return RefuseErrno(path, "make it private (mode 0600)");
  }
  return ::fsync(data.get()) == 0 ? absl::OkStatus() : RefuseErrno(path, "sync it");
}

}  // namespace

// SQLite's file format: https://www.sqlite.org/fileformat.html, section 1.3.
absl::Status CheckIsLedger(const std::string& path) {
  const Descriptor data(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (data.get() < 0) return errno == ENOENT ? absl::OkStatus() : Cannot("open it");
  struct stat status {};
  if (::fstat(data.get(), &status) != 0) return Cannot("look at it");
  if (!S_ISREG(status.st_mode)) return absl::FailedPreconditionError("is not a regular file");
  if (status.st_size == 0) return absl::OkStatus();
  std::array<unsigned char, 100> head{};
  const ssize_t got = ::pread(data.get(), head.data(), head.size(), 0);
  if (got < 0) return Cannot("read it");
  constexpr char kMagic[] = "SQLite format 3";  // with its zero
  if (got != static_cast<ssize_t>(head.size()) || std::memcmp(head.data(), kMagic, sizeof kMagic) != 0) {
    return absl::FailedPreconditionError("is not a ledger, or its head is damaged; it was left as it is");
  }
  const uint32_t application = BigEndian(head, 68);
  // A ledger whose making was cut short has one page without a mark; the rest of it is in the log beside it.
  const bool just_made = application == 0 && BigEndian(head, 28) <= 1;
  const bool ours =
      application == static_cast<uint32_t>(kApplicationId) || application == static_cast<uint32_t>(kMovedApplicationId);
  if (!ours && !just_made) {
    return absl::FailedPreconditionError("is some other program's database; it was left as it is");
  }
  return absl::OkStatus();
}

absl::Status CheckDirectoryRights(const std::string& directory, bool for_operator) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) return Cannot("look at its directory");
  const uid_t user = geteuid();
  if (status.st_uid != 0 && status.st_uid != user && !(for_operator && user == 0)) {
    return absl::FailedPreconditionError(
        "its directory belongs to another user than root and the one that this runs as (chown)");
  }
  if ((status.st_mode & S_IWOTH) != 0) {
    return absl::FailedPreconditionError(
        "others may write its directory; take that right away (chmod o-w), or name one of its own");
  }
  const bool only_way_in = status.st_uid == 0 && user != 0 && InGroup(status.st_gid);
  if ((status.st_mode & S_IWGRP) != 0 && !only_way_in) {
    return absl::FailedPreconditionError(
        "a group may write its directory; take that right away (chmod g-w), or name one of its own");
  }
  return absl::OkStatus();
}

const char* NetworkFileSystem(uint64_t magic) {
  switch (magic) {
    case 0x00006969:
      return "NFS";
    case 0xff534d42:
      return "CIFS";
    case 0xfe534d42:
      return "SMB2";
    case 0x0000517b:
      return "SMB";
    case 0x65735546:  // also virtiofs: what is behind it cannot be seen
      return "FUSE";
    case 0x00c36400:
      return "Ceph";
    case 0x5346414f:
    case 0x6b414653:
      return "AFS";
    case 0x73757245:
      return "Coda";
    case 0x0bd00bd0:
      return "Lustre";
    case 0x0000564c:
      return "NCP";
    case 0x47504653:
      return "GPFS";
    case 0x01161970:
      return "GFS2";
    case 0x7461636f:
      return "OCFS2";
    default:
      return nullptr;
  }
}

std::string DataDirectory(const std::string& path) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  const std::filesystem::path directory = (error ? std::filesystem::path(path) : real).parent_path();
  return directory.empty() ? "." : directory.string();
}

absl::StatusOr<std::unique_ptr<LedgerFile>> LedgerFile::Lock(const std::string& path, bool for_operator) {
  if (path.empty()) return absl::FailedPreconditionError("ledger: the path is empty");
  const std::filesystem::path file(path);
  const std::filesystem::path directory = file.has_parent_path() ? file.parent_path() : ".";
  if (!file.has_filename()) return RefuseLedger(path, "the path names a directory");
  if (absl::Status s = MakeDirectory(path, directory); !s.ok()) return s;
  if (absl::Status s = CheckDirectoryRights(directory.string(), for_operator); !s.ok()) return WithPath(path, s);

  // Of a ledger behind a symbolic link, the log lies where the link leads.
  const std::string data = DataDirectory(path);
  if (absl::Status s = CheckDirectoryRights(data, for_operator); !s.ok()) return WithPath(path, s);

  struct statfs system {};
  if (::statfs(data.c_str(), &system) != 0) return RefuseErrno(path, "read the kind of its file system");
  // Magic numbers are 32 bits; the field is signed and wider on some machines.
  const uint64_t magic = static_cast<uint32_t>(system.f_type);
  if (const char* name = NetworkFileSystem(magic); name != nullptr) {
    return RefuseLedger(path, absl::StrCat("lies on ", name, "; the ledger needs a local disk"));
  }

  Descriptor lock(OpenLock(path));
  if (lock.get() < 0) return RefuseErrno(path, "open its lock file");
  // One that root makes must not keep the server's user out.
  struct stat owner {};
  if (for_operator && geteuid() == 0 && ::stat(directory.c_str(), &owner) == 0 && owner.st_uid != 0 &&
      ::fchown(lock.get(), owner.st_uid, owner.st_gid) != 0) {
    return RefuseErrno(path, "give its lock file away");
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return RefuseErrno(path, "lock it");
    return absl::AbortedError(
        absl::StrCat("ledger ", path, ": another process uses it; two on one ledger would each send"));
  }
  return std::unique_ptr<LedgerFile>(
      new LedgerFile(path, directory.string(), lock.release(), magic == kTmpfs || magic == kRamfs));
}

absl::StatusOr<std::unique_ptr<LedgerFile>> LedgerFile::Open(const std::string& path, bool for_operator) {
  // Where no lock file is, no process uses the ledger, and the file may be looked at. What is no ledger gets no lock.
  if (::access((path + kLock).c_str(), F_OK) != 0) {
    if (absl::Status s = CheckIsLedger(path); !s.ok()) return WithPath(path, s);
  }
  absl::StatusOr<std::unique_ptr<LedgerFile>> file = Lock(path, for_operator);
  if (!file.ok()) return file.status();
  if (absl::Status s = (*file)->exists() ? MakePrivate(path) : CheckAbsent(path); !s.ok()) return s;
  if (!(*file)->SyncDirectory().ok()) return RefuseErrno(path, "sync its directory");
  return file;
}

bool LedgerFile::exists() const {
  struct stat status {};
  return ::stat(path_.c_str(), &status) == 0;
}

std::string LedgerFile::log_path() const {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path_, error);
  return (error ? path_ : real.string()) + "-wal";
}

absl::Status LedgerFile::SyncDirectory() const {
  const Descriptor holder(::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (holder.get() < 0 || ::fsync(holder.get()) != 0) return RefuseErrno(path_, "sync its directory");
  return absl::OkStatus();
}

LedgerFile::Identity LedgerFile::Of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

absl::Status LedgerFile::Watch() {
  log_path_ = log_path();
  data_ = Of(path_);
  holder_ = Of(directory_);
  log_ = Of(log_path_);
  if (data_.inode == 0 || holder_.inode == 0) return RefuseLedger(path_, "was moved while it was opened");
  return absl::OkStatus();
}

absl::Status LedgerFile::InPlace() {
  const Identity data = Of(path_);
  if (data != data_) {
    return RefuseLedger(path_, data.inode == 0 ? "the file is gone from its path while the server has it open"
                                               : "another file is at its path than the one that the server has open");
  }
  if (Of(directory_) != holder_) return RefuseLedger(path_, "its directory is another one than when it was opened");
  // Commits would go on into a log that no start finds. The end of the process copies it into the ledger.
  if (log_.inode != 0 && Of(log_path_) != log_) {
    return RefuseLedger(path_,
                        "its log (-wal) is gone or replaced; stop the server with SIGTERM, which copies what it has "
                        "open into the ledger, and start it again");
  }
  return HoldLock();
}

// Whoever finds no lock file would make one and think itself alone.
absl::Status LedgerFile::HoldLock() {
  struct stat held {};
  if (::fstat(lock_, &held) != 0) return RefuseErrno(path_, "look at its lock file");
  if (Of(path_ + kLock) == Identity{held.st_dev, held.st_ino}) return absl::OkStatus();
  Descriptor lock(OpenLock(path_));
  if (lock.get() < 0) return RefuseErrno(path_, "make its lock file anew");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    return RefuseLedger(path_, "another process holds a new lock file of it");
  ::close(std::exchange(lock_, lock.release()));
  return absl::OkStatus();
}

LedgerFile::~LedgerFile() { ::close(lock_); }

}  // namespace userintent::ledger
