// ledger::WebhookQueue: the webhooks that Astra sent, from the moment they are durable until something came of them
// (contract section 8). A webhook is a hint to look, never the word about a status.
//
// Asynchronous like a Ledger: any thread may call any method, none blocks, every call with a `done` answers exactly
// once through the caller's Executor, never inline.
//
// Of a webhook the queue keeps what Webhook holds and nothing else. Those that are done are forgotten after 30 days;
// one that waits is never forgotten: whoever works on it ends it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"

namespace userintent::ledger {

// Strings are printable; `id` and `type` are at most 128 bytes, `resource_id` at most 256.
struct Webhook {
  std::string id;  // Astra's; what repeats are known by
  std::string type;
  std::string resource_id;         // the intent's id
  std::optional<Uuid> attempt_id;  // of the POST that its metadata name
  absl::Time received;
};

enum class Receipt {
  kStored,       // durable from now on, and due at once
  kWaits,        // known, not done
  kDone,         // known, done
  kFull,         // as many wait as may
  kUnavailable,  // the ledger cannot be written
};

class WebhookQueue {
 public:
  struct Due {
    Webhook webhook;
    int tries = 0;  // Ends that put it back
  };
  struct NextAnswer {
    bool available = false;          // false: the ledger cannot be read
    std::vector<Due> due;            // the one that is due longest first
    std::optional<absl::Time> next;  // when the first of the others that wait is due; may be past when `limit` cut
    size_t waiting = 0;
    absl::Time oldest = absl::InfiniteFuture();  // when the one that waits longest was received
  };
  // Ends a webhook's turn. `result` is a word for operators: "settled", "read", "conflict", "foreign", "orphan",
  // "given_up", "ignored".
  struct EndRequest {
    std::string id;
    std::string result;
    std::optional<absl::Time> again;  // set: it is not done, and due then; `result` is what came so far
  };

  using ReceiveDone = absl::AnyInvocable<void(Receipt)>;
  using NextDone = absl::AnyInvocable<void(NextAnswer)>;
  using EndDone = absl::AnyInvocable<void(bool committed)>;

  virtual ~WebhookQueue() = default;

  // kStored, kWaits and kDone say that it is durable: the sender may hear so.
  virtual void Receive(Webhook webhook, Executor& executor, ReceiveDone done) = 0;

  // Those that are due; they stay so until they are ended.
  virtual void Next(absl::Time now, size_t limit, Executor& executor, NextDone done) = 0;

  // False: it could not be made durable, so it will be due again. One that is done already, or not known, stays as it
  // is, which is no failure. `done` may be null.
  virtual void End(EndRequest request, Executor& executor, EndDone done) = 0;

  // Webhooks can be received. To be told every 10 s: a gap of more than 30 s ends a period, and periods are what an
  // operator is shown beside "no webhook came". Lost when the ledger cannot be written.
  virtual void ReceiverAlive(absl::Time now) = 0;
};

}  // namespace userintent::ledger
