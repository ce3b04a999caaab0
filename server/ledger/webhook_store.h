// ledger::WebhookStore: the part of a Store that keeps webhooks. It keeps; the operations decide.
//
// Used like the Store that it belongs to, and within that one's transactions.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/ledger/webhook_queue.h"

namespace userintent::ledger {

// A gap of more than this between two signs of life ends a receiver's period.
inline constexpr absl::Duration kReceiverGap = absl::Seconds(30);

// So long after they were received, webhooks that are done are forgotten.
inline constexpr absl::Duration kWebhooksKept = absl::Hours(30 * 24);

class WebhookStore {
 public:
  enum class Standing { kNew, kWaits, kDone };

  virtual ~WebhookStore() = default;

  virtual absl::StatusOr<Standing> StandingOf(const std::string& id) = 0;
  virtual absl::StatusOr<size_t> Waiting() = 0;
  // One that is new. It is due from `received` on.
  virtual absl::Status Add(const Webhook& webhook) = 0;
  virtual absl::StatusOr<WebhookQueue::NextAnswer> Next(absl::Time now, size_t limit) = 0;
  // Changes only one that waits.
  virtual absl::Status End(const WebhookQueue::EndRequest& request) = 0;
  // Goes on with the last period, or begins one. A clock that was set back by more than the gap begins one, too.
  virtual absl::Status ReceiverAlive(absl::Time now) = 0;
  // Forgets up to `limit` of the done ones that were received before that time, the oldest first, and of the periods
  // that ended before it. Returns how many webhooks.
  virtual absl::StatusOr<size_t> ForgetWebhooks(absl::Time before, size_t limit) = 0;
};

}  // namespace userintent::ledger
