// The calls that read a slice of the ledger: Trace, ListSucceeded, CountUnresolved, ReadChanges.
#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

// Records whose outcome waits for the disk are told as unknown, as everywhere.
void Correct(const Outbox& outbox, TraceAnswer& answer) {
  if (answer.by_attempt) outbox.Correct(*answer.by_attempt);
}
void Correct(const Outbox&, SucceededAnswer&) {}
void Correct(const Outbox&, UnresolvedAnswer&) {}
void Correct(const Outbox& outbox, ChangeFeed::Answer& answer) {
  for (ChangeFeed::Changed& changed : answer.changed) outbox.Correct(changed.record);
}

template <typename Request, typename Answer>
class SliceOperation final : public Operation {
 public:
  using Done = absl::AnyInvocable<void(Answer)>;
  SliceOperation(Request request, Executor& executor, Done done)
      : request_(std::move(request)), executor_(executor), done_(std::move(done)) {}

  absl::Status Apply(Workplace& at) override {
    absl::StatusOr<Answer> answer = Execute(at.store, request_);
    if (!answer.ok()) return answer.status();
    answer_ = *std::move(answer);
    return absl::OkStatus();
  }
  void ApplyReadOnly(Workplace& at) override {
    answer_ = {};
    if (Apply(at).ok()) Correct(at.outbox, answer_);
  }
  void Deliver(Workplace&) override { Post(executor_, std::move(done_), std::move(answer_)); }
  bool MayWrite() const override { return false; }
  bool GiveUp() override {
    Post(executor_, std::move(done_), Answer{});
    return true;
  }

 private:
  const Request request_;
  Executor& executor_;
  Done done_;
  Answer answer_;
};

}  // namespace

std::unique_ptr<Operation> NewTrace(TraceRequest request, Executor& executor, Ledger::TraceDone done) {
  return std::make_unique<SliceOperation<TraceRequest, TraceAnswer>>(std::move(request), executor, std::move(done));
}

std::unique_ptr<Operation> NewListSucceeded(SucceededRequest request, Executor& executor, Ledger::SucceededDone done) {
  return std::make_unique<SliceOperation<SucceededRequest, SucceededAnswer>>(request, executor, std::move(done));
}

std::unique_ptr<Operation> NewCountUnresolved(Executor& executor, Ledger::UnresolvedDone done) {
  return std::make_unique<SliceOperation<UnresolvedRequest, UnresolvedAnswer>>(UnresolvedRequest{}, executor,
                                                                               std::move(done));
}

std::unique_ptr<Operation> NewReadChanges(ChangeFeed::Request request, Executor& executor, ChangeFeed::Done done) {
  return std::make_unique<SliceOperation<ChangeFeed::Request, ChangeFeed::Answer>>(std::move(request), executor,
                                                                                   std::move(done));
}

}  // namespace userintent::ledger
