// ledger::KeepCopy: before a ledger is brought to a schema from which there is no way back, a copy of it as it was.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

// Does nothing for a ledger without requests, or one that is past that schema. Otherwise copies it, as a backup does,
// and makes sure that the disk has room for what follows; a line for the log says where the copy is. Blocks for as long
// as a disk takes to read and to write the ledger. Under the lock of the ledger's place, while nobody has it open.
absl::Status KeepCopy(const SqliteStoreOptions& options, const std::function<void(const std::string&)>& warn);

// Where the copy is. It is an operator's to remove.
std::string CopyBeforeMigrationPath(const std::string& ledger);

}  // namespace userintent::ledger
