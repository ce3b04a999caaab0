#include <optional>

#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class GetOperation final : public Operation {
 public:
  GetOperation(GetRequest request, Executor& executor, Ledger::GetDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    absl::StatusOr<GetAnswer> answer = Execute(at.store, request_);
    if (!answer.ok()) return answer.status();
    answer_ = *std::move(answer);
    return absl::OkStatus();
  }
  void ApplyReadOnly(Workplace& at) override {
    answer_ = {};
    if (Apply(at).ok() && answer_.record) at.outbox.Correct(*answer_.record);
  }
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), std::move(answer_)); }
  bool MayWrite() const override { return false; }
  bool GiveUp() override {
    Post(executor_, std::move(done_), GetAnswer{});
    return true;
  }

 private:
  const GetRequest request_;
  Executor& executor_;
  Ledger::GetDone done_;
  GetAnswer answer_;
};

}  // namespace

std::unique_ptr<Operation> NewGet(GetRequest request, Executor& executor, Ledger::GetDone done) {
  return std::make_unique<GetOperation>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
