// `userintent-ledger copy`: a ledger in a file becomes the ledger of a database, while no server runs. Blocks; one
// thread.
//
// At no moment can both be served. In this order: everything is written into the database in one transaction, read back
// and compared; the file is marked, durably, so that no start takes it; the transaction is committed; the mark is
// completed. Cut off before the mark, nothing has happened. Cut off after it, the same command ends what it began: it
// looks whether the database holds that very copy.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ledger/content.h"

namespace userintent::admin {

struct CopyResult {
  // It was all there, by a copy that was cut off; the rest says nothing then.
  bool was_there = false;
  size_t recovered = 0;     // requests that a dead process had under way, and that are unknown now
  bool log_goes_on = true;  // false: resume tokens of the time before are too old
  std::vector<ledger::PartSum> sums;
};

// Every refusal is one line.
absl::StatusOr<CopyResult> CopyLedger(const std::string& path, const std::string& url);

// Takes the mark off the file again, where the database holds nothing.
absl::Status UndoCopy(const std::string& path, const std::string& url);

}  // namespace userintent::admin
