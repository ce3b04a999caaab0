// UpstreamLimit: how many exchanges with Astra may be under way, by what its answers say (contract section 10). The aim
// is fewest unknown outcomes, then throughput.
//
// Pure: time is given in, nothing is waited for, nothing is locked. AdmissionControl owns the one of the process and
// calls it under its lock.
//
//  * It starts at the most, so that an honest burst after a start is not refused.
//  * A loss (an outcome that nobody knows: timeout, reset, cut or unusable answer) halves it, and so does an answer
//    that says "not now" (429, 503 with Retry-After). What began before a cut is no news after it: one burst of losses
//    is one cut. But when half of what was under way is lost without a good answer between, that is no accident, and it
//    is cut again, from what is under way.
//  * Only losses in a row take it below kFew: with so few under way it is not this gateway's load that loses answers.
//  * Slow answers lower it: the median of the recent ones against a baseline that falls quickly and rises slowly. Only
//    where the limit is in use, or the answers come near the timeout; and only above kCalmPart of the timeout, because
//    nothing is lost by answers that are far from it. When half the load makes the answers hardly faster, it is not
//    the load that makes them slow: the baseline learns, and the limit goes back.
//  * Good answers raise it while it is in use: by one each up to where it was when the trouble began, then by its
//    square root for as many answers as it is high. What was learned is forgotten: the place up to which it rises
//    quickly doubles every kForget.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>

#include "server/astra/astra.h"
#include "server/base/loop.h"

namespace userintent::usecase {

class UpstreamLimit {
 public:
  static constexpr int kFew = 16;

  struct Options {
    int min = 2;  // 1 <= min <= max
    int max = 1'000'000;
    SteadyClock::duration timeout = std::chrono::seconds(30);  // of one exchange
  };
  // What an exchange that ended says of the limit.
  enum class Sample {
    kNothing,  // nothing left, a refused stream, or Astra not reached
    kAnswer,
    kNotNow,  // 429, 503 with Retry-After
    kLoss,
  };
  static Sample SampleOf(const astra::Outcome& outcome);

  explicit UpstreamLimit(const Options& options) : options_(options), limit_(options.max), quick_below_(options.max) {}

  // An exchange ended that began at `begun`. `under_way`: exchanges that hold a part of the limit now, this one
  // included.
  void Tell(Sample sample, SteadyTime begun, SteadyTime now, int under_way);

  int limit() const { return static_cast<int>(limit_); }
  // For tests: the median of the recent latencies and what it is compared with, in seconds; 0: not known yet.
  double recent() const { return recent_; }
  double baseline() const { return baseline_; }

 private:
  static constexpr size_t kWindow = 32;  // latencies that are looked at together, at most
  static constexpr size_t kLeast = 8;    // and at least
  static constexpr std::chrono::milliseconds kWindowTime{100};
  static constexpr std::chrono::seconds kForget{10};
  static constexpr std::chrono::minutes kBaselineTime{5};
  static constexpr double kSlow = 2;       // times the baseline
  static constexpr double kCalmPart = 30;  // slow is not below this part of the timeout
  static constexpr double kNearPart = 4;   // and from this part on it is slow whether the limit is in use or not
  static constexpr int kRow = 8;           // losses in a row that are no accident

  void OnAnswer(SteadyTime begun, SteadyTime now, int under_way);
  void OnBad(bool lost, SteadyTime begun, SteadyTime now, int under_way);
  void Observe(SteadyClock::duration latency, SteadyTime now, int under_way);
  void Lower(SteadyTime now, int under_way);
  void Raise(SteadyTime now, int under_way);
  void CutTo(double wanted);
  void Set(double limit);
  bool InUse(int under_way) const { return 2.0 * under_way >= limit_; }

  const Options options_;
  double limit_;
  SteadyTime cut_at_ = SteadyTime::min();  // of the last cut or lowering
  int bad_in_row_ = 0;                     // losses and not-nows since the last good answer
  int bad_since_cut_ = 0;                  // of these, since the last cut, and of exchanges that began before it
  bool cut_again_ = false;                 // in the burst that the last cut was for
  double quick_below_;
  SteadyTime quick_since_{};

  std::array<double, kWindow> window_{};  // a ring
  size_t samples_ = 0;                    // since the window began
  SteadyTime window_began_{}, judged_at_{};
  double recent_ = 0, baseline_ = 0;
  bool slow_ = false;
  double lowered_from_ = 0, lowered_recent_ = 0;  // limit and recent_ when this lowering began; 0: none runs
  int lowered_under_way_ = 0;                     // likewise
};

}  // namespace userintent::usecase
