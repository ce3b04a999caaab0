// Reads a secret from a file. Stateless; any thread. Blocks for as long as reading a small local file takes.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/base/secret.h"

namespace userintent {

// The content of the file at `path` without one trailing newline (\n or \r\n). Symbolic links are followed. Refuses a
// file that is not regular, that others may read, that its group or others may write, that belongs to another user than
// root and the process's own, that is empty (with or without the newline) or larger than 64 KiB.
//
// `what` names the setting that gave the path, for example "--astra_client_id_file"; error texts hold it and the
// reason. They hold neither content nor path: an operator may have put the secret itself where the path belongs.
absl::StatusOr<Secret> ReadSecretFile(const std::string& path, std::string_view what);

// The same for a key of the ledger's hashes, of which the file must hold 32 or more bytes. The newline counts there:
// one random key in 256 ends in that byte.
absl::StatusOr<Secret> ReadLedgerKey(const std::string& path, std::string_view what);

}  // namespace userintent
