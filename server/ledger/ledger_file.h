// ledger::LedgerFile: the place on disk that one process may use as its ledger: directory, modes, kind of file system,
// and the lock that keeps a second process out.
//
// Made once at start by whoever opens the ledger, and kept as long as the database is open. Not thread-safe; needs no
// more, because it does nothing after Open.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace userintent::ledger {

class LedgerFile {
 public:
  // Makes missing directories (0700) and the file (0600, also when it was wider), and locks it. Every refusal is one
  // clear line: a network file system, a second process (kAborted), a path that is no file.
  //
  // The lock is a file of its own, `PATH.lock`. The database file itself is not opened again by this process while
  // SQLite has it: closing such a second descriptor would silently drop SQLite's own POSIX locks.
  static absl::StatusOr<std::unique_ptr<LedgerFile>> Open(const std::string& path);
  ~LedgerFile();
  LedgerFile(const LedgerFile&) = delete;
  LedgerFile& operator=(const LedgerFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& directory() const { return directory_; }
  // True where a power cut or a reboot empties the file system (tmpfs, ramfs): worth a warning.
  bool volatile_storage() const { return volatile_storage_; }

 private:
  LedgerFile(std::string path, std::string directory, int lock, bool volatile_storage)
      : path_(std::move(path)), directory_(std::move(directory)), lock_(lock), volatile_storage_(volatile_storage) {}

  const std::string path_;
  const std::string directory_;
  const int lock_;
  const bool volatile_storage_;
};

// The name of the network file system that statfs calls by this magic number, or null. SQLite's locks and its
// write-ahead log are not reliable there, and a second machine could use the same file.
const char* NetworkFileSystem(uint64_t magic);

}  // namespace userintent::ledger
