// That a ledger in a file was copied into a database and is served there: a mark inside the file itself, which makes
// every start refuse it, an older server's too. Pure values; the mark is SqliteContent's to write.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/base/uuid.h"

namespace userintent::ledger {

struct Moved {
  std::string place;     // for people: host and database
  std::string database;  // which database that is, by its own word
  Uuid copy{};           // the copy that was made last; the database holds the same, once it holds anything
  absl::Time began;
  // When the database had confirmed everything. Nothing: nobody knows whether it has.
  std::optional<absl::Time> done;
};

// Why a start refuses the file, and what to do; without its path.
std::string WhyRefused(const Moved& moved);

}  // namespace userintent::ledger
