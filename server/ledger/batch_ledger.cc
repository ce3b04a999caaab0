#include "server/ledger/batch_ledger.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace userintent::ledger {

BatchLedger::BatchLedger(std::unique_ptr<Store> store, std::unique_ptr<Housekeeper> housekeeper, BatchOptions options)
    : options_(std::move(options)),
      store_(std::move(store)),
      housekeeper_(std::move(housekeeper)),
      commit_(*store_, options_.unknown_reason, options_.crash_point, options_.waiters) {
  commit_.set_webhook_limit(options_.webhook_limit);
  writer_ = std::thread([this] { Write(); });
}

BatchLedger::BatchLedger(std::unique_ptr<Store> store, BatchOptions options)
    : options_(std::move(options)),
      store_(std::move(store)),
      commit_(*store_, options_.unknown_reason, options_.crash_point, options_.waiters) {
  commit_.set_webhook_limit(options_.webhook_limit);
}

BatchLedger::~BatchLedger() { StopWriter(); }

void BatchLedger::StopWriter() {
  if (!writer_.joinable()) return;
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    wake_.NotifyOne();
  }
  writer_.join();
}

// ---- the calls of a Ledger ----

Ledger::Token BatchLedger::Begin(BeginRequest request, Executor& executor, BeginDone done) {
  const Token token = ++last_token_;
  Submit(NewBegin(token, std::move(request), executor, std::move(done)));
  return token;
}

void BatchLedger::Forget(Token token) { Submit(NewForget(token)); }

void BatchLedger::NextAttempt(Key key, Uuid attempt_id, Sent sent_so_far, absl::Time now, Executor& executor,
                              AttemptDone done) {
  Submit(NewNextAttempt({std::move(key), attempt_id, sent_so_far, now}, executor, std::move(done)));
}

void BatchLedger::Finish(FinishRequest request, Executor& executor, FinishDone done) {
  Submit(NewFinish(std::move(request), executor, std::move(done)));
}

void BatchLedger::Get(Key key, Executor& executor, GetDone done) {
  Submit(NewGet({std::move(key), {}}, executor, std::move(done)));
}

void BatchLedger::FindIntent(std::string caller, std::string user_intent_id, Executor& executor, GetDone done) {
  Submit(NewGet({{std::move(caller), {}}, std::move(user_intent_id)}, executor, std::move(done)));
}

void BatchLedger::RecordReading(Key key, Reading reading, Executor& executor, ReadingDone done) {
  Submit(NewReading({std::move(key), std::move(reading)}, executor, std::move(done)));
}

void BatchLedger::Settle(SettleRequest request, Executor& executor, SettleDone done) {
  Submit(NewSettle(std::move(request), executor, std::move(done)));
}

void BatchLedger::Trace(TraceRequest request, Executor& executor, TraceDone done) {
  Submit(NewTrace(std::move(request), executor, std::move(done)));
}

void BatchLedger::ListSucceeded(SucceededRequest request, Executor& executor, SucceededDone done) {
  Submit(NewListSucceeded(request, executor, std::move(done)));
}

void BatchLedger::CountUnresolved(Executor& executor, UnresolvedDone done) {
  Submit(NewCountUnresolved(executor, std::move(done)));
}

void BatchLedger::ReadChanges(Request request, Executor& executor, Done done) {
  Submit(NewReadChanges(std::move(request), executor, std::move(done)));
}

// ---- the calls of a WebhookQueue ----

void BatchLedger::Receive(Webhook webhook, Executor& executor, ReceiveDone done) {
  Submit(NewReceiveWebhook(std::move(webhook), executor, std::move(done)));
}

void BatchLedger::Next(absl::Time now, size_t limit, Executor& executor, NextDone done) {
  Submit(NewNextWebhooks(now, limit, executor, std::move(done)));
}

void BatchLedger::End(EndRequest request, Executor& executor, EndDone done) {
  Submit(NewEndWebhook(std::move(request), executor, std::move(done)));
}

void BatchLedger::ReceiverAlive(absl::Time now) { Submit(NewReceiverAlive(now)); }

// ---- how they get to the store ----

void BatchLedger::Submit(std::unique_ptr<Operation> operation) {
  const MutexLock lock(mutex_);
  if (housekeeper_ == nullptr) {
    commit_.Run({&operation, 1});
    return;
  }
  queue_.push_back(std::move(operation));
  Wake();
}

