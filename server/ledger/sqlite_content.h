// ledger::SqliteContent: everything that a SqliteStore holds, and the mark that it was copied elsewhere.
// Single-threaded, like the store; outside its transactions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/ledger/content.h"
#include "server/ledger/moved.h"
#include "server/ledger/sqlite_store.h"

namespace userintent::ledger {

class SqliteContent final : public Content {
 public:
  // `store` outlives this, and has the present schema.
  explicit SqliteContent(SqliteStore& store) : store_(store), connection_(store.connection_) {}

  absl::StatusOr<Life> GetLife() override;
  absl::StatusOr<std::vector<LedgerKey>> Keys() override { return store_.Keys(); }
  absl::Status Rows(Each<Row> each) override;
  absl::Status Addresses(Each<AddressAttempts> each) override;
  absl::Status Audit(Each<AuditEntry> each) override;
  absl::Status Conflicts(Each<Conflict> each) override;
  absl::Status Webhooks(Each<KeptWebhook> each) override;
  absl::Status Periods(Each<ReceiverPeriod> each) override;
  absl::Status Restores(Each<Restored> each) override;
  absl::Status Changes(Each<LoggedChange> each) override;

  // The mark of moved.h. SetMoved also makes the ledger newer than every copy of it, and is durable, in the file
  // without its log, when it returns OK. Nothing: the file may be served again.
  absl::StatusOr<std::optional<Moved>> GetMoved() { return ReadMoved(connection_); }
  absl::Status SetMoved(const std::optional<Moved>& moved);
  static absl::StatusOr<std::optional<Moved>> ReadMoved(SqliteConnection& connection);

 private:
  SqliteStore& store_;
  SqliteConnection& connection_;
};

}  // namespace userintent::ledger
