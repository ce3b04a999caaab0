// postgres::Content: everything that a ledger in PostgreSQL holds. Inside a transaction that its owner opened, because
// each part is read by a cursor. Single-threaded, like the connection.
#pragma once

#include <vector>

#include "server/ledger/content.h"
#include "server/postgres/connection.h"

namespace userintent::postgres {

class Content final : public ledger::Content {
 public:
  // `connection` outlives this.
  explicit Content(Connection& connection) : connection_(connection) {}

  absl::StatusOr<ledger::Life> GetLife() override;
  absl::StatusOr<std::vector<ledger::LedgerKey>> Keys() override;
  absl::Status Rows(Each<ledger::Row> each) override;
  absl::Status Addresses(Each<ledger::AddressAttempts> each) override;
  absl::Status Audit(Each<ledger::AuditEntry> each) override;
  absl::Status Conflicts(Each<ledger::Conflict> each) override;
  absl::Status Webhooks(Each<ledger::KeptWebhook> each) override;
  absl::Status Periods(Each<ledger::ReceiverPeriod> each) override;
  absl::Status Restores(Each<ledger::Restored> each) override;
  absl::Status Changes(Each<ledger::LoggedChange> each) override;

 private:
  Connection& connection_;
};

}  // namespace userintent::postgres
