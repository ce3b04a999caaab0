// Why a ledger is not opened, in one clear line. Stateless; any thread.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace userintent::ledger {

// "ledger PATH: WHY"
inline absl::Status RefuseLedger(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("ledger ", path, ": ", why));
}

}  // namespace userintent::ledger
