// ledger::MemoryWebhooks: the webhooks of a MemoryStore, which owns it and tells it of its transactions. Copyable like
// that one. Single-threaded.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/ledger/webhook_store.h"

namespace userintent::ledger {

class MemoryWebhooks final : public WebhookStore {
 public:
  absl::StatusOr<Standing> StandingOf(const std::string& id) override;
  absl::StatusOr<size_t> Waiting() override { return waiting_; }
  absl::Status Add(const Webhook& webhook) override;
  absl::StatusOr<WebhookQueue::NextAnswer> Next(absl::Time now, size_t limit) override;
  absl::Status End(const WebhookQueue::EndRequest& request) override;
  absl::Status ReceiverAlive(absl::Time now) override;
  absl::StatusOr<size_t> ForgetWebhooks(absl::Time before, size_t limit) override;

  void Commit();
  void Rollback();

  // For tests.
  struct Entry {
    Webhook webhook;
    std::optional<absl::Time> due;  // nothing: done
    int tries = 0;
    std::string result;
  };
  struct Period {
    absl::Time began, until;
  };
  const std::map<std::string, Entry>& all() const { return entries_; }
  const std::vector<Period>& periods() const { return periods_; }

 private:
  void Set(const std::string& id, std::optional<Entry> entry);

  std::map<std::string, Entry> entries_;
  size_t waiting_ = 0;
  std::vector<Period> periods_;
  // Of the open transaction.
  std::vector<std::pair<std::string, std::optional<Entry>>> undo_;
  std::optional<std::vector<Period>> periods_before_;
};

}  // namespace userintent::ledger
