// ledger::ChangeFeed: what changed in a ledger, in order: the source of what watchers are told (contract section 7).
//
// Each change has a revision: 1, 2, 3 ... in the order of the commits; a number is never used for two committed
// changes, also not after a restart or when old ones were forgotten. A change is logged when a creation ends, in any
// state and by whoever ends it (the call, a start after a crash, a proof, an operator), and when a reading says another
// status, user or verification type than the latest. The log holds no state: who reads it gets the row as it is now,
// so that steps are folded and no state is told that was not committed.
//
// Any thread may call. Answers go through the caller's Executor, never inline.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/types/span.h"
#include "server/base/loop.h"
#include "server/base/uuid.h"
#include "server/ledger/ledger.h"

namespace userintent::ledger {

struct Change {
  int64_t revision = 0;
  Key key;
  friend bool operator==(const Change&, const Change&) = default;
};

class ChangeListener {
 public:
  virtual ~ChangeListener() = default;
  // After the commit, in the order of revision, each change once. On the ledger's own thread, perhaps under its lock:
  // must not block, and must not call the ledger.
  virtual void OnChanges(absl::Span<const Change> changes) = 0;
};

class ChangeFeed {
 public:
  struct Request {
    std::string caller = {};
    std::shared_ptr<const absl::flat_hash_set<Uuid>> only = nullptr;  // these requests of the caller; null: all of them
    int64_t after = 0;                                                // 0: from the beginning
    size_t limit = 64;                                                // of requests
  };
  struct Changed {
    int64_t revision = 0;
    Record record;  // as it is now
    Budget budget;
  };
  struct Answer {
    bool available = false;  // false: the ledger cannot be read
    // The changes after `after` are not all kept, or this ledger has told no change with that number.
    bool too_old = false;
    std::vector<Changed> changed;  // by revision; a request once, at its last change in the slice
    // The log was read so far: a slice at a time, so read on until it is the revision that is wanted. Rows that were
    // forgotten meanwhile are left out.
    int64_t upto = 0;
  };
  using Done = absl::AnyInvocable<void(Answer)>;

  virtual ~ChangeFeed() = default;

  // Tells one ledger from another; a copy that was restored has the same.
  virtual uint64_t ledger_id() const = 0;
  // Of the last committed change; 0: there was none. When the listener hears of a change, it is at least that.
  virtual int64_t revision() const = 0;
  // Before the first call; null: nobody. It outlives the ledger.
  virtual void SetListener(ChangeListener* listener) = 0;

  virtual void ReadChanges(Request request, Executor& executor, Done done) = 0;
};

}  // namespace userintent::ledger
