// IntentReads: the GETs that run. One at a time for each intent in the whole process: reads that want an intent which
// is being read wait for that answer. Every GET takes a token of the read budget; Astra's answer becomes the latest
// reading of the rows that it was read for.
//
// Callers come first. A GET is repeated for them alone, for as long as one is left and until the latest of their
// deadlines: the other askers hear what one GET came to, and come again in their own time. So nothing that they do
// makes a caller wait.
//
// One for the process; thread-safe. A read runs on the shard that began it, and answers each waiter on the waiter's
// own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"
#include "server/base/time.h"
#include "server/ledger/ledger.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/exchange_trace.h"
#include "server/usecase/read_budget.h"
#include "server/usecase/result.h"

namespace userintent::usecase {

// Told about GETs, for logs and metrics. Called on shards' threads; must be thread-safe and must not block.
class ReadObserver {
 public:
  virtual ~ReadObserver() = default;
  // One GET ended, which this asker had begun about the intent of this request; nothing: of no row.
  virtual void OnRead(Asker asker, const std::optional<Uuid>& request_id, const astra::ReadOutcome& outcome,
                      SteadyClock::duration took) = 0;
  // Beside it, where the trace of the call that began the read is exported.
  virtual void OnTraced(const TracedExchange& /*exchange*/) {}
  // One GET was not begun, because the budget had no token for this asker, or Astra had asked to be left alone.
  virtual void OnReadHeldBack(Asker asker) = 0;
};

// What UPSTREAM_UNAVAILABLE says of a read: the table's text is about a creation.
inline constexpr std::string_view kReadUnavailableMessage =
    "Astra did not answer, or is unavailable at the moment. Reading changes nothing; repeat after the delay.";

class IntentReads {
 public:
  using Ticket = uint64_t;
  using Heard = absl::AnyInvocable<void(Result<ledger::Reading>)>;
  // Where a read runs. Outlives the reads and their callers' answers.
  struct Shard {
    Loop& loop;
    astra::Client& astra;
  };
  struct Query {
    Asker asker = Asker::kCaller;
    std::string user_intent_id;
    // A SUCCEEDED row with this intent, which gets the reading. Null: no row is known to have it, and the read records
    // nothing.
    std::shared_ptr<const ledger::Record> record = nullptr;
    SteadyTime deadline{};  // of a caller; not looked at for the others
    std::optional<TraceContext> trace = std::nullopt;
  };

  // All outlive this. `admission` tells when the process drains: then no GET is repeated.
  IntentReads(ledger::Ledger& ledger, const AdmissionControl& admission, ReadObserver& observer, double rate,
              absl::Time (*wall_clock)() = NowMicros);
  IntentReads(const IntentReads&) = delete;
  IntentReads& operator=(const IntentReads&) = delete;

  // Reads an intent, or waits for the read that runs. `heard` runs once on the shard's thread, never inline. Without a
  // record, the reading has the verification type that Astra named, or none, and `status_since` is `read_at`.
  //
  // No token, or no leave of Astra's: UPSTREAM_RATE_LIMITED with http_status 0, and retry_after says when to come
  // again.
  Ticket Read(const Shard& shard, const Query& query, Heard heard);

  // Stops waiting; `heard` does not run unless it is already on its way. For the rest of the waiters nothing changes.
  // Unknown tickets are ignored.
  void Leave(const std::string& user_intent_id, Ticket ticket);

  // Whether a GET for the intent is under way: a read would wait for its answer, which may be older than the wish.
  bool IsBeingRead(const std::string& user_intent_id) const;

  // Callers that wait for an answer of Astra's. A server that drains waits for them, too.
  size_t waiting() const;

  // The process stops now: every one of them is told UPSTREAM_UNAVAILABLE.
  void AnswerAll();

 private:
  class ActiveRead;
  struct Waiter {
    Ticket ticket;
    Asker asker;
    SteadyTime deadline;
    std::shared_ptr<const ledger::Record> record;  // as it was when the waiter came
    Executor* executor;
    Heard heard;
  };
  struct Running {
    std::vector<Waiter> waiters;
    std::vector<std::shared_ptr<const ledger::Record>> records;  // of all who came, left or not; each row once
  };

  // The latest deadline of the callers who wait for this intent; nothing when no caller does.
  std::optional<SteadyTime> LatestDeadline(const std::string& user_intent_id);
  Running Remove(const std::string& user_intent_id);
  static void Tell(std::vector<Waiter> waiters, const CallError& error);

  ledger::Ledger& ledger_;
  const AdmissionControl& admission_;
  ReadObserver& observer_;
  absl::Time (*const wall_clock_)();
  ReadBudget budget_;

  mutable Mutex mutex_;
  Ticket last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  // By intent; while a read runs, even when its last waiter has left.
  absl::flat_hash_map<std::string, Running> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::usecase
