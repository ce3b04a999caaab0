#include "server/ledger/memory_webhooks.h"

#include <algorithm>
#include <tuple>

namespace userintent::ledger {

void MemoryWebhooks::Set(const std::string& id, std::optional<Entry> entry) {
  const auto at = entries_.find(id);
  std::optional<Entry> before;
  if (at != entries_.end()) before = at->second;
  waiting_ += entry && entry->due ? 1 : 0;
  waiting_ -= before && before->due ? 1 : 0;
  undo_.emplace_back(id, std::move(before));
  if (entry) {
    entries_.insert_or_assign(id, *std::move(entry));
  } else if (at != entries_.end()) {
    entries_.erase(at);
  }
}

void MemoryWebhooks::Commit() {
  undo_.clear();
  periods_before_.reset();
}

void MemoryWebhooks::Rollback() {
  const auto undo = std::exchange(undo_, {});
  for (auto it = undo.rbegin(); it != undo.rend(); ++it) Set(it->first, it->second);
  undo_.clear();
  if (periods_before_) periods_ = *std::exchange(periods_before_, std::nullopt);
}

absl::StatusOr<WebhookStore::Standing> MemoryWebhooks::StandingOf(const std::string& id) {
  const auto at = entries_.find(id);
  if (at == entries_.end()) return Standing::kNew;
  return at->second.due ? Standing::kWaits : Standing::kDone;
}

absl::Status MemoryWebhooks::Add(const Webhook& webhook) {
  Set(webhook.id, Entry{webhook, webhook.received, 0, ""});
  return absl::OkStatus();
}

absl::StatusOr<WebhookQueue::NextAnswer> MemoryWebhooks::Next(absl::Time now, size_t limit) {
  std::vector<const Entry*> waiting;
  WebhookQueue::NextAnswer answer;
  for (const auto& [id, entry] : entries_) {
    if (!entry.due) continue;
    waiting.push_back(&entry);
    answer.oldest = std::min(answer.oldest, entry.webhook.received);
  }
  std::sort(waiting.begin(), waiting.end(), [](const Entry* a, const Entry* b) {
    return std::tie(*a->due, a->webhook.received, a->webhook.id) <
           std::tie(*b->due, b->webhook.received, b->webhook.id);
  });
  answer.available = true;
  answer.waiting = waiting.size();
  for (const Entry* entry : waiting) {
    if (*entry->due > now || answer.due.size() == limit) {
      answer.next = entry->due;
      break;
    }
    answer.due.push_back({entry->webhook, entry->tries});
  }
  return answer;
}

absl::Status MemoryWebhooks::End(const WebhookQueue::EndRequest& request) {
  const auto at = entries_.find(request.id);
  if (at == entries_.end() || !at->second.due) return absl::OkStatus();
  Entry entry = at->second;
  entry.due = request.again;
  entry.tries += request.again ? 1 : 0;
  entry.result = request.result;
  Set(request.id, std::move(entry));
  return absl::OkStatus();
}

absl::Status MemoryWebhooks::ReceiverAlive(absl::Time now) {
  if (!periods_before_) periods_before_ = periods_;
  if (!periods_.empty() && absl::AbsDuration(now - periods_.back().until) <= kReceiverGap) {
    periods_.back().until = std::max(periods_.back().until, now);
  } else {
    periods_.push_back({now, now});
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> MemoryWebhooks::ForgetWebhooks(absl::Time before, size_t limit) {
  std::vector<std::pair<absl::Time, std::string>> old;
  for (const auto& [id, entry] : entries_) {
    if (!entry.due && entry.webhook.received < before) old.emplace_back(entry.webhook.received, id);
  }
  std::sort(old.begin(), old.end());
  old.resize(std::min(old.size(), limit));
  for (const auto& [received, id] : old) Set(id, std::nullopt);
  if (!periods_before_) periods_before_ = periods_;
  std::erase_if(periods_, [before](const Period& period) { return period.until < before; });
  return old.size();
}

}  // namespace userintent::ledger
