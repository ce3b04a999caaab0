#include "server/app/breaker.h"

#include <utility>

#include "absl/random/random.h"

namespace userintent {

Breaker::Breaker(bool wanted, astra::Credentials& credentials, FileReloader& files,
                 usecase::BreakerObserver& observer) {
  if (!wanted) return;
  usecase::UpstreamBreaker::Options options;
  options.credentials = [&credentials](bool look) {
    if (look) credentials.RefreshIfTouched();
    return credentials.Snapshot()->number;
  };
  options.random = [] { return absl::Uniform(absl::BitGen(), 0.0, 1.0); };
  breaker_ = std::make_unique<usecase::UpstreamBreaker>(std::move(options), observer);
  files.Also([this] { breaker_->OnFilesRead(SteadyClock::now()); });
}

void Breaker::ProbeOn(const usecase::IntentReads::Shard& shard, usecase::IntentReads& reads) {
  if (!breaker_) return;
  prober_ = std::make_unique<usecase::UpstreamProber>(*breaker_, reads, shard);
  prober_->Listen();
}

void Breaker::StopProbing() {
  if (prober_) prober_->Stop();
}

}  // namespace userintent
