// watching: a watch of the library with a thread of its own, which keeps the events in their order.
//
// Threads: its owner's; the events come in its own.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "outcome.h"
#include "userintent/client.h"

class Watching {
 public:
  explicit Watching(const userintent::Watch& watch);
  ~Watching();  // stops it
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

  std::string resume_token() const { return watch_.resume_token(); }

  // The next event; throws when none comes in time, or the watch ends without one.
  Outcome Next();
  // Cancels it; throws when it does not end in time.
  void Stop();
  // Why it ended by itself; throws when it does not in time.
  absl::Status Ended();

 private:
  userintent::Watch watch_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<Outcome> events_;
  std::optional<absl::Status> end_;
  std::thread thread_;
};
