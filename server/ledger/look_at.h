// LookAt: whether a server could begin on a ledger, told without changing anything: for --check_config.
//
// Blocks for as long as a few reads of a local file take. Any thread, but not in a process that has the ledger open.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace userintent::ledger {

// `keys`: Fingerprints::key_id of the current key and of each previous one. `environment`: as in SqliteStoreOptions.
// Refused: a directory that cannot be made or written or that others may write, a file that is no ledger, one of a
// newer schema, one made with none of the keys, one of another environment. A ledger that a running server uses is
// fine, and is not opened.
//
// While it looks (milliseconds) it holds the ledger's lock, if there is a lock file, so that no server starts under it.
absl::Status LookAt(const std::string& path, const std::vector<uint64_t>& keys, const std::string& environment = "");

}  // namespace userintent::ledger
