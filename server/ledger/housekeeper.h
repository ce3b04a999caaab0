// ledger::Housekeeper: what a store needs done around its batches: to look whether it may still be written, to forget
// old rows, to tidy its files. Called by BatchLedger on the writer's thread, but for writable().
#pragma once

#include <chrono>

#include "server/ledger/group_commit.h"

namespace userintent::ledger {

class Housekeeper {
 public:
  using Time = std::chrono::steady_clock::time_point;

  virtual ~Housekeeper() = default;

  // Before each turn: sets what the batch may do (set_admit, set_resend).
  virtual void Look(GroupCommit& commit, Time now) = 0;
  // Before a batch that may write, while writes work.
  virtual void BeforeWrites(GroupCommit& commit, Time now) = 0;
  // Nothing waits.
  virtual void WhenIdle(GroupCommit& commit, Time now) = 0;
  // After each turn.
  virtual void AfterTurn(const GroupCommit& commit) = 0;
  // After the last turn.
  virtual void AtEnd(GroupCommit& commit) = 0;

  // When there is something to do though no operation comes. `healthy`: writes work.
  virtual Time NextDue(bool healthy) const = 0;

  // Ledger::Writable. Any thread.
  virtual bool writable() const = 0;
};

}  // namespace userintent::ledger
