// postgres::Webhooks: the webhooks of a Store, which owns it, lends it its connection, and tells it of its
// transactions.
//
// What is written waits in memory for the store's Commit, which sends it with everything else; reads see it. So a batch
// that is undone because of another process's changes leaves nothing here.
//
// Several replicas work on one queue: Next hands out a webhook with a claim in its row, which keeps it from the others
// for 60 s and is renewed by each Next that hands it out again; who stores a webhook has the first claim. Claims are
// counted by the database's clock. A claim saves a second GET and nothing else: a webhook that two replicas work on is
// read twice, and settles once. Next writes claims at once, in a transaction of its own.
//
// Single-threaded, like the store.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/base/lease.h"
#include "server/ledger/webhook_store.h"
#include "server/postgres/connection.h"

namespace userintent::postgres {

class Webhooks final : public ledger::WebhookStore {
 public:
  // What of the store it uses.
  struct Lent {
    std::function<Connection*()> connection;  // of the moment; null: there is none
    std::function<int64_t()> epoch;           // in whose name webhooks are claimed
  };

  explicit Webhooks(Lent lent) : lent_(std::move(lent)) {}
  Webhooks(const Webhooks&) = delete;
  Webhooks& operator=(const Webhooks&) = delete;

  absl::StatusOr<Standing> StandingOf(const std::string& id) override;
  absl::StatusOr<size_t> Waiting() override;
  absl::Status Add(const ledger::Webhook& webhook) override;
  absl::StatusOr<ledger::WebhookQueue::NextAnswer> Next(absl::Time now, size_t limit) override;
  absl::Status End(const ledger::WebhookQueue::EndRequest& request) override;
  absl::Status ReceiverAlive(absl::Time now) override;
  // At once, in a transaction of its own.
  absl::StatusOr<size_t> ForgetWebhooks(absl::Time before, size_t limit) override;

  // For the store's Commit: the last statements of its transaction; none, where nothing was written. They may be run
  // again after one that was rolled back.
  std::vector<Statement> Writes() const;
  // That transaction is committed; or undone, as far as anybody knows.
  void Committed();
  void Rollback();

 private:
  // What the open transaction does to one webhook.
  struct Pending {
    bool IsDone() const { return ended && !again; }

    std::optional<ledger::Webhook> added;
    bool ended = false;
    int put_back = 0;  // times
    std::string result;
    std::optional<absl::Time> again;
  };
  // One that waits.
  struct Waiter {
    ledger::WebhookQueue::Due due;
    absl::Time at;         // when it is due
    bool claimed = false;  // by this process, for long enough
  };
  struct Queue {
    std::vector<Waiter> waiters;  // as many as may be handed out, and one more, at least
    size_t waiting = 0;
    absl::Time oldest = absl::InfiniteFuture();
  };

  absl::StatusOr<Connection*> Connected() const;
  absl::Status Count(Connection& connection, Queue& queue);
  absl::Status Find(Connection& connection, size_t limit, Queue& queue) const;
  static bool AsItWillBe(const Pending& pending, Waiter& waiter);
  static void Take(Waiter waiter, Queue& queue);
  absl::Status Claim(Connection& connection, std::vector<Waiter>& waiters) const;
  std::vector<std::string> Changed() const;
  int64_t Growth() const;

  const Lent lent_;
  // Of the open transaction; by id, so that rows are locked in one order.
  std::map<std::string, Pending> pending_;
  std::vector<absl::Time> alive_;
  // How many waited when it was counted last, and since then as far as this process changed it.
  int64_t counted_ = 0;
  std::optional<BootNanos> counted_at_;
};

}  // namespace userintent::postgres
