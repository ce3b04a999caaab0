// Breaker: the breaker and its prober, put together; neither where --noupstream_breaker says so.
//
// server.cc owns it: made before the admission control, which asks it, and destroyed after the shards, whose calls tell
// it of their exchanges and one of which sends its probes.
#pragma once

#include <memory>

#include "server/app/file_reloader.h"
#include "server/astra/credentials.h"
#include "server/usecase/intent_reads.h"
#include "server/usecase/upstream_breaker.h"
#include "server/usecase/upstream_prober.h"

namespace userintent {

class Breaker {
 public:
  // `files` tells it when the credentials were read again.
  Breaker(bool wanted, astra::Credentials& credentials, FileReloader& files, usecase::BreakerObserver& observer);

  // Null: there is none.
  usecase::UpstreamBreaker* get() const { return breaker_.get(); }

  // Before the first call comes: probes are sent on this shard.
  void ProbeOn(const usecase::IntentReads::Shard& shard, usecase::IntentReads& reads);
  // The process drains: no further probe is sent. Any thread.
  void StopProbing();

 private:
  std::unique_ptr<usecase::UpstreamBreaker> breaker_;
  std::unique_ptr<usecase::UpstreamProber> prober_;
};

}  // namespace userintent
