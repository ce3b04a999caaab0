#include "server/usecase/upstream_limit.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace userintent::usecase {
namespace {

double Seconds(SteadyClock::duration d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

UpstreamLimit::Sample UpstreamLimit::SampleOf(const astra::Outcome& outcome) {
  using astra::Verdict;
  switch (outcome.verdict) {
    case Verdict::kCreated:
    case Verdict::kLimitReached:
    case Verdict::kRejected:
    case Verdict::kCredentialsRejected:
    case Verdict::kMisconfigured:
      return Sample::kAnswer;
    case Verdict::kRateLimited:
    case Verdict::kUnavailable:
      return Sample::kNotNow;
    case Verdict::kUnknown:
      return Sample::kLoss;
    case Verdict::kRefused:  // no harm done, and the HTTP client spreads them
    case Verdict::kNotSent:
      break;
  }
  return Sample::kNothing;
}

void UpstreamLimit::Tell(Sample sample, SteadyTime begun, SteadyTime now, int under_way) {
  if (sample == Sample::kNothing) return;
  if (sample == Sample::kAnswer) return OnAnswer(begun, now, under_way);
  OnBad(sample == Sample::kLoss, begun, now, under_way);
}

void UpstreamLimit::OnAnswer(SteadyTime begun, SteadyTime now, int under_way) {
  bad_in_row_ = bad_since_cut_ = 0;
  if (begun <= cut_at_) return;  // it met another limit than the one of now
  Observe(now - begun, now, under_way);
  if (!slow_) Raise(now, under_way);
}

void UpstreamLimit::OnBad(bool lost, SteadyTime begun, SteadyTime now, int under_way) {
  ++bad_in_row_;
  quick_since_ = now;
  if (begun > cut_at_) {
    CutTo(limit_ / 2);
    cut_at_ = now;
    bad_since_cut_ = 0;
    cut_again_ = false;
    quick_below_ = limit_;
    return;
  }
  if (!lost) return;
  const double base = std::min<double>(limit_, under_way);
  if (++bad_since_cut_ < std::max<double>(kRow, base / 2)) return;
  bad_since_cut_ = 0;
  CutTo(base / 2);
  cut_at_ = now;
  if (!std::exchange(cut_again_, true)) quick_below_ = limit_;
}

void UpstreamLimit::Observe(SteadyClock::duration latency, SteadyTime now, int under_way) {
  if (samples_ == 0) window_began_ = now;
  window_[samples_++ % kWindow] = Seconds(latency);
  if (samples_ < kLeast || now - window_began_ < kWindowTime) return;
  const auto middle = window_.begin() + static_cast<std::ptrdiff_t>(std::min(samples_, kWindow) / 2);
  std::nth_element(window_.begin(), middle, window_.begin() + static_cast<std::ptrdiff_t>(std::min(samples_, kWindow)));
  recent_ = *middle;
  samples_ = 0;

  if (baseline_ == 0) {
    baseline_ = recent_;
  } else if (recent_ < baseline_) {
    baseline_ += (recent_ - baseline_) / 4;
  } else if (!InUse(under_way)) {  // in use it would follow the latency that the limit itself makes
    baseline_ += (recent_ - baseline_) * std::min(1.0, Seconds(now - judged_at_) / Seconds(kBaselineTime));
  }
  judged_at_ = now;
  const double timeout = Seconds(options_.timeout);
  slow_ = recent_ > kSlow * baseline_ && recent_ > timeout / kCalmPart;
  if (!slow_) {
    lowered_from_ = 0;
  } else if (InUse(under_way) || (recent_ > timeout / kNearPart && under_way >= kFew)) {
    Lower(now, under_way);
  }
}

void UpstreamLimit::Lower(SteadyTime now, int under_way) {
  if (lowered_from_ > 0 && (2 * under_way <= lowered_under_way_ || limit_ <= options_.min)) {
    if (recent_ > 0.8 * lowered_recent_) {  // hardly faster: it is Astra's own pace
      baseline_ = recent_;
      slow_ = false;
      Set(std::max(limit_, lowered_from_));
      lowered_from_ = 0;
      return;
    }
    lowered_from_ = 0;  // it helps: on from here
  }
  if (lowered_from_ == 0) {
    lowered_from_ = limit_;
    lowered_recent_ = recent_;
    lowered_under_way_ = under_way;
  }
  const double base = std::min(limit_, 2.0 * under_way);
  Set(std::min(limit_, base * std::clamp(kSlow * baseline_ / recent_, 0.5, 0.9)));
  quick_below_ = limit_;
  quick_since_ = cut_at_ = now;
}

void UpstreamLimit::Raise(SteadyTime now, int under_way) {
  if (limit_ >= options_.max || (!InUse(under_way) && limit_ >= kFew)) return;
  for (; quick_below_ < options_.max && now >= quick_since_ + kForget; quick_since_ += kForget) quick_below_ *= 2;
  Set(limit_ + (limit_ < std::max<double>(quick_below_, kFew) ? 1 : 1 / std::sqrt(limit_)));
}

void UpstreamLimit::CutTo(double wanted) {
  const double least = bad_in_row_ >= kRow ? options_.min : kFew;
  Set(std::min(limit_, std::max(wanted, least)));
}

void UpstreamLimit::Set(double limit) { limit_ = std::clamp<double>(limit, options_.min, options_.max); }

}  // namespace userintent::usecase
