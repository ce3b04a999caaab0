#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class ReceiveWebhook final : public Operation {
 public:
  ReceiveWebhook(Webhook webhook, Executor& executor, WebhookQueue::ReceiveDone done)
      : webhook_(std::move(webhook)), executor_(executor), done_(std::move(done)) {}

  absl::Status Apply(Workplace& at) override {
    if (absl::Status s = LookUp(at); !s.ok() || receipt_ != Receipt::kUnavailable || !at.admit) return s;
    const absl::StatusOr<size_t> waiting = at.store.webhooks().Waiting();
    if (!waiting.ok()) return waiting.status();
    if (*waiting >= at.webhook_limit) {
      receipt_ = Receipt::kFull;
      return absl::OkStatus();
    }
    if (absl::Status s = at.store.webhooks().Add(webhook_); !s.ok()) return s;
    receipt_ = Receipt::kStored;
    return absl::OkStatus();
  }
  // What is durable already is durable still.
  void ApplyReadOnly(Workplace& at) override {
    if (!LookUp(at).ok()) receipt_ = Receipt::kUnavailable;
  }
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), receipt_); }
  bool GiveUp() override {
    Post(executor_, std::move(done_), Receipt::kUnavailable);
    return true;
  }
  Durable durable() const override { return receipt_ == Receipt::kStored ? Durable::kWebhook : Durable::kNothing; }

 private:
  // kUnavailable: it is new, or nothing is known.
  absl::Status LookUp(Workplace& at) {
    receipt_ = Receipt::kUnavailable;
    const absl::StatusOr<WebhookStore::Standing> standing = at.store.webhooks().StandingOf(webhook_.id);
    if (!standing.ok()) return standing.status();
    if (*standing == WebhookStore::Standing::kWaits) receipt_ = Receipt::kWaits;
    if (*standing == WebhookStore::Standing::kDone) receipt_ = Receipt::kDone;
    return absl::OkStatus();
  }

  const Webhook webhook_;
  Executor& executor_;
  WebhookQueue::ReceiveDone done_;
  Receipt receipt_ = Receipt::kUnavailable;
};

}  // namespace

std::unique_ptr<Operation> NewReceiveWebhook(Webhook webhook, Executor& executor, WebhookQueue::ReceiveDone done) {
  return std::make_unique<ReceiveWebhook>(std::move(webhook), executor, std::move(done));
}

}  // namespace userintent::ledger
