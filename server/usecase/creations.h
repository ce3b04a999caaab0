// Creations: the handler of CreateUserIntent on one shard, and the owner of that shard's live creations.
//
// Belongs to the shard's thread; the shard's owner keeps it until the shard has stopped.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/random/random.h"
#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/intent/fingerprint.h"
#include "server/intent/rules.h"
#include "server/ledger/ledger.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/call.h"
#include "server/usecase/exchange_trace.h"
#include "server/usecase/settle_observer.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent::usecase {

class Creation;

using CreateCall = Call<v1::CreateUserIntentRequest, v1::CreateUserIntentResponse>;

// How the wait for a slot of the upstream queue ended: with one; by the time, because another caller's call took its
// place in the queue, because its caller left, or because the process drains.
enum class QueueEnd { kSlot, kExpired, kGaveWay, kLeft, kDrained };
inline constexpr std::string_view kQueueEndNames[] = {"slot", "expired", "gave_way", "caller_left", "drained"};

// A row that ended, and what the call did that ended it.
struct Recorded {
  const ledger::Record& record;
  const Trail& trail;
  bool committed = false;  // else the ledger could not write
  bool told = false;       // a caller hears the outcome now
};

// Told about what happens, for logs and metrics. Called on shards' threads; must be thread-safe and must not block.
class CreationObserver : public SettleObserver {
 public:
  // One POST begins.
  virtual void OnPostBegun() = 0;
  // It ended (or was proved not sent).
  virtual void OnPost(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome,
                      SteadyClock::duration took) = 0;
  // Beside OnPost, where the call's trace is exported.
  virtual void OnTraced(const TracedExchange& /*exchange*/) {}
  // The answer of one that had ended because its time was over came after all.
  virtual void OnLateAnswer(const Uuid& request_id, const Uuid& attempt_id, const astra::Outcome& outcome) = 0;
  // A row ended.
  virtual void OnRecorded(const Recorded& recorded) = 0;
  // A call that waited for a slot does not any more.
  virtual void OnQueueEnd(QueueEnd why, SteadyClock::duration waited) = 0;
  // PERSON_EXISTS is told to this call about a person that another caller created.
  virtual void OnPersonToldAcross(const ledger::Key& key) = 0;
  // The caller is over its probe_rate. At most once a minute a caller.
  virtual void OnProbesLimited(const std::string& caller) = 0;
};

class Creations {
 public:
  // What every creation of the shard uses. All outlive the creations.
  struct Dependencies {
    Loop& loop;
    ledger::Ledger& ledger;
    astra::Client& astra;
    AdmissionControl& admission;
    const intent::Fingerprinter& fingerprinter;
    CreationObserver& observer;
    intent::RulesOptions rules;
    int email_attempt_limit = 3;
    SteadyClock::duration late_window{};  // how long an answer is waited for after its time; zero: not at all
  };

  explicit Creations(const Dependencies& dependencies) : deps_(dependencies) {}
  Creations(const Creations&) = delete;
  Creations& operator=(const Creations&) = delete;

  // The handler of CreateUserIntent.
  CallerLeft Create(CreateCall&& call);

  // The process stops soon: ends every wait for another try, so that the rows are released rather than left SENDING,
  // and every wait for a slot.
  void Drain();

  // The process stops now: every caller is answered as if its deadline had come. A request that has left stays SENDING,
  // and is UNKNOWN after the restart unless its end still comes in time.
  void AnswerAll();

  size_t waiting() const { return waiting_.size(); }
  size_t unanswered() const { return unanswered_.size(); }

 private:
  friend class Creation;

  const Dependencies deps_;
  absl::BitGen random_;  // jitter
  // Creations that wait before another try; each is kept alive by its timer.
  absl::flat_hash_set<Creation*> waiting_;
  absl::flat_hash_set<Creation*> queued_;  // wait for a slot, kept alive likewise
  // Creations whose caller still wants an answer.
  absl::flat_hash_set<Creation*> unanswered_;
};

}  // namespace userintent::usecase
