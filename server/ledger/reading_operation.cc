#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class ReadingOperation final : public Operation {
 public:
  ReadingOperation(ReadingRequest request, Executor& executor, Ledger::ReadingDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    absl::Status s = Execute(at.store, request_);
    written_ = s.ok();
    return s;
  }
  // A reading does not wait for the disk: Astra can be asked again.
  void ApplyReadOnly(Workplace&) override { written_ = false; }
  void Deliver(Workplace&) override {
    if (done_) Post(executor_, std::move(done_), written_);
  }
  bool GiveUp() override {
    if (done_) Post(executor_, std::move(done_), false);
    return true;
  }

 private:
  const ReadingRequest request_;
  Executor& executor_;
  Ledger::ReadingDone done_;
  bool written_ = false;
};

}  // namespace

std::unique_ptr<Operation> NewReading(ReadingRequest request, Executor& executor, Ledger::ReadingDone done) {
  return std::make_unique<ReadingOperation>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
