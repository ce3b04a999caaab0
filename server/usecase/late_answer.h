// LateAnswer: the answer to a POST that came when its caller had heard OUTCOME_UNKNOWN, on its way into the ledger
// (contract section 7: the answer of that very exchange is proof of what became of it).
//
// One for each POST, made before it leaves. What came late is classified as if it had come in time, and where that says
// what became of the creation, the row is settled so: after the row has been recorded as UNKNOWN, and again after a
// while when the ledger says that it still runs, or cannot be written. Nothing is sent, whatever the answer invites to.
//
// Holds ids, and nothing of the request: it lives as long as the exchange is listened to, which is minutes. It holds no
// place of the admission control and keeps nobody from draining; at the end of the process it is forgotten, and the row
// stays UNKNOWN. Kept alive by the callbacks that it waits for; belongs to one shard's thread.
#pragma once

#include <memory>
#include <optional>

#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/ledger/ledger.h"
#include "server/usecase/creations.h"

namespace userintent::usecase {

class LateAnswer : public std::enable_shared_from_this<LateAnswer> {
 public:
  LateAnswer(const Creations::Dependencies& dependencies, ledger::Key key, const Uuid& attempt_id)
      : deps_(dependencies), key_(std::move(key)), attempt_id_(attempt_id) {}
  LateAnswer(const LateAnswer&) = delete;
  LateAnswer& operator=(const LateAnswer&) = delete;

  // The row was given to the ledger as UNKNOWN because of this POST, and the ledger has answered. Not called: the POST
  // ended otherwise, and what comes late is of no use.
  void OnRecorded();
  void OnOutcome(const astra::Outcome& outcome);

 private:
  void Settle();
  void OnSettled(const ledger::SettleAnswer& answer);

  const Creations::Dependencies& deps_;
  const ledger::Key key_;
  const Uuid attempt_id_;
  bool recorded_ = false;
  std::optional<ledger::SettleRequest> proof_;
  SteadyTime give_up_{};
  SteadyClock::duration pause_ = kFirstPause;

  static constexpr std::chrono::milliseconds kFirstPause{100};
  static constexpr std::chrono::milliseconds kLongestPause{5000};
};

}  // namespace userintent::usecase
