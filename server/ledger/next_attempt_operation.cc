#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class NextAttemptOperation final : public Operation {
 public:
  NextAttemptOperation(NextAttemptRequest request, Executor& executor, Ledger::AttemptDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    written_ = false;
    if (!at.resend) return absl::OkStatus();
    request_.owner = at.store.owner().epoch;
    absl::Status s = Execute(at.store, request_);
    written_ = s.ok();
    return s;
  }
  void ApplyReadOnly(Workplace&) override { written_ = false; }
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), written_); }
  Durable durable() const override { return written_ ? Durable::kNextAttempt : Durable::kNothing; }

 private:
  NextAttemptRequest request_;
  Executor& executor_;
  Ledger::AttemptDone done_;
  bool written_ = false;
};

}  // namespace

std::unique_ptr<Operation> NewNextAttempt(NextAttemptRequest request, Executor& executor, Ledger::AttemptDone done) {
  return std::make_unique<NextAttemptOperation>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
