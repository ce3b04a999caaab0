#include "server/usecase/get_user_intent.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "server/astra/answer.h"
#include "server/base/time.h"
#include "server/base/uuid.h"
#include "server/intent/rules.h"
#include "server/usecase/messages.h"

namespace userintent::usecase {
namespace {

using Key = v1::GetUserIntentRequest::KeyCase;

bool IsAge(const google::protobuf::Duration& age) {
  constexpr int64_t kLongest = 315'576'000'000;  // seconds, of every valid Duration
  return age.seconds() >= 0 && age.seconds() <= kLongest && age.nanos() >= 0 && age.nanos() <= 999'999'999;
}

std::vector<intent::Violation> Validate(const v1::GetUserIntentRequest& request) {
  std::vector<intent::Violation> violations;
  switch (request.key_case()) {
    case Key::kRequestId:
      if (auto violation = intent::ValidateRequestId(request.request_id())) violations.push_back(*violation);
      break;
    case Key::kUserIntentId:
      if (!astra::IsId(request.user_intent_id())) {
        violations.push_back({"user_intent_id", "1-256 bytes without control characters"});
      }
      break;
    case Key::KEY_NOT_SET:
      violations.push_back({"key", "required: request_id or user_intent_id"});
      break;
  }
  if (!IsAge(request.max_age())) violations.push_back({"max_age", "a valid Duration, not negative"});
  return violations;
}

// An intent may still come of a request that runs or whose outcome is unknown.
CallError NotCreated(ledger::State state) {
  CallError error = CallError::Of(v1::ERROR_REASON_NOT_CREATED);
  if (state == ledger::State::kSending || state == ledger::State::kUnknown) error.recovery = Recovery::kAskSameId;
  return error;
}

// One call, which is valid. Its callbacks keep it alive; call_.done is empty once it is answered or its caller has
// left.
class Reading final : public std::enable_shared_from_this<Reading> {
 public:
  Reading(const ReadDependencies& deps, GetUserIntentCall&& call)
      : deps_(deps),
        max_age_(absl::Seconds(call.request.max_age().seconds()) + absl::Nanoseconds(call.request.max_age().nanos())),
        call_(std::move(call)) {}

  void Start() {
    asked_at_ = deps_.shard.loop.Now();
    answer_timer_ = deps_.shard.loop.CallAt(AnswerBy(asked_at_, call_.deadline),
                                            [self = shared_from_this()] { self->OnAnswerBy(); });
    auto found = [self = shared_from_this()](ledger::GetAnswer answer) { self->OnFound(std::move(answer)); };
    if (by_request_id()) {
      deps_.ledger.Get({call_.caller, *ParseUuid(call_.request.request_id())}, deps_.shard.loop, std::move(found));
    } else {
      deps_.ledger.FindIntent(call_.caller, call_.request.user_intent_id(), deps_.shard.loop, std::move(found));
    }
  }

  void OnCallerLeft() { StopWaiting(); }

 private:
  void OnFound(ledger::GetAnswer answer) {
    if (!call_.done) return;
    if (!answer.available) return Answer(CallError::Of(v1::ERROR_REASON_LEDGER_UNAVAILABLE));
    if (!answer.record) {
      return Answer(
          CallError::Of(by_request_id() ? v1::ERROR_REASON_REQUEST_NOT_FOUND : v1::ERROR_REASON_USER_INTENT_NOT_FOUND));
    }
    if (answer.record->state != ledger::State::kSucceeded) return Answer(NotCreated(answer.record->state));
    record_ = std::make_shared<const ledger::Record>(*std::move(answer.record));
    if (max_age_ > absl::ZeroDuration() && deps_.wall_clock() - record_->latest.read_at <= max_age_) {
      return Answer(Response(record_->latest, false));
    }
    if (call_.deadline - deps_.shard.loop.Now() < deps_.min_deadline) {
      return AnswerStaleOr(CallError::Of(v1::ERROR_REASON_DEADLINE_TOO_SHORT));
    }
    ticket_ = deps_.reads.Read(
        deps_.shard, {Asker::kCaller, record_->answer.user_intent_id, record_, call_.deadline},
        [self = shared_from_this()](Result<ledger::Reading> result) { self->OnRead(std::move(result)); });
  }

  void OnRead(Result<ledger::Reading> result) {
    ticket_ = 0;
    if (!call_.done) return;
    if (result.ok()) return Answer(Response(result.value(), false));
    // Astra was asked, and does not know the intent.
    if (result.error().reason == v1::ERROR_REASON_USER_INTENT_NOT_FOUND) return Answer(std::move(result.error()));
    AnswerStaleOr(std::move(result.error()));
  }

  void OnAnswerBy() {
    answer_timer_ = 0;
    if (!call_.done) return;
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
    if (call_.request.allow_stale()) return Answer(Response(record_->latest, true));
    Answer(std::move(error));
  }

  v1::GetUserIntentResponse Response(const ledger::Reading& reading, bool stale) const {
    v1::GetUserIntentResponse response;
    *response.mutable_user_intent() = ToUserIntent(*record_, reading);
    SetTimestamp(reading.read_at, response.mutable_read_time());
    response.set_stale(stale);
    return response;
  }

  void Answer(Result<v1::GetUserIntentResponse> result) {
    Done<v1::GetUserIntentResponse> done = std::move(call_.done);
    StopWaiting();
    done(std::move(result));
  }

  void StopWaiting() {
    call_.done = nullptr;
    deps_.shard.loop.CancelTimer(std::exchange(answer_timer_, 0));
    if (ticket_ != 0) deps_.reads.Leave(record_->answer.user_intent_id, std::exchange(ticket_, 0));
  }

  bool by_request_id() const { return call_.request.key_case() == Key::kRequestId; }

  const ReadDependencies& deps_;
  const absl::Duration max_age_;
  GetUserIntentCall call_;
  SteadyTime asked_at_{};                         // when the ledger was asked
  std::shared_ptr<const ledger::Record> record_;  // SUCCEEDED; nothing while the ledger is asked
  IntentReads::Ticket ticket_ = 0;                // while Astra is asked
  Loop::TimerId answer_timer_ = 0;
};

}  // namespace

CallerLeft GetUserIntent(const ReadDependencies& dependencies, GetUserIntentCall&& call) {
  std::vector<intent::Violation> violations = Validate(call.request);
  if (!violations.empty()) {
    call.done(CallError::Of(std::move(violations)));
    return nullptr;
  }
  const auto reading = std::make_shared<Reading>(dependencies, std::move(call));
  reading->Start();
  return [reading] { reading->OnCallerLeft(); };
}

}  // namespace userintent::usecase
