#include "server/usecase/own_intent.h"

#include <utility>

#include "server/base/utf8.h"

namespace userintent::usecase {
namespace {

// An intent may still come of a request that runs or whose outcome is unknown.
CallError NotCreated(ledger::State state) {
  CallError error = CallError::Of(v1::ERROR_REASON_NOT_CREATED);
  if (state == ledger::State::kSending || state == ledger::State::kUnknown) error.recovery = Recovery::kAskSameId;
  return error;
}

// One read. Its callbacks keep it alive; done_ is empty once it is answered or its caller has left.
class Reading final : public std::enable_shared_from_this<Reading> {
 public:
  Reading(const ReadDependencies& deps, OwnIntentQuery query, Done<OwnIntent> done)
      : deps_(deps), query_(std::move(query)), done_(std::move(done)) {}

  void Start() {
    asked_at_ = deps_.shard.loop.Now();
    answer_timer_ = deps_.shard.loop.CallAt(AnswerBy(asked_at_, query_.deadline),
                                            [self = shared_from_this()] { self->OnAnswerBy(); });
    auto found = [self = shared_from_this()](ledger::GetAnswer answer) { self->OnFound(std::move(answer)); };
    if (query_.key.request_id) {
      deps_.ledger.Get({query_.caller, *query_.key.request_id}, deps_.shard.loop, std::move(found));
    } else {
      deps_.ledger.FindIntent(query_.caller, query_.key.user_intent_id, deps_.shard.loop, std::move(found));
    }
  }

  void OnCallerLeft() { StopWaiting(); }

 private:
  void OnFound(ledger::GetAnswer answer) {
    if (!done_) return;
    if (!answer.available) return Answer(CallError::Of(v1::ERROR_REASON_LEDGER_UNAVAILABLE));
    if (!answer.record) {
      return Answer(CallError::Of(query_.key.request_id ? v1::ERROR_REASON_REQUEST_NOT_FOUND
                                                        : v1::ERROR_REASON_USER_INTENT_NOT_FOUND));
    }
    if (answer.record->state != ledger::State::kSucceeded) return Answer(NotCreated(answer.record->state));
    record_ = std::make_shared<const ledger::Record>(*std::move(answer.record));
    // A reading from the future tells nothing of its age: the clock has been put back since.
    const absl::Duration age = deps_.wall_clock() - record_->latest.read_at;
    if (query_.max_age > absl::ZeroDuration() && age >= absl::ZeroDuration() && age <= query_.max_age) {
      return Answer(OwnIntent{record_, record_->latest, false});
    }
    if (query_.deadline - deps_.shard.loop.Now() < deps_.min_deadline) {
      return AnswerStaleOr(CallError::Of(v1::ERROR_REASON_DEADLINE_TOO_SHORT));
    }
    ticket_ = deps_.reads.Read(
        deps_.shard, {Asker::kCaller, record_->answer.user_intent_id, record_, query_.deadline, query_.trace},
        [self = shared_from_this()](Result<ledger::Reading> result) { self->OnRead(std::move(result)); });
  }

  void OnRead(Result<ledger::Reading> result) {
    ticket_ = 0;
    if (!done_) return;
    if (result.ok()) return Answer(OwnIntent{record_, std::move(result.value()), false});
    // Astra was asked, and does not know the intent.
    if (result.error().reason == v1::ERROR_REASON_USER_INTENT_NOT_FOUND) return Answer(std::move(result.error()));
    AnswerStaleOr(std::move(result.error()));
  }

  void OnAnswerBy() {
    answer_timer_ = 0;
    if (!done_) return;
    if (!record_) {
      // A ledger that works answers in milliseconds; then the call hears that its deadline is too short.
      if (deps_.shard.loop.Now() - asked_at_ < kLedgerSilent) return;
      return Answer(CallError::Of(v1::ERROR_REASON_LEDGER_UNAVAILABLE));
    }
    CallError error = CallError::Of(v1::ERROR_REASON_UPSTREAM_UNAVAILABLE);
    error.message = kReadUnavailableMessage;
    AnswerStaleOr(std::move(error));
  }

  void AnswerStaleOr(CallError error) {
    if (query_.allow_stale) return Answer(OwnIntent{record_, record_->latest, true});
    Answer(std::move(error));
  }

  void Answer(Result<OwnIntent> result) {
    Done<OwnIntent> done = std::move(done_);
    StopWaiting();
    done(std::move(result));
  }

  void StopWaiting() {
    done_ = nullptr;
    deps_.shard.loop.CancelTimer(std::exchange(answer_timer_, 0));
    if (ticket_ != 0) deps_.reads.Leave(record_->answer.user_intent_id, std::exchange(ticket_, 0));
  }

  const ReadDependencies& deps_;
  const OwnIntentQuery query_;
  Done<OwnIntent> done_;
  SteadyTime asked_at_{};                         // when the ledger was asked
  std::shared_ptr<const ledger::Record> record_;  // SUCCEEDED; nothing while the ledger is asked
  IntentReads::Ticket ticket_ = 0;                // while Astra is asked
  Loop::TimerId answer_timer_ = 0;
};

}  // namespace

IntentKey KeyByRequestId(const std::string& request_id, std::vector<intent::Violation>* violations) {
  if (auto violation = intent::ValidateRequestId(request_id)) violations->push_back(*violation);
  return {ParseUuid(request_id), ""};
}

IntentKey KeyByIntentId(const std::string& user_intent_id, std::vector<intent::Violation>* violations) {
  if (!IsAstraId(user_intent_id)) {
    violations->push_back({"user_intent_id", "1-256 bytes without control characters"});
  }
  return {std::nullopt, user_intent_id};
}

CallerLeft ReadOwnIntent(const ReadDependencies& dependencies, OwnIntentQuery query, Done<OwnIntent> done) {
  const auto reading = std::make_shared<Reading>(dependencies, std::move(query), std::move(done));
  reading->Start();
  return [reading] {
    reading->OnCallerLeft();
    return Trail{};  // it sent nothing that a line tells of
  };
}

}  // namespace userintent::usecase
