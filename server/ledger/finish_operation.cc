#include <optional>

#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class FinishOperation final : public Operation {
 public:
  FinishOperation(FinishRequest request, Executor& executor, Ledger::FinishDone done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    answer_.reset();
    absl::StatusOr<FinishAnswer> answer = Execute(at.store, request_);
    if (!answer.ok()) return answer.status();
    answer_ = *std::move(answer);
    return absl::OkStatus();
  }

  // The outcome waits for the disk, and meanwhile its row is unknown, to the calls that join it too.
  void ApplyReadOnly(Workplace& at) override {
    answer_.reset();
    FinishAnswer answer;
    absl::StatusOr<GetAnswer> row = Execute(at.store, GetRequest{request_.key, {}});
    if (row.ok()) {
      if (!row->record) return;
      answer.record = *std::move(row->record);
      answer.budget = row->budget;
      // Another replica may have said UNKNOWN, which the outcome corrects when it is written.
      const bool recovered = request_.owner != 0 && answer.record.state == State::kUnknown;
      if (answer.record.state != State::kSending && !recovered) {
        answer_ = std::move(answer);
        return;
      }
    } else {
      answer.record.key = request_.key;
    }
    const bool first = at.outbox.Add(request_);
    at.outbox.Correct(answer.record);
    if (first) at.joins.Wake(request_.key, answer.record, answer.budget);
    answer_ = std::move(answer);
  }

  void Deliver(Workplace& at) override {
    if (answer_ && answer_->committed) {
      at.joins.Wake(request_.key, answer_->record, answer_->budget, request_.retry_after);
    }
    Post(executor_, std::move(done_), answer_ ? *std::move(answer_) : FinishAnswer{});
  }

  Durable durable() const override { return answer_ ? Durable::kOutcome : Durable::kNothing; }

 private:
  const FinishRequest request_;
  Executor& executor_;
  Ledger::FinishDone done_;
  std::optional<FinishAnswer> answer_;
};

}  // namespace

std::unique_ptr<Operation> NewFinish(FinishRequest request, Executor& executor, Ledger::FinishDone done) {
  return std::make_unique<FinishOperation>(std::move(request), executor, std::move(done));
}

}  // namespace userintent::ledger
