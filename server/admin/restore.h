// `userintent-ledger restore`: a copy of a ledger takes the ledger's place. No server runs meanwhile. Blocks; one
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace userintent::admin {

struct RestoreResult {
  std::string kept_as;      // where the file that was there is now; empty: there was none
  int64_t rows = 0;         // requests in the copy
  int64_t last_change = 0;  // of the copy, Unix microseconds
  // The next start asks for --ledger_restored=last_change, because this directory served a newer one.
  bool must_be_acknowledged = false;
};

// Checks the copy as a whole before anything is touched: a ledger, of a schema that is known, undamaged to the last
// index, and of the key whose id is given. A log beside the copy (`COPY-wal`) is taken to be its own. Whatever was at
// the path is kept under another name, its log with it. Cut off at any moment, it leaves the old ledger, the new one,
// or none and a name that makes a start refuse; the status is one line.
absl::StatusOr<RestoreResult> Restore(const std::string& copy, const std::string& ledger,
                                      std::optional<uint64_t> key_id);

// Root works for the server's user, who must be able to open what it makes: gives the file at the path to the owner of
// the ledger, or of its directory.
absl::Status GiveAway(const std::string& path, const std::string& ledger);

}  // namespace userintent::admin
