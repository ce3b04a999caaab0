// Signals: what a supervisor orders a process to do, and the watchdog that sees to its end.
//
//   TERM, INT   stop: main drains, then ends. Once more, and QUIT at any time: the end at once, with the status
//               128 + signal as a shell tells it
//   HUP         read the files again
//
// Once told to stop, the process ends after `longest` whatever hangs, a start included (contract section 10): with the
// status kEndedByWatchdog, by _exit. No row is lost by that: what is committed is on disk, and what was being sent is
// UNKNOWN at the next start, as after a crash.
//
// A thread of its own waits for the signals, because main is busy while it starts and drains, and may be what hangs.
// The thread shares nothing with the rest of the process but the log, and waits for that no longer than a moment.
// Made by main before any other thread, so that every thread inherits the mask; never destroyed, for its thread may
// outlive main.
#pragma once

#include <signal.h>

#include <chrono>
#include <optional>

#include "server/base/mutex.h"

namespace userintent {

class Server;

class Signals {
 public:
  enum class Wish { kNone, kReload, kStop };

  // As timeout(1) has it for a command whose time was up.
  static constexpr int kEndedByWatchdog = 124;

  explicit Signals(std::chrono::nanoseconds longest);
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // What came since the last call, at the latest after `wait`. Main's thread.
  Wish Next(std::chrono::milliseconds wait);

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  // The next signal; nothing: the watchdog's time has come.
  std::optional<int> Take();
  void Took(int number);

  const std::chrono::nanoseconds longest_;
  sigset_t set_;
  std::optional<Clock::time_point> told_;  // to stop, when first; the signals' thread only
  int told_by_ = 0;
  Mutex mutex_;
  CondVar came_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool reload_ ABSL_GUARDED_BY(mutex_) = false;
};

// Keeps the server's house until a signal says stop, then drains it. Main's thread.
void ServeUntilStopped(Server& server, Signals& signals);

}  // namespace userintent