void BatchLedger::WakeEnded(std::vector<Key> keys) { Submit(NewWakeEnded(std::move(keys))); }

void BatchLedger::GiveUp() {
  const MutexLock lock(mutex_);
  std::erase_if(queue_, [](const std::unique_ptr<Operation>& operation) { return operation->GiveUp(); });
}

absl::Status BatchLedger::RunOnWriter(Work work) {
  Job job{work, {}};
  std::future<absl::Status> done = job.done.get_future();
  {
    const MutexLock lock(mutex_);
    if (housekeeper_ == nullptr) return work(commit_);
    jobs_.push_back(&job);
    Wake();
  }
  return done.get();
}

void BatchLedger::Wake() {
  if (std::exchange(idle_, false)) wake_.NotifyOne();
}

// ---- the writer ----

void BatchLedger::Write() {
  for (;;) {
    runs_since_.store(Steady::time_point::max(), std::memory_order_relaxed);
    Turn turn = Take();
    const auto now = Steady::now();
    runs_since_.store(now, std::memory_order_relaxed);
    housekeeper_->Look(commit_, now);
    Retry(now, turn.stopping);
    if (turn.stopping) break;
    const bool before = commit_.healthy();
    if (turn.batch.empty() && turn.job == nullptr && before) housekeeper_->WhenIdle(commit_, now);
    if (!turn.batch.empty()) RunBatch(turn.batch, now);
    if (turn.job != nullptr) {
      std::promise<absl::Status> done = std::move(turn.job->done);  // the job is gone as soon as this is kept
      runs_since_.store(Steady::time_point::max(), std::memory_order_relaxed);  // it may take what it takes
      done.set_value(turn.job->work(commit_));
      runs_since_.store(Steady::now(), std::memory_order_relaxed);
    }
    if (before && !commit_.healthy()) {
      pause_ = absl::ToChronoMilliseconds(options_.retry_first);
      retry_at_ = Steady::now() + pause_;
    }
    housekeeper_->AfterTurn(commit_);
  }
  housekeeper_->AtEnd(commit_);
}

// When the writer has something to do though nothing is queued.
BatchLedger::Steady::time_point BatchLedger::NextDue() const {
  const auto due = housekeeper_->NextDue(commit_.healthy());
  return commit_.healthy() ? due : std::min(due, retry_at_);
}

BatchLedger::Turn BatchLedger::Take() {
  Turn turn;
  const MutexLock lock(mutex_);
  const auto due = NextDue();
  idle_ = true;
  while (!HasWork() && wake_.WaitUntil(mutex_, due)) {
  }
  idle_ = false;
  if (queue_.size() <= options_.max_batch) {
    turn.batch.swap(queue_);
  } else {
    const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(options_.max_batch);
    std::move(queue_.begin(), end, std::back_inserter(turn.batch));
    queue_.erase(queue_.begin(), end);
  }
  if (!jobs_.empty()) {
    turn.job = jobs_.front();
    jobs_.pop_front();
  }
  turn.stopping = stop_ && turn.batch.empty() && turn.job == nullptr;
  return turn;
}

void BatchLedger::Retry(Steady::time_point now, bool stopping) {
  if (commit_.healthy() || (now < retry_at_ && !stopping)) return;
  if (commit_.Retry()) return;
  pause_ = std::min(2 * pause_, absl::ToChronoMilliseconds(options_.retry_most));
  retry_at_ = now + pause_;
}

bool BatchLedger::Hangs() const {
  const Steady::time_point since = runs_since_.load(std::memory_order_relaxed);
  return since != Steady::time_point::max() && Steady::now() - since > absl::ToChronoNanoseconds(options_.hangs_after);
}

void BatchLedger::RunBatch(GroupCommit::Batch batch, Steady::time_point now) {
  const bool may_write = std::any_of(batch.begin(), batch.end(), [](const auto& one) { return one->MayWrite(); });
  if (commit_.healthy() && may_write) housekeeper_->BeforeWrites(commit_, now);
  BatchReport report;
  report.operations = batch.size();
  report.may_write = may_write;
  commit_.Run(batch);
  report.took = absl::FromChrono(Steady::now() - now);
  report.committed = commit_.healthy();
  report.waiting_outcomes = commit_.waiting_outcomes();
  options_.on_batch(report);
}

}  // namespace userintent::ledger
