// Loop: the thread that a piece of single-threaded code lives on, as that code sees it.
//
// The real one is rpc::Shard; tests use a fake with a clock of their own. Post() may be called from any thread; the
// rest only from the loop's own thread. A loop outlives everything that holds a reference to it.
#pragma once

#include <chrono>
#include <cstdint>

#include "absl/functional/any_invocable.h"

namespace userintent {

using SteadyClock = std::chrono::steady_clock;
using SteadyTime = SteadyClock::time_point;

using Task = absl::AnyInvocable<void()>;

class Executor {
 public:
  virtual ~Executor() = default;

  // Runs `task` once on the executor's thread, soon and in the order of the calls. Never runs it inline, never blocks.
  virtual void Post(Task task) = 0;
};

class Loop : public Executor {
 public:
  using TimerId = uint64_t;  // 0 is never a timer's id

  // The time at which this turn of the loop began; cheap.
  virtual SteadyTime Now() const = 0;

  // Runs `task` once at or soon after `when`, never inline.
  virtual TimerId CallAt(SteadyTime when, Task task) = 0;

  // Forgets a timer. 0, and ids of timers that ran, are ignored.
  virtual void CancelTimer(TimerId id) = 0;
};

}  // namespace userintent
