// WebhookWork: what is done with the webhooks that were received (contract section 8). Each is a hint that an intent
// has changed: the rows that it speaks of are looked up, Astra is asked (GET), and the answer is recorded, or settles
// the row whose outcome was unknown.
//
// A webhook waits in the queue until something has come of it, so a crash at any point costs a second GET and nothing
// else. What Astra cannot tell now is asked again at growing distances: for an hour where it does not know the intent,
// for a day otherwise. One GET runs for each intent; one that began after a webhook came counts for it, too.
//
// Belongs to the thread of one shard, on which everything runs but Wake(). Its owner destroys it after that thread has
// ended.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/ledger/ledger.h"
#include "server/ledger/webhook_queue.h"
#include "server/usecase/admission_control.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/settle_observer.h"

namespace userintent::usecase {

// What may come of a webhook. Its words are what operators see.
enum class WebhookResult {
  kSettled,   // the row whose outcome was unknown is SUCCEEDED now
  kRead,      // the intent was read
  kConflict,  // it contradicts what is recorded; the row is marked
  kForeign,   // no row has to do with it
  kOrphan,    // Astra has said for an hour that there is no such intent
  kGivenUp,   // Astra could not be asked for a day
  kIgnored,   // of a type that says nothing of intents
};
inline constexpr std::string_view kWebhookResults[] = {"settled", "read",     "conflict", "foreign",
                                                       "orphan",  "given_up", "ignored"};

// Told about what happens, for logs and metrics. Called on the shard's thread; must not block.
class WebhookObserver {
 public:
  virtual ~WebhookObserver() = default;
  virtual void OnWebhookEnded(WebhookResult result) = 0;
  // How many wait, and when the one that waits longest was received; InfiniteFuture: none waits.
  virtual void OnWebhookBacklog(size_t waiting, absl::Time oldest) = 0;
};

class WebhookWork {
 public:
  // All outlive the work.
  struct Dependencies {
    IntentReads::Shard shard;
    ledger::Ledger& ledger;
    ledger::WebhookQueue& queue;
    IntentReads& reads;
    const AdmissionControl& admission;
    WebhookObserver& observer;
    SettleObserver& settle_observer;
    absl::Time (*wall_clock)();
  };

  explicit WebhookWork(const Dependencies& dependencies) : deps_(dependencies) {}
  WebhookWork(const WebhookWork&) = delete;
  WebhookWork& operator=(const WebhookWork&) = delete;

  // Begins, with what is left of an earlier process, and says every 10 seconds that webhooks can be received.
  void Start();

  // There is news in the queue. Any thread.
  void Wake();

  // Nothing is begun any more.
  void Stop();

 private:
  class Job;

  void Beat();
  void Look();
  void OnNext(ledger::WebhookQueue::NextAnswer answer);
  void LookIn(absl::Duration distance);
  void OnJobEnded(const std::string& id, bool committed);

  const Dependencies deps_;
  bool stopped_ = false;
  bool looking_ = false;     // the queue is being asked
  bool look_again_ = false;  // and is to be asked again
  bool searching_ = false;   // some job looks through all rows
  size_t waiting_ = 0;       // webhooks, when the queue was asked last
  std::atomic<bool> woken_{false};
  Loop::TimerId look_timer_ = 0;
  SteadyTime look_at_{};
  absl::flat_hash_map<std::string, std::string> at_work_;  // webhook's id -> its intent
  absl::flat_hash_set<std::string> intents_;               // that some job is about
  // When the last GET of an intent that answered was begun; those of the last moments only.
  absl::flat_hash_map<std::string, absl::Time> last_reads_;
};

}  // namespace userintent::usecase
