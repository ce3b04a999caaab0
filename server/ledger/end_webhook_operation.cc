#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class EndWebhook final : public Operation {
 public:
  EndWebhook(WebhookQueue::EndRequest request, Executor& executor, WebhookQueue::EndDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  absl::Status Apply(Workplace& at) override {
    absl::Status s = at.store.webhooks().End(request_);
    committed_ = s.ok();
    return s;
  }
  // Its end does not wait for the disk: it is due again, and looking twice does no harm.
  void ApplyReadOnly(Workplace&) override { committed_ = false; }
  void Deliver(Workplace&) override {
    if (done_) Post(executor_, std::move(done_), committed_);
  }

 private:
  const WebhookQueue::EndRequest request_;
  Executor& executor_;
  WebhookQueue::EndDone done_;
  bool committed_ = false;
};

}  // namespace

std::unique_ptr<Operation> NewEndWebhook(WebhookQueue::EndRequest request, Executor& executor,
                                         WebhookQueue::EndDone done) {
  return std::make_unique<EndWebhook>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
