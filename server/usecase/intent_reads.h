// IntentReads: the GETs that run. One at a time for each intent in the whole process: reads that want an intent which
// is being read wait for that answer. Every GET takes a token of the read budget; Astra's answer becomes the row's
// latest reading.
//
// One for the process; thread-safe. A read runs on the shard that began it, and answers each waiter on the waiter's
// own. It goes on for as long as a waiter is left, until the latest of their deadlines.
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
#include "server/ledger/ledger.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/read_budget.h"
#include "server/usecase/result.h"

namespace userintent::usecase {

// Told about GETs, for logs and metrics. Called on shards' threads; must be thread-safe and must not block.
class ReadObserver {
 public:
  virtual ~ReadObserver() = default;
  // One GET about the intent of this request ended.
  virtual void OnRead(const Uuid& request_id, const astra::ReadOutcome& outcome, SteadyClock::duration took) = 0;
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

  // All outlive this. `admission` tells when the process drains: then no GET is repeated.
  IntentReads(ledger::Ledger& ledger, const AdmissionControl& admission, ReadObserver& observer, double rate);
  IntentReads(const IntentReads&) = delete;
  IntentReads& operator=(const IntentReads&) = delete;

  // Reads the intent of `record`, which is SUCCEEDED, or waits for the read that runs. `heard` runs once on the shard's
  // thread, never inline.
  Ticket Read(const Shard& shard, std::shared_ptr<const ledger::Record> record, SteadyTime deadline, Heard heard);

  // Stops waiting; `heard` does not run unless it is already on its way. For the rest of the waiters nothing changes.
  // Unknown tickets are ignored.
  void Leave(const std::string& user_intent_id, Ticket ticket);

  // Callers that wait for an answer of Astra's. A server that drains waits for them, too.
  size_t waiting() const;

  // The process stops now: every one of them is told UPSTREAM_UNAVAILABLE.
  void AnswerAll();

 private:
  class ActiveRead;
  struct Waiter {
    Ticket ticket;
    SteadyTime deadline;
    Executor* executor;
    Heard heard;
  };

  // The latest deadline of those who wait for this intent; nothing when no one does any more.
  std::optional<SteadyTime> LatestDeadline(const std::string& user_intent_id);
  static void Tell(std::vector<Waiter> waiters, const Result<ledger::Reading>& result);
  // The read has ended: tells its waiters.
  void End(const std::string& user_intent_id, const Result<ledger::Reading>& result);

  ledger::Ledger& ledger_;
  const AdmissionControl& admission_;
  ReadObserver& observer_;
  ReadBudget budget_;

  mutable Mutex mutex_;
  Ticket last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  // By intent; while a read runs, even when its last waiter has left.
  absl::flat_hash_map<std::string, std::vector<Waiter>> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::usecase
