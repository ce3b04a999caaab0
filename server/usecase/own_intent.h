// Reading one of the caller's own intents: the part that GetUserIntent and GetAuthorizationUrl have in common. From the
// record where that is fresh enough, else from Astra.
//
// On a shard's thread. The call holds no place of the admission control, and writes nothing but the reading.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/intent/rules.h"
#include "server/ledger/ledger.h"
#include "server/usecase/call.h"
#include "server/usecase/intent_reads.h"

namespace userintent::usecase {

// What a shard's reads use; outlives them.
struct ReadDependencies {
  ledger::Ledger& ledger;
  IntentReads& reads;
  IntentReads::Shard shard;
  SteadyClock::duration min_deadline;      // Astra is not asked with less time left
  absl::Time (*wall_clock)() = absl::Now;  // which the age of a reading is measured by
};

// Which intent a request names: the `key` of its message, by one of the two.
struct IntentKey {
  std::optional<Uuid> request_id;
  std::string user_intent_id;
};

// The key of a request that has such a oneof; where it breaks a rule, a violation more.
template <typename Request>
IntentKey KeyOf(const Request& request, std::vector<intent::Violation>* violations);

struct OwnIntentQuery {
  std::string caller;
  IntentKey key;
  absl::Duration max_age = absl::ZeroDuration();  // of an answer from the record; zero: ask Astra
  bool allow_stale = false;                       // the record instead of the error, where Astra cannot be asked
  SteadyTime deadline;
  std::optional<TraceContext> trace = std::nullopt;  // of the call
};

struct OwnIntent {
  std::shared_ptr<const ledger::Record> record;  // SUCCEEDED
  ledger::Reading reading;
  bool stale = false;
};

CallerLeft ReadOwnIntent(const ReadDependencies& dependencies, OwnIntentQuery query, Done<OwnIntent> done);

// Of KeyOf.
IntentKey KeyByRequestId(const std::string& request_id, std::vector<intent::Violation>* violations);
IntentKey KeyByIntentId(const std::string& user_intent_id, std::vector<intent::Violation>* violations);

template <typename Request>
IntentKey KeyOf(const Request& request, std::vector<intent::Violation>* violations) {
  if (request.has_request_id()) return KeyByRequestId(request.request_id(), violations);
  if (request.has_user_intent_id()) return KeyByIntentId(request.user_intent_id(), violations);
  violations->push_back({"key", "required: request_id or user_intent_id"});
  return {};
}

}  // namespace userintent::usecase
