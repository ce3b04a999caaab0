// What userintent-ledger asks its operator for, apart from the command line: a yes, an e-mail address, the ledger's
// keys. Single-threaded; blocks as long as a person thinks. Questions go to stderr, so that stdout holds answers alone.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/intent/fingerprint.h"

namespace userintent::admin {

// Whether a person can be asked: stdin is a terminal.
bool OnTerminal();

// Shows the text and waits for a line. OK for "yes", kCancelled for everything else.
absl::Status AskForYes(std::string_view text);

// One line of stdin. The text of a refusal never holds what was read.
absl::StatusOr<std::string> ReadEmail();

// A fingerprinter with the key in the file, and with those in the files before it (separated by commas, may be empty).
absl::StatusOr<std::unique_ptr<const intent::Fingerprinter>> ReadKeys(const std::string& current,
                                                                      const std::string& previous);

}  // namespace userintent::admin
