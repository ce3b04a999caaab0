// The mark beside the ledger, `PATH.mark`: which ledger this directory last served, and how far. A start compares the
// ledger that it finds with it, so that a backup in the place of a newer ledger is noticed (docs/decisions/0008).
//
// The mark is written after the ledger's revision is durable, so it is never ahead of a good ledger, and in one step
// (a new file, synced, renamed), so it is never half. Functions without state; the ledger's owner calls them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace userintent::ledger {

// All in Unix microseconds; 0: none.
struct Mark {
  int64_t made_at = 0;       // SqliteStore::made_at: which ledger
  int64_t revision = 0;      // SqliteStore::revision: how far it was
  int64_t in_file = 0;       // as much of it was in the database file, without the log
  int64_t acknowledged = 0;  // the last --ledger_restored that was given; each counts once
  friend bool operator==(const Mark&, const Mark&) = default;
};

std::string MarkPath(const std::string& ledger);

// Nothing where there is none; an error where there is one that cannot be read or makes no sense.
absl::StatusOr<std::optional<Mark>> ReadMark(const std::string& ledger);

absl::Status WriteMark(const std::string& ledger, const Mark& mark);

// What a start found at the path.
struct Standing {
  int64_t made_at = 0;  // 0: no ledger
  int64_t revision = 0;
  int64_t last_change = 0;  // of a request, where there is no revision
};

enum class Comparison {
  kServed,   // as new as this directory ever served, or newer
  kNoMark,   // nothing to compare with, though this ledger had a mark once
  kBadMark,  // nothing to compare with
  kOlder,    // the same ledger, but an older copy
  kOther,    // this directory served another ledger, or one that is gone
};

Comparison Compare(const Standing& standing, const absl::StatusOr<std::optional<Mark>>& mark);

// For kOlder and kOther: whether --ledger_restored names this loss. It must not be before the last change of what was
// found, to the second, nor in the future, and must not have been given at an earlier start: so a flag that is left
// in place does not acknowledge the next restore. Otherwise the status is what the operator reads.
absl::Status Acknowledges(std::optional<absl::Time> restored, const std::string& ledger, const Standing& standing,
                          const Mark& mark, absl::Time now);

// As --ledger_restored takes it: RFC 3339, UTC, whole seconds.
std::string TimeText(int64_t micros);

}  // namespace userintent::ledger
