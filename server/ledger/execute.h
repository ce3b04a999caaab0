// ledger::Execute: one operation done to a Store: Load, Decide, Apply. Opens no transaction: the caller brackets one or
// many operations. A status other than OK means that the store failed (the caller rolls back), unless IsRefusal: the
// request was refused, and nothing was written.
//
// Single-threaded, like the Store.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/decide.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"

namespace userintent::ledger {

absl::StatusOr<BeginAnswer> Execute(Store& store, const BeginRequest& request, const Rules& rules = kRules);
absl::StatusOr<FinishAnswer> Execute(Store& store, const FinishRequest& request, const Rules& rules = kRules);
absl::Status Execute(Store& store, const NextAttemptRequest& request);
absl::StatusOr<GetAnswer> Execute(Store& store, const GetRequest& request);
absl::Status Execute(Store& store, const ReadingRequest& request);
absl::StatusOr<SettleAnswer> Execute(Store& store, const SettleRequest& request, const Rules& rules = kRules);
absl::StatusOr<ResolveAnswer> Execute(Store& store, const ResolveRequest& request, const Rules& rules = kRules);
// How many rows. Call it at start until it returns 0.
absl::StatusOr<size_t> Execute(Store& store, const RecoverRequest& request, const Rules& rules = kRules);
absl::StatusOr<PurgeAnswer> Execute(Store& store, const PurgeRequest& request, const Rules& rules = kRules);

// A slice of what is asked for; read only.
absl::StatusOr<TraceAnswer> Execute(Store& store, const TraceRequest& request);
absl::StatusOr<SucceededAnswer> Execute(Store& store, const SucceededRequest& request);
absl::StatusOr<ChangeFeed::Answer> Execute(Store& store, const ChangeFeed::Request& request);
absl::StatusOr<UnresolvedAnswer> Execute(Store& store, const UnresolvedRequest& request);

// True for the statuses that blame the request and not the store.
bool IsRefusal(const absl::Status& status);

}  // namespace userintent::ledger
