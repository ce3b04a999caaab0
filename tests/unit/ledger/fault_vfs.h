// Two SQLite file systems for tests. Each is registered once and is process-wide; use one test at a time.
//
// FaultVfs passes everything to the real one, counts, and fails writes and syncs when told. MemoryVfs keeps files in
// memory and a log of every write and sync, from which the disk after a power cut at any point can be made.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace userintent::ledger {

class FaultVfs {
 public:
  static FaultVfs& Get();
  const char* name() const { return "ledger-fault"; }

  // From the `after`th write or sync on (0: the next), those of the kind that gives `code` fail: SQLITE_FULL and
  // SQLITE_IOERR_WRITE fail writes, SQLITE_IOERR_FSYNC fails syncs, SQLITE_IOERR_READ fails reads. Until Heal().
  void Fail(int code, int64_t after = 0);
  void Heal() { code_ = 0; }

  std::atomic<int64_t> writes{0};
  std::atomic<int64_t> syncs{0};
  std::atomic<int64_t> failures{0};
  std::atomic<bool> hangs{false};  // syncs neither end nor fail
  std::atomic<int64_t> dies{-1};   // at the write or sync after so many more, by SIGKILL; below 0: does not

  int Write() { return Judge(code_, true, false); }
  int Sync();
  int Read() { return Judge(code_, false, false); }

 private:
  FaultVfs();
  int Judge(int code, bool write, bool sync);
  std::atomic<int> code_{0};
  std::atomic<int64_t> left_{0};
};

// What a disk holds: names and bytes.
using Disk = std::map<std::string, std::string>;

class MemoryVfs {
 public:
  static MemoryVfs& Get();
  const char* name() const { return "ledger-memory"; }

  struct Event {
    enum Kind { kWrite, kTruncate, kSync, kDelete } kind;
    std::string file;
    size_t offset = 0;  // kTruncate: the size; kSync and kDelete: not 0 if the directory is synced, too
    std::string bytes;
  };

  // Starts anew with these files and an empty log.
  void Load(Disk disk);
  std::vector<Event>& log() { return log_; }
  Disk& disk() { return disk_; }
  void set_logging(bool logging) { logging_ = logging; }
  void Note(Event event) {
    if (logging_) log_.push_back(std::move(event));
  }

 private:
  MemoryVfs();
  Disk disk_;
  std::vector<Event> log_;
  bool logging_ = true;
};

// Follows a log and knows what is surely on the disk and what is only on its way.
class PowerCut {
 public:
  void Apply(const MemoryVfs::Event& event);
  // Everything on its way is lost.
  Disk Dropped() const { return durable_; }
  // Of what is on its way, each sector of 512 bytes arrived or not.
  Disk Torn(std::mt19937& random) const;

 private:
  void SyncDirectory();

  Disk durable_;
  std::set<std::string> deleted_;  // but the directory was not synced since
  std::map<std::string, std::vector<MemoryVfs::Event>> pending_;
};

}  // namespace userintent::ledger
