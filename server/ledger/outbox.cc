#include "server/ledger/outbox.h"

#include <algorithm>

#include "server/ledger/execute.h"

namespace userintent::ledger {

bool Outbox::Add(const FinishRequest& outcome) { return outcomes_.emplace(outcome.key, outcome).second; }

bool Outbox::Correct(Record& record) const {
  if (record.state != State::kSending) return false;
  const auto waiting = outcomes_.find(record.key);
  if (waiting == outcomes_.end()) return false;
  record.state = State::kUnknown;
  record.sent = std::max({record.sent, waiting->second.sent, Sent::kMaybe});
  record.reason = unknown_reason_;
  record.updated = waiting->second.now;
  return true;
}

absl::Status Outbox::WriteTo(Store& store) const {
  for (const auto& [key, outcome] : outcomes_) {
    const absl::StatusOr<FinishAnswer> answer = Execute(store, outcome);
    if (!answer.ok() && !IsRefusal(answer.status())) return answer.status();
  }
  return absl::OkStatus();
}

}  // namespace userintent::ledger
