#include "server/ledger/ledger_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent::ledger {
namespace {

constexpr uint64_t kTmpfs = 0x01021994;
constexpr uint64_t kRamfs = 0x858458f6;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

absl::Status Refuse(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("ledger ", path, ": ", why));
}

absl::Status RefuseErrno(const std::string& path, const std::string& what) {
  return Refuse(path, absl::StrCat("cannot ", what, ": ", std::generic_category().message(errno)));
}

// Makes what is missing of the directory, each new level durable in its parent.
absl::Status MakeDirectory(const std::string& path, const std::filesystem::path& directory) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) == 0) {
    return S_ISDIR(status.st_mode) ? absl::OkStatus() : Refuse(path, "its directory is not a directory");
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

}  // namespace

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

absl::StatusOr<std::unique_ptr<LedgerFile>> LedgerFile::Open(const std::string& path) {
  if (path.empty()) return absl::FailedPreconditionError("ledger: the path is empty");
  const std::filesystem::path file(path);
  const std::filesystem::path directory = file.has_parent_path() ? file.parent_path() : ".";
  if (!file.has_filename()) return Refuse(path, "the path names a directory");
  if (absl::Status s = MakeDirectory(path, directory); !s.ok()) return s;

  struct statfs system {};
  if (::statfs(directory.c_str(), &system) != 0) return RefuseErrno(path, "read the kind of its file system");
  // Magic numbers are 32 bits; the field is signed and wider on some machines.
  const uint64_t magic = static_cast<uint32_t>(system.f_type);
  if (const char* name = NetworkFileSystem(magic); name != nullptr) {
    return Refuse(path, absl::StrCat("lies on ", name, "; the ledger needs a local disk"));
  }

  const std::string lock_path = path + ".lock";
  Descriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (lock.get() < 0) return RefuseErrno(path, "open its lock file");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return RefuseErrno(path, "lock it");
    return absl::AbortedError(
        absl::StrCat("ledger ", path, ": another process uses it; two on one ledger would each send"));
  }

  {
    const Descriptor data(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (data.get() < 0) return RefuseErrno(path, "open it");
    struct stat status {};
    if (::fstat(data.get(), &status) != 0) return RefuseErrno(path, "look at it");
    if (!S_ISREG(status.st_mode)) return Refuse(path, "is not a regular file");
    if ((status.st_mode & 07777) != 0600 && ::fchmod(data.get(), 0600) != 0) {
      return RefuseErrno(path, "make it private (mode 0600)");
    }
    if (::fsync(data.get()) != 0) return RefuseErrno(path, "sync it");
  }
  const Descriptor holder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (holder.get() < 0 || ::fsync(holder.get()) != 0) return RefuseErrno(path, "sync its directory");
  return std::unique_ptr<LedgerFile>(
      new LedgerFile(path, directory.string(), lock.release(), magic == kTmpfs || magic == kRamfs));
}

LedgerFile::~LedgerFile() { ::close(lock_); }

}  // namespace userintent::ledger
