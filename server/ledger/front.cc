#include "server/ledger/front.h"

#include <algorithm>

namespace userintent::ledger {
namespace {

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

template <typename Done, typename Answer>
void Post(Executor& executor, Done done, Answer answer) {
  executor.Post([done = std::move(done), answer = std::move(answer)]() mutable { done(std::move(answer)); });
}

}  // namespace

Front::~Front() {
  for (auto& [key, waiters] : waiters_) {
    for (Waiter& waiter : waiters) {
      BeginAnswer answer;
      answer.verdict = BeginVerdict::kInProgress;
      Post(*waiter.executor, std::move(waiter.done), std::move(answer));
    }
  }
}

void Front::Run(std::vector<Op> batch) {
  std::vector<Result> results(batch.size());
  if (healthy_) {
    last_error_ = Write(batch, results);
    healthy_ = last_error_.ok();
  }
  if (!healthy_) {
    for (size_t i = 0; i < batch.size(); ++i) {
      results[i] = std::monostate();
      ReadOnly(batch[i], results[i]);
      // At once: a later Begin of the batch must find this outcome, and must find its waiters gone.
      Deliver(batch[i], results[i]);
    }
    return;
  }
  for (size_t i = 0; i < batch.size(); ++i) Deliver(batch[i], results[i]);
}

absl::Status Front::Write(std::vector<Op>& batch, std::vector<Result>& results) {
  if (absl::Status s = store_.Start(); !s.ok()) {
    store_.Rollback();
    return s;
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    absl::Status s = Apply(batch[i], results[i]);
    if (s.ok() || IsRefusal(s)) continue;  // who breaks the protocol hears so; the others are not harmed
    store_.Rollback();
    return s;
  }
  // Only a crash test wants to know what the batch holds.
  const auto holds = [this, &results](auto is) {
    return crash_point_ != nullptr && std::any_of(results.begin(), results.end(), is);
  };
  const bool sending = holds([](const Result& result) {
    const auto* answer = std::get_if<BeginAnswer>(&result);
    return answer != nullptr && answer->verdict == BeginVerdict::kGo;
  });
  const bool outcome = holds([](const Result& result) { return std::holds_alternative<FinishAnswer>(result); });
  const bool next = holds([](const Result& result) { return std::holds_alternative<bool>(result); });
  if (sending) Reach("before-sending-commit");
  if (outcome) Reach("before-outcome-commit");
  if (next) Reach("before-next-attempt-commit");
  if (absl::Status s = store_.Commit(); !s.ok()) {
    store_.Rollback();
    return s;
  }
  if (sending) Reach("after-sending-commit");
  if (outcome) Reach("after-outcome-commit");
  if (next) Reach("after-next-attempt-commit");
  return absl::OkStatus();
}

absl::Status Front::Transact(absl::FunctionRef<absl::Status()> work) {
  if (!healthy_) return absl::UnavailableError("the ledger cannot be written; it comes back when the disk does");
  absl::Status s = store_.Start();
  if (s.ok()) {
    if (absl::Status refused = work(); !refused.ok()) {
      store_.Rollback();
      return refused;  // were it the disk, the next batch would tell
    }
    s = store_.Commit();
  }
  if (s.ok()) return s;
  store_.Rollback();
  last_error_ = s;
  healthy_ = false;
  return s;
}

absl::Status Front::Apply(Op& op, Result& result) {
  return std::visit(Overloaded{
                        [&](BeginOp& begin) -> absl::Status {
                          // Without admission only the writing is left out, so that replays and refusals answer as
                          // ever.
                          if (!admit_) begin.request.may_start = false;
                          absl::StatusOr<BeginAnswer> answer = Execute(store_, begin.request);
                          if (!answer.ok()) return answer.status();
                          if (!begin.request.older.empty()) Reach("during-rekey");
                          if (!admit_ && answer->verdict == BeginVerdict::kWouldGo)
                            answer->verdict = BeginVerdict::kUnavailable;
                          result = *std::move(answer);
                          return absl::OkStatus();
                        },
                        [](ForgetOp&) { return absl::OkStatus(); },
                        [&](NextAttemptOp& next) -> absl::Status {
                          if (!resend_) return absl::OkStatus();
                          absl::Status s = Execute(store_, next.request);
                          if (s.ok()) result = true;
                          return s;
                        },
                        [&](FinishOp& finish) -> absl::Status {
                          absl::StatusOr<FinishAnswer> answer = Execute(store_, finish.request);
                          if (!answer.ok()) return answer.status();
                          result = *std::move(answer);
                          return absl::OkStatus();
                        },
                        [&](GetOp& get) -> absl::Status {
                          absl::StatusOr<GetAnswer> answer = Execute(store_, get.request);
                          if (!answer.ok()) return answer.status();
                          result = *std::move(answer);
                          return absl::OkStatus();
                        },
                        [&](RecordReadingOp& said) -> absl::Status {
                          absl::Status s = Execute(store_, said.request);
                          if (s.ok()) result = Recorded();
                          return s;
                        },
                    },
                    op);
}

Record Front::AsUnknown(Record record, const FinishRequest& waiting) const {
  record.state = State::kUnknown;
  record.sent = std::max({record.sent, waiting.sent, Sent::kMaybe});
  record.reason = unknown_reason_;
  record.updated = waiting.now;
  return record;
}

void Front::ReadOnly(Op& op, Result& result) {
  std::visit(Overloaded{
                 [&](BeginOp& begin) {
                   begin.request.may_start = false;
                   absl::StatusOr<BeginAnswer> answer = Execute(store_, begin.request);
                   if (!answer.ok()) return;
                   if (answer->verdict == BeginVerdict::kWouldGo) answer->verdict = BeginVerdict::kUnavailable;
                   if (answer->verdict == BeginVerdict::kInProgress) {
                     if (const auto waiting = outcomes_.find(begin.request.key); waiting != outcomes_.end()) {
                       answer->verdict = BeginVerdict::kRecorded;
                       answer->own = AsUnknown(*std::move(answer->own), waiting->second);
                     }
                   }
                   result = *std::move(answer);
                 },
                 [](ForgetOp&) {},
                 [](NextAttemptOp&) {},
                 [&](FinishOp& finish) {
                   FinishAnswer answer;
                   absl::StatusOr<GetAnswer> row = Execute(store_, GetRequest{finish.request.key, {}});
                   if (row.ok()) {
                     if (!row->record) return;
                     answer.record = *row->record;
                     answer.budget = row->budget;
                     if (answer.record.state != State::kSending) {
                       result = std::move(answer);
                       return;
                     }
                   } else {
                     answer.record.key = finish.request.key;
                   }
                   // The first outcome told for a row is the one that counts.
                   const auto [waiting, fresh] = outcomes_.emplace(finish.request.key, finish.request);
                   answer.record = AsUnknown(std::move(answer.record), waiting->second);
                   if (fresh) Wake(finish.request.key, answer.record, answer.budget);
                   result = std::move(answer);
                 },
                 [&](GetOp& get) {
                   absl::StatusOr<GetAnswer> answer = Execute(store_, get.request);
                   if (!answer.ok()) return;
                   if (answer->record && answer->record->state == State::kSending) {
                     const auto waiting = outcomes_.find(answer->record->key);
                     if (waiting != outcomes_.end()) {
                       answer->record = AsUnknown(*std::move(answer->record), waiting->second);
                     }
                   }
                   result = *std::move(answer);
                 },
                 [](RecordReadingOp&) {},
             },
             op);
}

void Front::Deliver(Op& op, Result& result) {
  // A missing result is the default of its kind: unavailable, not committed.
  std::visit(Overloaded{
                 [&](BeginOp& begin) {
                   auto* answer = std::get_if<BeginAnswer>(&result);
                   DeliverBegin(begin, answer != nullptr ? std::move(*answer) : BeginAnswer{});
                 },
                 [&](ForgetOp& forget) { Forget(forget.token); },
                 [&](NextAttemptOp& next) {
                   Post(*next.executor, std::move(next.done), std::get_if<bool>(&result) != nullptr);
                 },
                 [&](FinishOp& finish) {
                   auto* answer = std::get_if<FinishAnswer>(&result);
                   if (answer != nullptr && answer->committed) Wake(finish.request.key, answer->record, answer->budget);
                   Post(*finish.executor, std::move(finish.done),
                        answer != nullptr ? std::move(*answer) : FinishAnswer{});
                 },
                 [&](GetOp& get) {
                   auto* answer = std::get_if<GetAnswer>(&result);
                   Post(*get.executor, std::move(get.done), answer != nullptr ? std::move(*answer) : GetAnswer{});
                 },
                 [&](RecordReadingOp& reading) {
                   if (!reading.done) return;
                   Post(*reading.executor, std::move(reading.done), std::get_if<Recorded>(&result) != nullptr);
                 },
             },
             op);
}

void Front::DeliverBegin(BeginOp& op, BeginAnswer answer) {
  if (answer.verdict == BeginVerdict::kInProgress && op.request.may_join && HasRoomFor(op.request.key)) {
    if (op.request.admission != nullptr) op.request.admission->OnWaiting();
    waiters_by_token_.emplace(op.token, op.request.key);
    ++waiters_by_caller_[op.request.key.caller];
    waiters_[op.request.key].push_back({op.token, op.executor, std::move(op.done)});
    return;
  }
  Post(*op.executor, std::move(op.done), std::move(answer));
}

bool Front::HasRoomFor(const Key& key) const {
  const auto of_request = waiters_.find(key);
  const auto of_caller = waiters_by_caller_.find(key.caller);
  return (of_request == waiters_.end() ? 0 : of_request->second.size()) < limits_.per_request &&
         (of_caller == waiters_by_caller_.end() ? 0 : of_caller->second) < limits_.per_caller;
}

void Front::CountDown(const std::string& caller, size_t waiters) {
  const auto at = waiters_by_caller_.find(caller);
  at->second -= waiters;
  if (at->second == 0) waiters_by_caller_.erase(at);
}

void Front::Wake(const Key& key, const Record& record, const Budget& budget) {
  const auto at = waiters_.find(key);
  if (at == waiters_.end()) return;
  std::vector<Waiter> waiters = std::move(at->second);
  waiters_.erase(at);
  CountDown(key.caller, waiters.size());
  for (Waiter& waiter : waiters) {
    waiters_by_token_.erase(waiter.token);
    BeginAnswer answer;
    answer.verdict = BeginVerdict::kRecorded;
    answer.joined = true;
    answer.own = record;
    answer.budget = budget;
    Post(*waiter.executor, std::move(waiter.done), std::move(answer));
  }
}

void Front::Forget(Ledger::Token token) {
  const auto by_token = waiters_by_token_.find(token);
  if (by_token == waiters_by_token_.end()) return;
  const auto at = waiters_.find(by_token->second);
  std::erase_if(at->second, [token](const Waiter& waiter) { return waiter.token == token; });
  CountDown(at->first.caller, 1);
  if (at->second.empty()) waiters_.erase(at);
  waiters_by_token_.erase(by_token);
}

bool Front::Retry() {
  absl::Status s = store_.Start();
  if (s.ok()) {
    for (const auto& [key, request] : outcomes_) {
      const absl::StatusOr<FinishAnswer> answer = Execute(store_, request);
      if (answer.ok() || IsRefusal(answer.status())) continue;
      s = answer.status();
      break;
    }
  }
  if (s.ok()) s = store_.Touch();
  if (s.ok()) s = store_.Commit();
  last_error_ = s;
  if (!s.ok()) {
    store_.Rollback();
    return false;
  }
  outcomes_.clear();
  healthy_ = true;
  return true;
}

}  // namespace userintent::ledger
