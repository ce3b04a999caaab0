// ledger::Operation: one call of a Ledger on its way through a batch. A new kind of call is one class in one file.
//
// Made on the caller's thread; everything else happens on the thread that owns the store. Answers go out through the
// caller's executor, never inline.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "server/base/loop.h"
#include "server/ledger/change_feed.h"
#include "server/ledger/decide.h"
#include "server/ledger/joins.h"
#include "server/ledger/ledger.h"
#include "server/ledger/outbox.h"
#include "server/ledger/store.h"
#include "server/ledger/webhook_queue.h"

namespace userintent::ledger {

// Names the points at which a test ends the process; null in production.
using CrashPoint = void (*)(std::string_view name);

// What operations work with.
struct Workplace {
  Store& store;
  Joins& joins;
  Outbox& outbox;
  CrashPoint crash_point = nullptr;
  bool admit = true;   // false: nothing new starts, as if the store could not be written; outcomes are still written
  bool resend = true;  // false: what runs sends no further POST either
  size_t webhook_limit = 10'000;  // so many webhooks may wait

  void Reach(std::string_view point) const {
    if (crash_point != nullptr) crash_point(point);
  }
};

class Operation {
 public:
  virtual ~Operation() = default;

  // Inside the batch's transaction. IsRefusal: this operation alone is refused, which harms no other. Another failure
  // is the store's: the whole batch is rolled back.
  virtual absl::Status Apply(Workplace& at) = 0;
  // Where nothing can be written: instead of Apply, or after one that was rolled back.
  virtual void ApplyReadOnly(Workplace& at) = 0;
  // Adds what Apply will ask the store by Load; they point into this operation. Apply may run several times, when its
  // transaction met another process's changes.
  virtual void AddLookups(std::vector<Lookup>& /*lookups*/) const {}
  // Posts the answer. Where Apply had none, it is the default of its kind: unavailable, not committed.
  virtual void Deliver(Workplace& at) = 0;

  // While the store answers nobody: instead of everything above, from any thread, if nothing is promised or lost by it:
  // posts "unavailable" and returns true. False: the operation must wait.
  virtual bool GiveUp() { return false; }

  virtual bool MayWrite() const { return true; }
  // After Apply: what the commit will make durable, for the crash points around it.
  enum class Durable { kNothing, kSending, kOutcome, kNextAttempt, kSettled, kWebhook };
  virtual Durable durable() const { return Durable::kNothing; }
};

// While one lives, what this thread posts by Post() is kept, and at its end handed to each executor as one task: an
// executor that is woken for each answer of a batch costs more than the answers. Not nested.
class AnswersTogether {
 public:
  AnswersTogether();
  ~AnswersTogether();
  AnswersTogether(const AnswersTogether&) = delete;
  AnswersTogether& operator=(const AnswersTogether&) = delete;

  // Null: there is none on this thread.
  static AnswersTogether* Current() { return current_; }
  void Add(Executor& executor, Task task);

 private:
  struct Bag {
    Executor* executor;
    std::vector<Task> tasks;
  };
  static thread_local AnswersTogether* current_;
  std::vector<Bag> bags_;  // few: executors are shards
};

template <typename Done, typename Answer>
void Post(Executor& executor, Done done, Answer answer) {
  Task task = [done = std::move(done), answer = std::move(answer)]() mutable { done(std::move(answer)); };
  if (AnswersTogether* const together = AnswersTogether::Current()) {
    together->Add(executor, std::move(task));
  } else {
    executor.Post(std::move(task));
  }
}

std::unique_ptr<Operation> NewBegin(Ledger::Token token, BeginRequest request, Executor& executor,
                                    Ledger::BeginDone done);
std::unique_ptr<Operation> NewForget(Ledger::Token token);
// Wakes the calls that wait for those of the requests that run no longer.
std::unique_ptr<Operation> NewWakeEnded(std::vector<Key> keys);
std::unique_ptr<Operation> NewNextAttempt(NextAttemptRequest request, Executor& executor, Ledger::AttemptDone done);
std::unique_ptr<Operation> NewFinish(FinishRequest request, Executor& executor, Ledger::FinishDone done);
std::unique_ptr<Operation> NewGet(GetRequest request, Executor& executor, Ledger::GetDone done);
// `done` may be null.
std::unique_ptr<Operation> NewReading(ReadingRequest request, Executor& executor, Ledger::ReadingDone done);
std::unique_ptr<Operation> NewSettle(SettleRequest request, Executor& executor, Ledger::SettleDone done);
std::unique_ptr<Operation> NewTrace(TraceRequest request, Executor& executor, Ledger::TraceDone done);
std::unique_ptr<Operation> NewListSucceeded(SucceededRequest request, Executor& executor, Ledger::SucceededDone done);
std::unique_ptr<Operation> NewCountUnresolved(Executor& executor, Ledger::UnresolvedDone done);
std::unique_ptr<Operation> NewReadChanges(ChangeFeed::Request request, Executor& executor, ChangeFeed::Done done);
std::unique_ptr<Operation> NewReceiveWebhook(Webhook webhook, Executor& executor, WebhookQueue::ReceiveDone done);
std::unique_ptr<Operation> NewNextWebhooks(absl::Time now, size_t limit, Executor& executor,
                                           WebhookQueue::NextDone done);
// `done` may be null.
std::unique_ptr<Operation> NewEndWebhook(WebhookQueue::EndRequest request, Executor& executor,
                                         WebhookQueue::EndDone done);
std::unique_ptr<Operation> NewReceiverAlive(absl::Time now);

}  // namespace userintent::ledger
