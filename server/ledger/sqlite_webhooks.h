// ledger::SqliteWebhooks: the webhooks of a SqliteStore, which owns it, lends it its connection, and tells it of its
// transactions. Statements are made for each use: webhooks are few beside calls. Single-threaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "server/ledger/inspector.h"
#include "server/ledger/sqlite_connection.h"
#include "server/ledger/webhook_store.h"

namespace userintent::ledger {

class SqliteWebhooks final : public WebhookStore {
 public:
  // `connection` outlives this.
  explicit SqliteWebhooks(SqliteConnection& connection) : connection_(connection) {}

  absl::StatusOr<Standing> StandingOf(const std::string& id) override;
  absl::StatusOr<size_t> Waiting() override;
  absl::Status Add(const Webhook& webhook) override;
  absl::StatusOr<WebhookQueue::NextAnswer> Next(absl::Time now, size_t limit) override;
  absl::Status End(const WebhookQueue::EndRequest& request) override;
  absl::Status ReceiverAlive(absl::Time now) override;
  absl::StatusOr<size_t> ForgetWebhooks(absl::Time before, size_t limit) override;

  // See Inspector::EvidenceOf.
  absl::StatusOr<WebhookEvidence> EvidenceOf(const Uuid& attempt_id, absl::Time since, absl::Time now);

  void Rollback() { waiting_.reset(); }

 private:
  absl::Status AddNaming(const Uuid& attempt_id, absl::Time since, WebhookEvidence& evidence);
  absl::Status AddOthers(absl::Time since, WebhookEvidence& evidence);
  absl::Status AddPeriod(absl::Time now, WebhookEvidence& evidence);

  SqliteConnection& connection_;
  std::optional<size_t> waiting_;  // as the open transaction has it; nothing: to be counted
};

}  // namespace userintent::ledger
