// ledger::OperatorAccess: the ledger as an operator's work gets at it: in a transaction, or as a copy. Implemented by
// the ledger of a running server, and by the tool on a file that it opened.
//
// Each call blocks until the work is done; never from a shard's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/inspector.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

// What is in a copy that was found good.
struct CopyReport {
  int64_t bytes = 0;
  int schema_version = 0;
  Totals totals;
  int64_t audit_entries = 0;
  uint64_t key_id = 0;                            // of the key that was in use
  absl::Time last_change = absl::InfinitePast();  // of any request
};

struct BackupReport {
  CopyReport copy;
  absl::Duration took;
  absl::Duration longest_slice;  // so long no batch of the ledger ran, at most
};

struct BackupOptions {
  std::string path;  // absolute; nothing may be there
  // Pages of 4 KiB that are copied while commits wait.
  int slice_pages = 128;
  // As much stays free on the disk of the copy: it may be the ledger's own, which stops admitting below this.
  int64_t min_free_bytes = 128 << 20;
  // Asked between two slices, and during the check.
  std::function<bool()> cancelled = [] { return false; };
  const char* vfs = nullptr;  // for tests: of the copy
};

class OperatorAccess {
 public:
  // What it reads through the inspector and executes on the store is one transaction.
  using Work = absl::FunctionRef<absl::Status(Store& store, Inspector& inspector)>;

  virtual ~OperatorAccess() = default;

  // Runs the work in a transaction of its own. Work that reads much does so in slices, a call each, because every call
  // of the gateway waits meanwhile.
  virtual absl::Status Transact(Work work) = 0;
  // See ledger::BackUp.
  virtual absl::StatusOr<BackupReport> BackUp(const BackupOptions& options) = 0;
};

}  // namespace userintent::ledger
