// Small questions about files, and how a refusal of the system is told. Any thread.
#pragma once

#include <sys/stat.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"

namespace userintent::ledger {

// A file that is there and not empty; links are followed.
inline bool HoldsBytes(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && status.st_size > 0;
}

// The last call of the system failed while `doing` something to the file.
inline absl::Status Unable(const std::string& path, const char* doing) {
  return absl::UnavailableError(absl::StrCat(path, ": cannot ", doing, ": ", ErrnoText()));
}

}  // namespace userintent::ledger
