// postgres::ForeignJoins: asks how the requests ended that calls here wait for and that other replicas run.
//
// A caller who repeats a request at another replica than the one that runs it waits there as it would wait here
// (ledger::Joins). That replica's end of it is seen in the row, so the rows of all such requests are asked for in one
// statement: 20 ms after somebody began to wait, then at distances that double up to 250 ms. No LISTEN/NOTIFY: its
// commits would stand in line behind one lock of the whole server.
//
// The member's thread alone.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/ledger/ledger.h"
#include "server/ledger/store.h"
#include "server/postgres/poller.h"

namespace userintent::postgres {

// When to ask. Pure.
class JoinPace {
 public:
  static constexpr BootNanos kFirstPause = 20'000'000;
  static constexpr BootNanos kLongestPause = 250'000'000;

  // `keys`: what is waited for. True: ask now. Somebody new begins the distances anew, for all.
  bool IsDue(const std::vector<ledger::Key>& keys, BootNanos now);

 private:
  absl::flat_hash_set<ledger::Key, ledger::KeyHash> known_;  // of the last look
  BootNanos pause_ = kFirstPause;
  BootNanos ask_at_ = 0;
};

class ForeignJoins final : public Poller {
 public:
  // So often it is looked whether somebody waits, which costs no round trip.
  static constexpr BootNanos kLookEvery = JoinPace::kFirstPause;

  // `waits`: what is waited for now. `ended`: these are not SENDING any more. Both are called on the member's thread.
  struct Ledger {
    std::function<std::vector<ledger::Key>()> waits;
    std::function<void(std::vector<ledger::Key>)> ended;
  };

  explicit ForeignJoins(Ledger ledger) : ledger_(std::move(ledger)) {}
  ForeignJoins(const ForeignJoins&) = delete;
  ForeignJoins& operator=(const ForeignJoins&) = delete;

  absl::StatusOr<BootNanos> Turn(Connection& connection, BootNanos now) override;

 private:
  const Ledger ledger_;
  JoinPace pace_;
};

}  // namespace userintent::postgres
