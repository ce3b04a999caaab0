#include "server/base/public_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "server/base/errno_text.h"
#include "server/base/refused.h"

namespace userintent {
absl::StatusOr<std::string> ReadPublicFile(const std::string& path, std::string_view what, size_t max) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return Refused(what, "cannot open the file: " + ErrnoText());
  struct stat info {};
  std::string bytes;
  ssize_t got = -1;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    char buffer[16384];
    while ((got = read(fd, buffer, sizeof buffer)) > 0 && bytes.size() <= max) {
      bytes.append(buffer, static_cast<size_t>(got));
    }
  }
  close(fd);
  if (got < 0) return Refused(what, "cannot read the file, or it is not a regular file");
  if ((info.st_mode & S_IWOTH) != 0) {
    return Refused(what, "others may write the file; take that right away (chmod o-w)");
  }
  if (bytes.size() > max) return Refused(what, "the file is larger than " + std::to_string(max >> 20) + " MiB");
  return bytes;
}

}  // namespace userintent
