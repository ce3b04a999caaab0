#include "tests/unit/ledger/fault_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

namespace userintent::ledger {
namespace {

// --- FaultVfs ---

struct FaultFile {
  sqlite3_file base;
  // The real file follows in memory.
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

sqlite3_vfs* RealVfs() {
  static sqlite3_vfs* const real = sqlite3_vfs_find(nullptr);
  return real;
}
sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<FaultFile*>(file)->real(); }

// Version 1: no shared memory and no mapping, which locking_mode=EXCLUSIVE does not need.
const sqlite3_io_methods kFaultMethods = {
    1,
    [](sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); },
    [](sqlite3_file* f, void* out, int size, sqlite3_int64 at) {
      if (const int code = FaultVfs::Get().Read(); code != 0) return code;
      return Real(f)->pMethods->xRead(Real(f), out, size, at);
    },
    [](sqlite3_file* f, const void* in, int size, sqlite3_int64 at) {
      if (const int code = FaultVfs::Get().Write(); code != 0) {
        // As a full disk does: some of it arrives.
        if (size > 512) Real(f)->pMethods->xWrite(Real(f), in, 512, at);
        return code;
      }
      return Real(f)->pMethods->xWrite(Real(f), in, size, at);
    },
    [](sqlite3_file* f, sqlite3_int64 size) { return Real(f)->pMethods->xTruncate(Real(f), size); },
    [](sqlite3_file* f, int flags) {
      if (const int code = FaultVfs::Get().Sync(); code != 0) return code;
      return Real(f)->pMethods->xSync(Real(f), flags);
    },
    [](sqlite3_file* f, sqlite3_int64* size) { return Real(f)->pMethods->xFileSize(Real(f), size); },
    [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xLock(Real(f), lock); },
    [](sqlite3_file* f, int lock) { return Real(f)->pMethods->xUnlock(Real(f), lock); },
    [](sqlite3_file* f, int* out) { return Real(f)->pMethods->xCheckReservedLock(Real(f), out); },
    [](sqlite3_file* f, int op, void* arg) { return Real(f)->pMethods->xFileControl(Real(f), op, arg); },
    [](sqlite3_file* f) { return Real(f)->pMethods->xSectorSize(Real(f)); },
    [](sqlite3_file* f) { return Real(f)->pMethods->xDeviceCharacteristics(Real(f)); },
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

// --- MemoryVfs ---

struct MemoryFile {
  sqlite3_file base;
  std::string* name;
  bool fresh;  // a journal or log made by this open: its first sync syncs the directory, as SQLite does on Unix
};

std::string& Bytes(sqlite3_file* file) { return MemoryVfs::Get().disk()[*reinterpret_cast<MemoryFile*>(file)->name]; }
const std::string& Name(sqlite3_file* file) { return *reinterpret_cast<MemoryFile*>(file)->name; }

void WriteInto(std::string& bytes, size_t at, const char* data, size_t size) {
  if (bytes.size() < at + size) bytes.resize(at + size);
  std::memcpy(bytes.data() + at, data, size);
}

const sqlite3_io_methods kMemoryMethods = {
    1,
    [](sqlite3_file* f) {
      delete reinterpret_cast<MemoryFile*>(f)->name;
      return SQLITE_OK;
    },
    [](sqlite3_file* f, void* out, int size, sqlite3_int64 at) {
      const std::string& bytes = Bytes(f);
      const size_t from = std::min(static_cast<size_t>(at), bytes.size());
      const size_t got = std::min(static_cast<size_t>(size), bytes.size() - from);
      std::memcpy(out, bytes.data() + from, got);
      if (got == static_cast<size_t>(size)) return SQLITE_OK;
      std::memset(static_cast<char*>(out) + got, 0, static_cast<size_t>(size) - got);
      return SQLITE_IOERR_SHORT_READ;
    },
    [](sqlite3_file* f, const void* in, int size, sqlite3_int64 at) {
      const char* data = static_cast<const char*>(in);
      WriteInto(Bytes(f), static_cast<size_t>(at), data, static_cast<size_t>(size));
      MemoryVfs::Get().Note(
          {MemoryVfs::Event::kWrite, Name(f), static_cast<size_t>(at), std::string(data, static_cast<size_t>(size))});
      return SQLITE_OK;
    },
    [](sqlite3_file* f, sqlite3_int64 size) {
      Bytes(f).resize(static_cast<size_t>(size));
      MemoryVfs::Get().Note({MemoryVfs::Event::kTruncate, Name(f), static_cast<size_t>(size), {}});
      return SQLITE_OK;
    },
    [](sqlite3_file* f, int) {
      const bool directory = std::exchange(reinterpret_cast<MemoryFile*>(f)->fresh, false);
      MemoryVfs::Get().Note({MemoryVfs::Event::kSync, Name(f), directory ? size_t{1} : size_t{0}, {}});
      return SQLITE_OK;
    },
    [](sqlite3_file* f, sqlite3_int64* size) {
      *size = static_cast<sqlite3_int64>(Bytes(f).size());
      return SQLITE_OK;
    },
    [](sqlite3_file*, int) { return SQLITE_OK; },
    [](sqlite3_file*, int) { return SQLITE_OK; },
    [](sqlite3_file*, int* out) {
      *out = 0;
      return SQLITE_OK;
    },
    [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; },
    [](sqlite3_file*) { return 4096; },
    [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; },
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

FaultVfs& FaultVfs::Get() {
  static FaultVfs* const vfs = new FaultVfs;
  return *vfs;
}

FaultVfs::FaultVfs() {
  static sqlite3_vfs vfs = *RealVfs();
  vfs.zName = "ledger-fault";
  vfs.pNext = nullptr;
  vfs.szOsFile = static_cast<int>(sizeof(FaultFile)) + RealVfs()->szOsFile;
  vfs.xOpen = [](sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out) {
    file->pMethods = nullptr;
    sqlite3_file* real = reinterpret_cast<FaultFile*>(file)->real();
    std::memset(real, 0, static_cast<size_t>(RealVfs()->szOsFile));
    const int code = RealVfs()->xOpen(RealVfs(), path, real, flags, out);
    if (code == SQLITE_OK) file->pMethods = &kFaultMethods;
    return code;
  };
  sqlite3_vfs_register(&vfs, 0);
}

int FaultVfs::Sync() {
  while (hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return Judge(code_, false, true);
}

void FaultVfs::Fail(int code, int64_t after) {
  left_ = after;
  code_ = code;
}

int FaultVfs::Judge(int code, bool write, bool sync) {
  if (write) ++writes;
  if (sync) ++syncs;
  if ((write || sync) && dies.fetch_sub(1) == 0) ::kill(::getpid(), SIGKILL);
  if (code == 0) return 0;
  if (code == SQLITE_IOERR_READ) {
    if (write || sync) return 0;
  } else {
    if (!write && !sync) return 0;
    if (left_-- > 0) return 0;
    left_ = 0;
    if ((code == SQLITE_IOERR_FSYNC) != sync) return 0;
  }
  ++failures;
  return code;
}

MemoryVfs& MemoryVfs::Get() {
  static MemoryVfs* const vfs = new MemoryVfs;
  return *vfs;
}

MemoryVfs::MemoryVfs() {
  static sqlite3_vfs vfs = *RealVfs();
  vfs.zName = "ledger-memory";
  vfs.pNext = nullptr;
  vfs.szOsFile = static_cast<int>(sizeof(MemoryFile));
  vfs.xOpen = [](sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out) {
    auto* memory = reinterpret_cast<MemoryFile*>(file);
    memory->base.pMethods = nullptr;
    Disk& disk = MemoryVfs::Get().disk();
    if ((flags & SQLITE_OPEN_CREATE) == 0 && disk.count(path) == 0) return SQLITE_CANTOPEN;
    const bool made = disk.try_emplace(path).second;
    if (made) MemoryVfs::Get().Note({Event::kTruncate, path, 0, {}});
    memory->name = new std::string(path);
    memory->fresh = made && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
    memory->base.pMethods = &kMemoryMethods;
    if (out != nullptr) *out = flags;
    return SQLITE_OK;
  };
  vfs.xDelete = [](sqlite3_vfs*, const char* path, int sync) {
    if (MemoryVfs::Get().disk().erase(path) == 0) return SQLITE_IOERR_DELETE_NOENT;
    MemoryVfs::Get().Note({Event::kDelete, path, static_cast<size_t>(sync), {}});
    return SQLITE_OK;
  };
  vfs.xAccess = [](sqlite3_vfs*, const char* path, int, int* out) {
    *out = static_cast<int>(MemoryVfs::Get().disk().count(path));
    return SQLITE_OK;
  };
  vfs.xFullPathname = [](sqlite3_vfs*, const char* path, int size, char* out) {
    std::strncpy(out, path, static_cast<size_t>(size));
    return SQLITE_OK;
  };
  sqlite3_vfs_register(&vfs, 0);
}

void MemoryVfs::Load(Disk disk) {
  disk_ = std::move(disk);
  log_.clear();
}

void PowerCut::SyncDirectory() {
  for (const std::string& name : deleted_) durable_.erase(name);
  deleted_.clear();
}

void PowerCut::Apply(const MemoryVfs::Event& event) {
  auto& pending = pending_[event.file];
  if (event.kind != MemoryVfs::Event::kDelete) deleted_.erase(event.file);  // made anew under the same name
  switch (event.kind) {
    case MemoryVfs::Event::kWrite:
    case MemoryVfs::Event::kTruncate:
      pending.push_back(event);
      break;
    case MemoryVfs::Event::kSync: {
      std::string& bytes = durable_[event.file];
      for (const MemoryVfs::Event& each : pending) {
        if (each.kind == MemoryVfs::Event::kTruncate) {
          bytes.resize(each.offset);
        } else {
          WriteInto(bytes, each.offset, each.bytes.data(), each.bytes.size());
        }
      }
      pending.clear();
      if (event.offset != 0) SyncDirectory();
      break;
    }
    case MemoryVfs::Event::kDelete:
      // Until the directory is synced the file may come back, with what was synced of it.
      pending.clear();
      deleted_.insert(event.file);
      if (event.offset != 0) SyncDirectory();
      break;
  }
}

Disk PowerCut::Torn(std::mt19937& random) const {
  constexpr size_t kSector = 512;
  Disk disk = durable_;
  for (const std::string& name : deleted_) {
    if (random() % 2 != 0) disk.erase(name);
  }
  for (const auto& [name, pending] : pending_) {
    for (const MemoryVfs::Event& each : pending) {
      if (each.kind == MemoryVfs::Event::kTruncate) {
        if (random() % 2 != 0 && disk.count(name) != 0) disk[name].resize(each.offset);
        continue;
      }
      for (size_t at = 0; at < each.bytes.size();) {
        const size_t size = std::min(kSector - (each.offset + at) % kSector, each.bytes.size() - at);
        if (random() % 2 != 0) WriteInto(disk[name], each.offset + at, each.bytes.data() + at, size);
        at += size;
      }
    }
  }
  return disk;
}

}  // namespace userintent::ledger
