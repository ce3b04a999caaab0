// FileMark: tells one state of a file from another without reading it.
//
// Any thread. Symbolic links are followed, so a link that was swapped shows as another file.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <optional>
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

// The files that the last reading refused, by their marks, and whether that is news: they were other ones than those of
// the refusal before it. A refusal that follows a success is always news. `Marks`: a FileMark, or a pair of them, made
// before the reading, so that what changes in between is news once too often rather than never. Not thread-safe.
template <typename Marks>
class RefusedFiles {
 public:
  void Refuse(const Marks& marks) {
    news_ = refused_ != marks;
    refused_ = marks;
  }
  void Accept() { refused_.reset(); }
  bool IsNews() const { return refused_.has_value() && news_; }

 private:
  std::optional<Marks> refused_;
  bool news_ = false;
};

}  // namespace userintent
