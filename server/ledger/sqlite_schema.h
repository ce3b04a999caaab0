// The tables of a SQLite ledger, as a list of migrations. Constant; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace userintent::ledger {

struct Migration {
  int version;
  const char* sql;
};

// In the order in which they are applied, all that are due in one transaction. Never changed once released.
const std::vector<Migration>& Migrations();

// The present one.
int SchemaVersion();

// What is said of a ledger whose table `environment` has this name, where another one is in use.
std::string OfAnotherEnvironment(const std::string& name);

// What SQLite writes into the head of the file, to tell a ledger from other databases: "UILG".
inline constexpr int64_t kApplicationId = 0x55494c47;
// Instead, when it was copied into a database and is served there: "UILM". Servers from before that was possible take
// it for some other program's. See moved.h.
inline constexpr int64_t kMovedApplicationId = 0x55494c4d;

}  // namespace userintent::ledger
