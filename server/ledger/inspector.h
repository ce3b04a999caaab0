// ledger::Inspector: what operators read of a ledger. Shows no SQL; every kind of ledger that operators look into
// implements it.
//
// Used like a Store: from the thread that owns the store, inside a transaction. Each call touches as many rows as it
// answers, or a slice, because every call of the gateway waits meanwhile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"
#include "server/ledger/webhook_queue.h"

namespace userintent::ledger {

// A key that is, or was, in use; `id` is Fingerprints::key_id.
struct LedgerKey {
  uint64_t id = 0;
  absl::Time since = absl::InfinitePast();
  std::optional<absl::Time> until;  // nothing: the current one
};

// What an operator may read of a key's id: the first 8 of its 16 hexadecimal digits.
std::string KeyName(uint64_t key_id);

// What is in a ledger, taken in slices. See Inspector::Add.
struct Totals {
  std::map<uint64_t, int64_t> requests_by_key;
  std::array<int64_t, 6> requests{};  // by the number of their state
  int64_t addresses = 0;
  int64_t addresses_at_limit = 0;  // with as many attempts surely used
  bool done = false;
  int64_t last_request = 0;  // where the next slice begins
  int64_t last_address = 0;
};

// What webhooks have to say about one request. Shown to operators, never acted on: that no webhook came is no proof
// that nothing was created.
struct WebhookEvidence {
  struct Naming {
    Webhook webhook;
    std::string result;  // what came of it so far; empty: nothing yet
    bool waits = false;  // for another look
  };
  std::vector<Naming> naming;  // that name its attempt id; the newest first, at most kNamingShown
  int64_t naming_all = 0;
  // Others that were received since the request was begun, and the part of them that name no attempt at all, so that
  // one may be this request's; counted up to kNamelessCounted.
  int64_t others = 0;
  int64_t nameless = 0;
  // The last period in which webhooks could be received; InfinitePast: there was none.
  absl::Time receiver_began = absl::InfinitePast();
  absl::Time receiver_until = absl::InfinitePast();
  bool receiver_up = false;                            // it lasts
  absl::Time forgotten_before = absl::InfinitePast();  // webhooks that were received earlier are not kept
};
inline constexpr int64_t kNamingShown = 10;
inline constexpr int64_t kNamelessCounted = 1000;

class Inspector {
 public:
  virtual ~Inspector() = default;

  // The rows with this id, of every caller.
  virtual absl::StatusOr<std::vector<Row>> WithId(const Uuid& request_id) = 0;
  // The rows that are SENDING, or UNKNOWN, and were created before that time; the oldest first.
  virtual absl::StatusOr<std::vector<Row>> Oldest(State state, absl::Time created_before, bool not_superseded,
                                                  size_t limit) = 0;
  // Of an address, under all of its digests; zeros where it was never seen.
  virtual absl::StatusOr<Counters> Count(const std::vector<Digest>& emails) = 0;
  // Of the rows with these addresses, the ones among the `slice` rows after `last`, in the order of arrival; sets
  // `last` to where the next slice begins. Call it until it returns false.
  virtual absl::StatusOr<bool> AddOfAddresses(const std::vector<Digest>& emails, int64_t slice, int64_t& last,
                                              std::vector<Row>& rows) = 0;
  // The last entries, of one request or of all; the newest first.
  virtual absl::StatusOr<std::vector<AuditEntry>> Audit(const std::optional<Uuid>& request_id, size_t limit) = 0;
  virtual absl::StatusOr<int64_t> AuditEntries() = 0;
  // The last proofs that contradicted what was recorded, of one request or of all; the newest first.
  virtual absl::StatusOr<std::vector<Conflict>> Conflicts(const std::optional<Uuid>& request_id, size_t limit) = 0;
  // Adds the next `slice` rows and addresses. Call it until `done`; what changes meanwhile may be missed.
  virtual absl::Status Add(int attempt_limit, int64_t slice, Totals& totals) = 0;
  // The keys that rows may be under, the current one first, then the last one first.
  virtual absl::StatusOr<std::vector<LedgerKey>> Keys() = 0;
  virtual absl::StatusOr<bool> HasRowsUnder(uint64_t key_id) = 0;
  // What webhooks say of the row, whose last POST `record` names.
  virtual absl::StatusOr<WebhookEvidence> EvidenceOf(const Record& record, absl::Time now) = 0;
  virtual int64_t callers() const = 0;
  virtual int schema_version() const = 0;  // as found when the ledger was opened, or as it was brought up to date
};

}  // namespace userintent::ledger
