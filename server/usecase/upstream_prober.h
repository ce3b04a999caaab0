// UpstreamProber: sends the breaker's probes. Each is one GET of an intent that exists, where this process knows one,
// else of an id made up, to which 404 is a good answer; so a probe spends nobody's attempt.
//
// A probe is a read as any other: it is counted in the read budget, but does not wait for it, or callers that read
// would keep creations suspended. It does wait while Astra has asked to be left alone (429).
//
// Lives on one shard's loop, and outlives the loop's tasks. The breaker outlives it, and wakes it from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "server/base/loop.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/upstream_breaker.h"

namespace userintent::usecase {

class UpstreamProber {
 public:
  // All outlive this.
  UpstreamProber(UpstreamBreaker& breaker, IntentReads& reads, const IntentReads::Shard& shard)
      : breaker_(breaker), reads_(reads), shard_(shard) {}
  UpstreamProber(const UpstreamProber&) = delete;
  UpstreamProber& operator=(const UpstreamProber&) = delete;

  // Before the breaker is told of anything.
  void Listen();
  // No probe is sent any more, soon. Any thread.
  void Stop();

 private:
  void Arm();
  void OnTime();
  void Probe();
  std::string IntentToRead() const;

  UpstreamBreaker& breaker_;
  IntentReads& reads_;
  const IntentReads::Shard shard_;
  Loop::TimerId timer_ = 0;  // of the next probe
  Loop::TimerId limit_ = 0;  // of the one that runs
  uint64_t probes_ = 0;
  bool stopped_ = false;
};

}  // namespace userintent::usecase
