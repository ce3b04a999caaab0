// ledger::LedgerFile: the place on disk that one process may use as its ledger: directory, modes, kind of file system,
// the lock that keeps a second process out, and whether the files are still the ones that were opened.
//
// Made once at start by whoever opens the ledger, and kept as long as the database is open. Not thread-safe: after Open
// one thread asks InPlace.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace userintent::ledger {

class LedgerFile {
 public:
  // Makes missing directories (0700), locks the name, and makes the file 0600 where it was wider. Every refusal is one
  // clear line: a network file system, a second process (kAborted), a path that is no file, a file that is no ledger
  // (which is left as it is), a file of 0 bytes, a symbolic link to nothing, a log without its ledger, a directory that
  // others may write. The file itself is not made: see exists().
  //
  // Of the directory: its owner must be root or this process's user; nobody else may write it, sticky or not, because a
  // file of SQLite's that is missing there could be laid down by them; the same goes for the
  // directory that a symbolic link at the path leads to. One exception: a directory of root's that this
  // process may write only through one of its groups, as Kubernetes makes it (fsGroup). `for_operator`: root may also
  // work in the directory of the server's user.
  //
  // The lock is a file of its own, `PATH.lock`. The database file itself is not opened again by this process while
  // SQLite has it: closing such a second descriptor would silently drop SQLite's own POSIX locks.
  static absl::StatusOr<std::unique_ptr<LedgerFile>> Open(const std::string& path, bool for_operator = false);
  // The same without a look at the file: for who puts another one in its place.
  static absl::StatusOr<std::unique_ptr<LedgerFile>> Lock(const std::string& path, bool for_operator = false);
  ~LedgerFile();
  LedgerFile(const LedgerFile&) = delete;
  LedgerFile& operator=(const LedgerFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& directory() const { return directory_; }
  // The write-ahead log; of a ledger behind a symbolic link it lies beside the link's target.
  std::string log_path() const;
  // False: there is none yet.
  bool exists() const;
  // True where a power cut or a reboot empties the file system (tmpfs, ramfs): worth a warning.
  bool volatile_storage() const { return volatile_storage_; }

  // Makes renames and new names in the directory durable.
  absl::Status SyncDirectory() const;

  // Remembers which files they are, once SQLite has opened them: the ledger, its directory, its log.
  absl::Status Watch();
  // Whether a start would find, under the same names, what this process has open. A handful of stat calls. A lock file
  // that is gone is made and locked again. The status says in one line what is wrong.
  absl::Status InPlace();

 private:
  LedgerFile(std::string path, std::string directory, int lock, bool volatile_storage)
      : path_(std::move(path)), directory_(std::move(directory)), lock_(lock), volatile_storage_(volatile_storage) {}

  const std::string path_;
  const std::string directory_;
  // A file as stat tells it from all others; inode 0: none.
  struct Identity {
    uint64_t device = 0;
    uint64_t inode = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };
  static Identity Of(const std::string& path);
  absl::Status HoldLock();

  int lock_;
  const bool volatile_storage_;
  Identity data_;
  Identity holder_;  // the directory
  Identity log_;
  std::string log_path_;
};

// Whether the file can be a ledger: empty, or SQLite's and with our mark in its head. Must not be called while this
// process has the database open: closing a second descriptor drops SQLite's locks. The text does not name the path.
absl::Status CheckIsLedger(const std::string& path);

// Where the ledger's bytes are: the directory of the path, or of what it leads to.
std::string DataDirectory(const std::string& path);

// See LedgerFile::Open.
absl::Status CheckDirectoryRights(const std::string& directory, bool for_operator);

// The name of the network file system that statfs calls by this magic number, or null. SQLite's locks and its
// write-ahead log are not reliable there, and a second machine could use the same file.
const char* NetworkFileSystem(uint64_t magic);

}  // namespace userintent::ledger
