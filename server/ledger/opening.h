// How a ledger's files are opened: one order of locks, checks and comparisons for the server and for the operators'
// tool, so that neither touches a ledger that the other would refuse. Blocks; one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/mark.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

struct OpeningOptions {
  SqliteStoreOptions store;
  // A path without a ledger is refused instead of getting a new one.
  bool must_exist = false;
  // --ledger_restored: the operator knows that this ledger stands for a newer one.
  std::optional<absl::Time> restored;
  // The ledger may be older than what this directory served, because it will only be read.
  bool only_read = false;
  // One line for the log.
  std::function<void(const std::string&)> warn = [](const std::string&) {};
};

// In this order: the store goes before the lock that protects it.
struct OpenedFiles {
  std::unique_ptr<LedgerFile> file;
  std::unique_ptr<SqliteStore> store;
  bool made = false;                 // there was no ledger
  int64_t acknowledged = 0;          // for the mark
  std::optional<Restored> restored;  // the last restore that was acknowledged, now or at an earlier start
};

// Locks the place, makes a ledger where there is none (never half of one: it gets its name when it is whole), compares
// it with the mark, opens it with all of SqliteStore's checks, and watches its files. Does not recover and does not
// write the mark.
absl::StatusOr<OpenedFiles> OpenFiles(const OpeningOptions& options);

// Before a ledger is brought to a schema from which there is no way back (9), a copy of it as it was. Does nothing for
// one without requests, or past that schema. Otherwise copies it, as a backup does, and makes sure that the disk has
// room for what follows; a line for the log says where the copy is. Blocks for as long as a disk takes to read and to
// write the ledger. Under the lock of the ledger's place, while nobody has it open. In sqlite_keep_copy.cc.
absl::Status KeepCopy(const OpeningOptions& options);

// Where that copy is; the second one of another standing has ".2" behind it. They are an operator's to remove.
std::string CopyBeforeMigrationPath(const std::string& ledger);

// What the database file at this path says without its log: the part of its standing that only a copy of this very
// file can have. Nothing where it cannot be told. Not while anybody has it open.
std::optional<Standing> LookWithoutLog(const std::string& path, const char* vfs = nullptr);

// The name that the copy of `userintent-ledger restore` has when it is whole, before it takes the ledger's place.
std::string RestoringPath(const std::string& ledger);

}  // namespace userintent::ledger
