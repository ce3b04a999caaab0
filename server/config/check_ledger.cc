// The flags that say where requests are recorded.
#include <sys/stat.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/text.h"
#include "server/config/check.h"
#include "server/postgres/url.h"

namespace userintent::config {
namespace {

absl::Status CheckLedgerPath(const std::string& path) {
  if (path.empty() || path.back() == '/') return Problem("ledger", "sqlite: needs the path of a file");
  // SQLite's own words for databases that vanish, and its URIs with options that would undo durability.
  if (path.front() == ':' || path.substr(0, 5) == "file:") {
    return Problem("ledger", "sqlite: needs a plain path; a ledger that forgets is called memory:");
  }
  if (HasControlCharacter(path)) return Problem("ledger", "the path holds control characters");
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Problem("ledger", "the path is not a regular file");
  }
  return absl::OkStatus();
}

// Whether a ledger must be there, and is a backup.
void CheckLedgersLife(const Settings& settings, Problems& problems) {
  const bool sqlite = settings.ledger.kind == LedgerLocation::Kind::kSqlite;
  struct stat info {};
  const bool there = sqlite && stat(settings.ledger.path.c_str(), &info) == 0;
  if (there && info.st_size == 0) problems.Add("ledger", "the file holds 0 bytes, so what it held is lost");
  if (settings.ledger_must_exist && !sqlite) {
    problems.Add("ledger_must_exist", "needs --ledger=sqlite:PATH");
  } else if (settings.ledger_must_exist && !there) {
    problems.Add("ledger_must_exist", "there is no ledger at the path");
  }
  if (!settings.ledger_restored) return;
  const absl::Time time = *settings.ledger_restored;
  if (!sqlite) {
    problems.Add("ledger_restored", "needs --ledger=sqlite:PATH");
  } else if (time <= absl::UnixEpoch() || time > absl::Now() + absl::Minutes(1)) {
    problems.Add("ledger_restored", "must be the time of a backup, and not in the future");
  }
}

// The bounds between which a wrong lease costs an operator's time and never a second POST (postgres::TakersWatch).
void CheckPostgresql(const Settings& settings, Problems& problems) {
  if (absl::Status s = postgres::CheckUrl(settings.ledger.url); !s.ok()) {
    problems.Add("ledger", std::string(s.message()));
  }
  if (settings.ledger_lease < absl::Seconds(2) || settings.ledger_lease > absl::Seconds(60)) {
    problems.Add("ledger_lease", "must be from 2s to 60s");
  } else if (settings.ledger_fence < settings.ledger_lease + absl::Seconds(3) ||
             settings.ledger_fence > absl::Minutes(10)) {
    problems.Add("ledger_fence", "must be at least 3s more than --ledger_lease, and at most 10m");
  }
  if (settings.replica_name.size() > 128 || HasControlCharacter(settings.replica_name)) {
    problems.Add("replica_name", "must have at most 128 bytes, without control characters");
  }
}

}  // namespace

void CheckLedger(const Settings& settings, Problems& problems) {
  switch (settings.ledger.kind) {
    case LedgerLocation::Kind::kPostgresql:
      CheckPostgresql(settings, problems);
      break;
    case LedgerLocation::Kind::kMemory:
      break;
    case LedgerLocation::Kind::kSqlite:
      problems.Add(CheckLedgerPath(settings.ledger.path));
      break;
  }
  CheckLedgersLife(settings, problems);
  if (settings.ledger.kind != LedgerLocation::Kind::kPostgresql) {
    for (const auto& [name, given] : {std::pair("ledger_migrate", settings.ledger_migrate),
                                      std::pair("ledger_single_node", settings.ledger_single_node)}) {
      if (given) problems.Add(name, "needs --ledger=postgresql://...");
    }
  }
  // Not so long that the clock cannot count back.
  constexpr absl::Duration kMost = absl::Hours(36525 * 24);
  if (settings.released_retention < absl::Hours(24) || settings.released_retention > kMost) {
    problems.Add("released_retention", "must be from 24h to 876600h");
  }
  if (settings.retention == absl::ZeroDuration()) return;
  // Callers may repeat an id for as long.
  constexpr absl::Duration kLeast = absl::Hours(396 * 24);
  if (settings.retention < kLeast || settings.retention > kMost) {
    problems.Add("retention", "must be 0, or from 9504h (13 months) to 876600h");
  }
  if (settings.ledger.kind == LedgerLocation::Kind::kMemory) {
    problems.Add("retention", "needs --ledger=sqlite:PATH or postgresql://...");
  }
}

}  // namespace userintent::config
