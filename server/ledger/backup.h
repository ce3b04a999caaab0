// ledger::BackUp: a copy of a ledger in a file of its own, made while the ledger is in use; ledger::CheckCopy: whether
// such a file may be relied on.
//
// Both block, BackUp for as long as a disk takes to write the ledger once and to read it once: call them on a thread
// that has nothing else to do. What touches the ledger's connection runs where `between` puts it, a slice at a time.
// The copy is the ledger as of the moment when its last page was taken: what is committed meanwhile goes into both.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/operator_access.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

// Runs the work on the thread that owns the store, outside of transactions, and waits for it.
using Between = absl::FunctionRef<absl::Status(absl::FunctionRef<absl::Status(SqliteStore&)>)>;

// Copies, syncs, checks the copy, and only then gives it its name. The file has mode 0600 from its first byte on. When
// anything fails, nothing is left but the ledger as it was; the text of the status is one line for the operator. A
// process that dies meanwhile leaves a file PATH.partial-XXXXXXXX, which is nothing.
absl::StatusOr<BackupReport> BackUp(Between between, const BackupOptions& options);

// Reads all of the file and changes nothing: is it a whole ledger that this program can use, are its pages, indexes and
// counters sound? A file with a write-ahead log beside it is refused: it is in use, or was not closed.
absl::StatusOr<CopyReport> CheckCopy(
    const std::string& path, std::function<bool()> cancelled = [] { return false; });

}  // namespace userintent::ledger
