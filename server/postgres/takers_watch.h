// postgres::TakersWatch: when other replicas may be taken for dead, and their rows for unknown.
//
// A pure rule over what was seen and when, by this machine's own clock; no clock of the database or of another machine
// is compared with it. A replica is fenced when the same beat of it was seen for the whole fence time while this one
// looked without a gap. Its rows are swept when it was seen as ended for the whole quiet time: by then nothing that it
// began can still run.
//
// Why it holds: the owner's lease counts from before its beat was sent, the fence from after that beat was seen, and
// fence > lease; an exchange that began within the lease ends within the longest exchange, and fence + quiet is longer
// than lease + that. A process that was frozen between its look at the lease and its first byte breaks this, and then
// the row says "maybe sent", which is true. So being wrong here costs an operator's time and never a second POST.
//
// Thread-compatible.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "server/base/lease.h"

namespace userintent::postgres {

class TakersWatch {
 public:
  struct Limits {
    BootNanos fence = 0;            // the same beat for so long: dead
    BootNanos quiet = 0;            // ended for so long: nothing of it runs
    BootNanos gap = 2'000'000'000;  // longer than this without a look: begin anew
  };
  struct Replica {
    int64_t epoch = 0;
    int64_t beat = 0;
    bool ended = false;
  };
  struct Verdict {
    std::vector<Replica> fence;  // by the beat that was seen, so that one who beats meanwhile is spared
    std::vector<int64_t> sweep;
    int alive = 0;  // that beat, this one among them
    int rank = 0;   // of this one among them, by epoch
    int ended = 0;  // and are not swept yet
  };

  explicit TakersWatch(const Limits& limits) : limits_(limits) {}

  // `all`: every replica that is not swept. `before` and `after`: when they were asked for, and answered.
  Verdict Look(absl::Span<const Replica> all, int64_t mine, BootNanos before, BootNanos after);

 private:
  struct Seen {
    int64_t beat = 0;
    bool ended = false;
    BootNanos since = 0;
  };
  const Limits limits_;
  absl::flat_hash_map<int64_t, Seen> seen_;
  BootNanos looked_ = 0;
};

}  // namespace userintent::postgres
