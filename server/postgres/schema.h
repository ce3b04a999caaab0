// The schema of a ledger in PostgreSQL, version by version.
//
// A released version is never changed. Each one is applied in a transaction of its own, and must leave room for
// replicas of the version before, which may run beside it: it adds, and what they do not know has a default.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/postgres/connection.h"

namespace userintent::postgres {

// Held in a transaction by everybody who joins the ledger, or fills it.
inline constexpr char kJoinLock[] = "SELECT pg_advisory_xact_lock(7308604759763838566)";

int SchemaVersion();

// The version that the database has; 0: there is no ledger yet.
absl::StatusOr<int> VersionOf(Connection& connection);

// Brings the database to SchemaVersion(), one version after the other; who else does so at the same time waits. Where
// it has that version, or a newer one, nothing happens.
absl::Status Migrate(Connection& connection);

}  // namespace userintent::postgres
