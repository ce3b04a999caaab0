// FileMark: tells one state of a file from another without reading it.
//
// Any thread. Symbolic links are followed, so a link that was swapped shows as another file.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace userintent {

// Every write, chmod, chown and rename gives another mark, but for two within one tick of the file system's clock.
struct FileMark {
  int error = 0;  // of stat(); the rest is zero then
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t changed_seconds = 0;  // ctime: unlike mtime, no call sets it back
  int64_t changed_nanoseconds = 0;
  friend bool operator==(const FileMark&, const FileMark&) = default;
};

inline FileMark MarkOf(const std::string& path) {
  FileMark mark;
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    mark.error = errno;
    return mark;
  }
  mark.device = info.st_dev;
  mark.inode = info.st_ino;
  mark.size = info.st_size;
  mark.changed_seconds = info.st_ctim.tv_sec;
  mark.changed_nanoseconds = info.st_ctim.tv_nsec;
  return mark;
}

}  // namespace userintent
