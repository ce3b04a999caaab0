// ledger::Content: all that a ledger holds, part by part, in the words of the domain: what a copy into another kind of
// ledger takes along. Shows no SQL and no table.
//
// Single-threaded; while it is read nobody else changes the ledger. Each part is told from its beginning, one thing at
// a time, so that memory stays bounded. What the visitor refuses ends the telling.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/inspector.h"
#include "server/ledger/ledger.h"
#include "server/ledger/restored.h"
#include "server/ledger/store.h"
#include "server/ledger/webhook_queue.h"

namespace userintent::ledger {

// The attempts of one address, and the part of them whose requests were forgotten.
struct AddressAttempts {
  Digest email{};
  Counters all;
  Counters purged;
};

struct KeptWebhook {
  Webhook webhook;
  std::optional<absl::Time> due;  // nothing: it is done
  int tries = 0;
  std::string result;  // what came of it so far
};

// When webhooks could be received.
struct ReceiverPeriod {
  absl::Time began;
  absl::Time until;
};

// An entry of the change log. Without a key: its row was forgotten, or there never was one.
struct LoggedChange {
  int64_t revision = 0;
  std::optional<Key> key;
};

// Which ledger it is.
struct Life {
  int64_t made_at = 0;       // Unix microseconds; resume tokens are bound to it
  std::string environment;   // Astra's; empty: no start could tell
  int64_t forgotten_to = 0;  // the change log holds what came after this revision,
  int64_t logged = 0;        // and ends with this one
};

class Content {
 public:
  template <typename T>
  using Each = absl::FunctionRef<absl::Status(const T&)>;

  virtual ~Content() = default;

  virtual absl::StatusOr<Life> GetLife() = 0;
  virtual absl::StatusOr<std::vector<LedgerKey>> Keys() = 0;
  // In the order of arrival. Row::handle is this ledger's own and means nothing elsewhere.
  virtual absl::Status Rows(Each<Row> each) = 0;
  // In any order. One without any attempt may be left out: it is as if it was never seen.
  virtual absl::Status Addresses(Each<AddressAttempts> each) = 0;
  // In the order of their coming, each part.
  virtual absl::Status Audit(Each<AuditEntry> each) = 0;
  virtual absl::Status Conflicts(Each<Conflict> each) = 0;
  virtual absl::Status Webhooks(Each<KeptWebhook> each) = 0;
  virtual absl::Status Periods(Each<ReceiverPeriod> each) = 0;
  virtual absl::Status Restores(Each<Restored> each) = 0;
  virtual absl::Status Changes(Each<LoggedChange> each) = 0;
};

// How much of one part there is, and a digest of all of it: of every column, and of the order where there is one.
struct PartSum {
  std::string part;
  int64_t count = 0;
  std::string digest;  // hexadecimal
  friend bool operator==(const PartSum&, const PartSum&) = default;
};

// Of every part, the ledger's life among them; always the same parts in the same order.
absl::StatusOr<std::vector<PartSum>> SumsOf(Content& content);

}  // namespace userintent::ledger
