#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class SettleOperation final : public Operation {
 public:
  SettleOperation(SettleRequest request, Executor& executor, Ledger::SettleDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    absl::StatusOr<SettleAnswer> answer = Execute(at.store, request_);
    if (!answer.ok()) {
      if (IsRefusal(answer.status())) answer_.verdict = SettleVerdict::kNotFound;
      return answer.status();
    }
    answer_ = *std::move(answer);
    return absl::OkStatus();
  }

  // What needs no writing is answered. A proof does not wait for the disk: who has it brings it again.
  void ApplyReadOnly(Workplace& at) override {
    answer_ = {};
    absl::StatusOr<GetAnswer> row = Execute(at.store, GetRequest{request_.key, {}});
    if (!row.ok()) return;
    if (!row->record || !kRules.speaks_of(*row->record, request_.attempt_id)) {
      answer_.verdict = SettleVerdict::kNotFound;
      return;
    }
    const SettleVerdict verdict = kRules.judge_proof(*row->record, request_);
    if (verdict != SettleVerdict::kStillRuns && verdict != SettleVerdict::kSaysSo) return;
    answer_.verdict = verdict;
    answer_.record = *std::move(row->record);
    at.outbox.Correct(answer_.record);
  }

  // Nobody waits to join: who did was woken when the row became UNKNOWN.
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), std::move(answer_)); }
  bool GiveUp() override {
    Post(executor_, std::move(done_), SettleAnswer{});
    return true;
  }

  Durable durable() const override {
    return answer_.verdict == SettleVerdict::kSettled ? Durable::kSettled : Durable::kNothing;
  }

 private:
  const SettleRequest request_;
  Executor& executor_;
  Ledger::SettleDone done_;
  SettleAnswer answer_;
};

}  // namespace

std::unique_ptr<Operation> NewSettle(SettleRequest request, Executor& executor, Ledger::SettleDone done) {
  return std::make_unique<SettleOperation>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
