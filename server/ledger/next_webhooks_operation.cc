#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class NextWebhooks final : public Operation {
 public:
  NextWebhooks(absl::Time now, size_t limit, Executor& executor, WebhookQueue::NextDone done)
      : now_(now), limit_(limit), executor_(executor), done_(std::move(done)) {}

  absl::Status Apply(Workplace& at) override {
    absl::StatusOr<WebhookQueue::NextAnswer> answer = at.store.webhooks().Next(now_, limit_);
    if (!answer.ok()) return answer.status();
    answer_ = *std::move(answer);
    return absl::OkStatus();
  }
  void ApplyReadOnly(Workplace& at) override {
    if (!Apply(at).ok()) answer_ = {};
  }
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), std::move(answer_)); }
  bool MayWrite() const override { return false; }

 private:
  const absl::Time now_;
  const size_t limit_;
  Executor& executor_;
  WebhookQueue::NextDone done_;
  WebhookQueue::NextAnswer answer_;
};

}  // namespace

std::unique_ptr<Operation> NewNextWebhooks(absl::Time now, size_t limit, Executor& executor,
                                           WebhookQueue::NextDone done) {
  return std::make_unique<NextWebhooks>(now, limit, executor, std::move(done));
}

}  // namespace userintent::ledger
