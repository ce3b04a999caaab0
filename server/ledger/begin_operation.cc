#include <optional>
#include <utility>
#include <vector>

#include "server/ledger/execute.h"
#include "server/ledger/operation.h"

namespace userintent::ledger {
namespace {

class BeginOperation final : public Operation, private Admission {
 public:
  BeginOperation(Ledger::Token token, BeginRequest request, Executor& executor, Ledger::BeginDone done)
      : token_(token), request_(std::move(request)), executor_(executor), done_(std::move(done)) {
    admission_ = std::exchange(request_.admission, nullptr);
    if (admission_ != nullptr) request_.admission = this;
  }

  void AddLookups(std::vector<Lookup>& lookups) const override { lookups.push_back(LookupFor(request_)); }

  absl::Status Apply(Workplace& at) override {
    answer_.reset();
    request_.owner = at.store.owner().epoch;
    // Without admission only the writing is left out, so that replays and refusals answer as ever.
    if (!at.admit) request_.may_start = false;
    absl::StatusOr<BeginAnswer> answer = Execute(at.store, request_);
    if (!answer.ok()) return answer.status();
    if (!request_.older.empty()) at.Reach("during-rekey");
    answer_ = *std::move(answer);
    if (answer_->verdict == BeginVerdict::kGo) answer_->owner = at.store.owner();
    if (!at.admit) SayUnavailable();
    return absl::OkStatus();
  }

  void ApplyReadOnly(Workplace& at) override {
    answer_.reset();
    request_.may_start = false;
    absl::StatusOr<BeginAnswer> answer = Execute(at.store, request_);
    if (!answer.ok()) return;
    answer_ = *std::move(answer);
    SayUnavailable();
    if (answer_->verdict == BeginVerdict::kInProgress && at.outbox.Correct(*answer_->own)) {
      answer_->verdict = BeginVerdict::kRecorded;
    }
  }

  void Deliver(Workplace& at) override {
    BeginAnswer answer = answer_ ? *std::move(answer_) : BeginAnswer{};
    if (answer.verdict == BeginVerdict::kInProgress && request_.may_join && at.joins.HasRoomFor(request_.key)) {
      if (request_.admission != nullptr) request_.admission->OnWaiting();
      const bool foreign = answer.owner.epoch != at.store.owner().epoch;
      at.joins.Add(token_, request_.key, executor_, std::move(done_), foreign);
      return;
    }
    Post(executor_, std::move(done_), std::move(answer));
  }

  bool GiveUp() override {
    Post(executor_, std::move(done_), BeginAnswer{});
    return true;
  }

  Durable durable() const override {
    return answer_ && answer_->verdict == BeginVerdict::kGo ? Durable::kSending : Durable::kNothing;
  }

 private:
  // Asked once, though what was decided may have to be decided again.
  bool MayStart() override {
    if (!may_start_) may_start_ = admission_->MayStart();
    return *may_start_;
  }
  void OnWaiting() override { admission_->OnWaiting(); }

  // What would have started cannot.
  void SayUnavailable() {
    if (answer_->verdict == BeginVerdict::kWouldGo) answer_->verdict = BeginVerdict::kUnavailable;
  }

  const Ledger::Token token_;
  BeginRequest request_;
  Executor& executor_;
  Ledger::BeginDone done_;
  Admission* admission_ = nullptr;
  std::optional<bool> may_start_;
  std::optional<BeginAnswer> answer_;
};

// A call stops waiting for another one's end.
class ForgetOperation final : public Operation {
 public:
  explicit ForgetOperation(Ledger::Token token) : token_(token) {}
  absl::Status Apply(Workplace&) override { return absl::OkStatus(); }
  void ApplyReadOnly(Workplace&) override {}
  void Deliver(Workplace& at) override { at.joins.Forget(token_); }
  bool MayWrite() const override { return false; }

 private:
  const Ledger::Token token_;
};

}  // namespace

std::unique_ptr<Operation> NewBegin(Ledger::Token token, BeginRequest request, Executor& executor,
                                    Ledger::BeginDone done) {
  return std::make_unique<BeginOperation>(token, std::move(request), executor, std::move(done));
}

std::unique_ptr<Operation> NewForget(Ledger::Token token) { return std::make_unique<ForgetOperation>(token); }

}  // namespace userintent::ledger
