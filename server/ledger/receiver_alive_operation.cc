#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class ReceiverAlive final : public Operation {
 public:
  explicit ReceiverAlive(absl::Time now) : now_(now) {}

  absl::Status Apply(Workplace& at) override { return at.store.webhooks().ReceiverAlive(now_); }
  void ApplyReadOnly(Workplace&) override {}  // a sign of life that is lost: there are more
  void Deliver(Workplace&) override {}
  // It writes, but a ledger is none the newer for it: a copy of an idle one must not look outdated 10 s later.
  bool MayWrite() const override { return false; }

 private:
  const absl::Time now_;
};

}  // namespace

std::unique_ptr<Operation> NewReceiverAlive(absl::Time now) { return std::make_unique<ReceiverAlive>(now); }

}  // namespace userintent::ledger
