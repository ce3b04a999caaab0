#include "server/usecase/upstream_prober.h"

#include <algorithm>
#include <utility>

#include "server/base/uuid.h"

namespace userintent::usecase {

void UpstreamProber::Listen() {
  breaker_.SetProber([this] { shard_.loop.Post([this] { Arm(); }); });
}

void UpstreamProber::Stop() {
  shard_.loop.Post([this] {
    stopped_ = true;
    shard_.loop.CancelTimer(std::exchange(timer_, 0));
    shard_.loop.CancelTimer(std::exchange(limit_, 0));
  });
}

void UpstreamProber::Arm() {
  shard_.loop.CancelTimer(std::exchange(timer_, 0));
  const std::optional<SteadyTime> next = breaker_.NextProbe();
  if (stopped_ || !next) return;
  timer_ = shard_.loop.CallAt(std::max(*next, shard_.loop.Now()), [this] { OnTime(); });
}

void UpstreamProber::OnTime() {
  timer_ = 0;
  if (!breaker_.BeginProbe(shard_.loop.Now())) return Arm();
  Probe();
}

// What it comes to, IntentReads tells the breaker, as of every GET.
void UpstreamProber::Probe() {
  const uint64_t number = ++probes_;
  shard_.loop.CancelTimer(limit_);
  limit_ = shard_.loop.CallAt(shard_.loop.Now() + UpstreamBreaker::kProbeLimit, [this] {
    limit_ = 0;
    breaker_.OnProbeSilent(shard_.loop.Now());
  });
  reads_.Read(shard_, {Asker::kProbe, IntentToRead()}, [this, number](const Result<ledger::Reading>& result) {
    if (number != probes_ || stopped_) return;
    shard_.loop.CancelTimer(std::exchange(limit_, 0));
    // No GET was sent.
    const bool held_back = !result.ok() && result.error().reason == v1::ERROR_REASON_UPSTREAM_RATE_LIMITED &&
                           result.error().http_status == 0;
    if (held_back) breaker_.PutOffProbe(shard_.loop.Now(), result.error().retry_after);
  });
}

// One that is being read already would get the answer of a GET that began before the probe.
std::string UpstreamProber::IntentToRead() const {
  std::string known = breaker_.known_intent();
  return known.empty() || reads_.IsBeingRead(known) ? UuidText(RandomUuid()) : known;
}

}  // namespace userintent::usecase
