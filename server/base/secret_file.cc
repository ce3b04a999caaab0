#include "server/base/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "server/base/refused.h"
#include "server/base/wipe.h"

namespace userintent {
namespace {

constexpr size_t kMaxBytes = size_t{64} * 1024;

// Joined without absl: its string_view is the standard one in some builds and its own in others.
std::string Text(std::string_view what, std::string_view reason) {
  return std::string(what).append(": ").append(reason);
}

void RemoveOneNewline(std::string& text) {
  if (text.empty() || text.back() != '\n') return;
  text.pop_back();
  if (!text.empty() && text.back() == '\r') text.pop_back();
}

constexpr size_t kLedgerKeyBytes = 32;

absl::StatusOr<Secret> Read(const std::string& path, std::string_view what, size_t least_bytes) {
  // O_NONBLOCK: opening a FIFO must not hang, it is to be refused below.
  int fd;
  do {
    fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return absl::ErrnoToStatus(errno, Text(what, "cannot open the file"));
  absl::Cleanup close_fd = [fd] { close(fd); };

  // fstat() of the open file, not stat() of the path: the file cannot be swapped between the check and the read.
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, Text(what, "cannot examine the file"));
  if (!S_ISREG(info.st_mode)) return Refused(what, "not a regular file");
  if ((info.st_mode & S_IROTH) != 0) return Refused(what, "others may read the file; take that right away (chmod o-r)");
  // A user who may write the file can replace the secret. Group read is allowed, because Kubernetes shows secrets to a
  // server that is not root in this way; no group has a reason to write one.
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Refused(what, "others than its owner may write the file; take that right away (chmod go-w)");
  }
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    return Refused(what, "the file belongs to another user than root and the one that the server runs as (chown)");
  }
  if (info.st_size > static_cast<off_t>(kMaxBytes)) return Refused(what, "the file is larger than 64 KiB");

  std::array<char, 4096> buffer;
  // Reserved in full, so that growing leaves no copies behind and moving leaves none in a short string's own buffer.
  std::string bytes;
  bytes.reserve(kMaxBytes + buffer.size());
  absl::Cleanup wipe = [&] {
    WipeBytes(buffer.data(), buffer.size());
    WipeUsed(bytes);
  };
  for (;;) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::ErrnoToStatus(errno, Text(what, "cannot read the file"));
    if (got == 0) break;
    bytes.append(buffer.data(), static_cast<size_t>(got));
    if (bytes.size() > kMaxBytes) return Refused(what, "the file is larger than 64 KiB");
  }
  if (bytes.size() < least_bytes) return Refused(what, "must hold 32 or more random bytes");
  RemoveOneNewline(bytes);
  if (bytes.empty()) return Refused(what, "the file is empty");
  return Secret(std::move(bytes));
}

}  // namespace

absl::StatusOr<Secret> ReadSecretFile(const std::string& path, std::string_view what) { return Read(path, what, 0); }

absl::StatusOr<Secret> ReadLedgerKey(const std::string& path, std::string_view what) {
  return Read(path, what, kLedgerKeyBytes);
}

}  // namespace userintent
