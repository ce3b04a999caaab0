// What a Store in PostgreSQL is asked that no decision follows: which rows something speaks of, and what succeeded.
//
// Each is one slice, in a snapshot of its own, on the store's connection and thread. Rows lie in the order of `id`,
// which is nearly that of their coming: replicas give out numbers before they commit.
#pragma once

#include "absl/status/statusor.h"
#include "server/ledger/ledger.h"

namespace userintent::postgres {

class Connection;

// See Store::Trace. At most three round trips.
absl::StatusOr<ledger::TraceAnswer> Trace(Connection& connection, const ledger::TraceRequest& request);

// See Store::Unresolved. One round trip.
absl::StatusOr<ledger::UnresolvedAnswer> Unresolved(Connection& connection);

// See Store::Succeeded. One round trip; about 25 more where cursor is 0, because there is no index by time.
absl::StatusOr<ledger::SucceededAnswer> Succeeded(Connection& connection, const ledger::SucceededRequest& request);

}  // namespace userintent::postgres
