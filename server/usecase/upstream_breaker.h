// UpstreamBreaker: whether Astra may be asked for new creations, by what the exchanges with it came to (contract
// section 10, "Breaker").
//
//   kClosed --more than half of the last 20 failed--> kOpen --1 s, 2 s ... 30 s--> kHalfOpen --good answer--> kClosed
//                                                       ^------- the probe fails --------+
//   any ------------------- 401, 403 --------------> kCredentials --- Astra takes them again --------------> kClosed
//
// While it is not closed no creation begins: they hear UPSTREAM_SUSPENDED, and nothing is recorded. What runs already
// goes on; replays, joins and reads never ask it. Only a probe closes it, which is a GET (UpstreamProber): so no try of
// it spends a person's attempt.
//
// What counts as what. Failed: not sent, lost, 5xx, also a 503 with Retry-After. Answered: every other status line.
// Nothing: what the caller itself took back, what a lost lease held back, and streams that Astra's HTTP/2 refused
// unprocessed (it closes a connection in an orderly way, and the next try goes elsewhere). An exchange that began
// before the breaker closed last says nothing of Astra now.
//
// Credentials. A 401 or 403 opens kCredentials at once, unless other credentials are in force by then. A 403 that does
// not read like Astra's may be an edge's word about this one request: it has a probe sent, which decides. In that state
// the files are looked at when a call comes; while they hold other credentials than the refused ones, one call a second
// may try them. The first probe comes as early as that of kOpen, so that one odd 401 costs a second; then every 30 s.
//
// Pure but for the credentials' number: time is given in. One for the process; any thread. A mutex of its own, under
// which it tells its observer, so that what the observer hears is in order.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/base/mutex.h"

namespace userintent::usecase {

enum class BreakerState { kClosed, kOpen, kHalfOpen, kCredentials };
// For metrics; indexed by BreakerState.
inline constexpr std::string_view kBreakerStateNames[] = {"closed", "open", "half_open", "credentials"};
static_assert(std::size(kBreakerStateNames) == static_cast<size_t>(BreakerState::kCredentials) + 1);

enum class BreakerCause { kFailures, kCredentials };
// For metrics; indexed by BreakerCause.
inline constexpr std::string_view kBreakerCauseNames[] = {"failures", "credentials"};
static_assert(std::size(kBreakerCauseNames) == static_cast<size_t>(BreakerCause::kCredentials) + 1);

// What a probe came to. kNothing: an answer that says nothing about the credentials, where those are the question.
enum class ProbeResult { kGood, kFailed, kCredentials, kNothing };
// For metrics; indexed by ProbeResult.
inline constexpr std::string_view kProbeResultNames[] = {"good", "failed", "credentials", "nothing"};
static_assert(std::size(kProbeResultNames) == static_cast<size_t>(ProbeResult::kNothing) + 1);

// Told about the breaker, for logs and metrics. Any thread; must not block, and must not call the breaker.
class BreakerObserver {
 public:
  virtual ~BreakerObserver() = default;
  virtual void OnBreakerState(BreakerState state) = 0;
  // Also when kOpen becomes kCredentials.
  virtual void OnBreakerOpened(BreakerCause cause) = 0;
  virtual void OnBreakerClosed(BreakerCause cause) = 0;
  virtual void OnBreakerProbe(ProbeResult result) = 0;
};

class UpstreamBreaker {
 public:
  struct Options {
    // The number of the credentials in force, as in astra::Outcome. `look`: at the files first, if they were touched
    // since the last time. Null in tests without credentials. Called under the breaker's lock.
    std::function<uint64_t(bool look)> credentials;
    double (*random)() = nullptr;  // in [0, 1); null: no jitter
  };

  static constexpr size_t kWindow = 20;               // exchanges
  static constexpr std::chrono::seconds kWithin{10};  // so young they are
  static constexpr absl::Duration kFirstWait = absl::Seconds(1);
  static constexpr absl::Duration kLongestWait = absl::Seconds(30);
  // Closed for so long, and the waits begin anew.
  static constexpr std::chrono::seconds kForgiven{60};
  static constexpr std::chrono::seconds kProbeLimit{5};

  UpstreamBreaker(Options options, BreakerObserver& observer) : options_(std::move(options)), observer_(observer) {}
  UpstreamBreaker(const UpstreamBreaker&) = delete;
  UpstreamBreaker& operator=(const UpstreamBreaker&) = delete;

  // Why no creation may begin now: what RetryInfo says. Nothing: one may. Takes nothing.
  std::optional<absl::Duration> Suspended(SteadyTime now);
  // One begins, which Suspended() has just let go.
  void OnBegins(SteadyTime now);

  // One exchange ended, which began then. `probe`: it is the breaker's own, which has not run out of time yet.
  void OnPost(SteadyTime now, SteadyTime began, const astra::Outcome& outcome);
  void OnRead(SteadyTime now, SteadyTime began, const std::string& user_intent_id, bool probe,
              const astra::ReadOutcome& outcome);

  // The credential files were read again, by whoever.
  void OnFilesRead(SteadyTime now);

  // Of the prober, which is woken when the time of the next probe has changed. `wake` must not call the breaker.
  void SetProber(std::function<void()> wake);
  // When the next probe is due; nothing: none is, or one runs.
  std::optional<SteadyTime> NextProbe() const;
  // Begins a probe if one is due.
  bool BeginProbe(SteadyTime now);
  // It could not be sent yet: `wait` is how long not.
  void PutOffProbe(SteadyTime now, absl::Duration wait);
  // It has had kProbeLimit; its answer, should it come, counts as any read's.
  void OnProbeSilent(SteadyTime now);

  BreakerState state() const;
  // Of an intent that exists, as far as this process knows; empty: it knows of none.
  std::string known_intent() const;

 private:
  enum class Sign {
    kNothing,   // does not speak of Astra
    kAccepted,  // an answer behind the credentials
    kAnswered,  // a status line; where it comes from, and whether behind the credentials, is open
    kFailed,
    kRefused,  // the credentials are
    kEdge,     // 403, perhaps of an edge in front of Astra
  };
  static Sign SignOf(const astra::Outcome& outcome);
  static Sign SignOf(const astra::ReadOutcome& outcome);

  void OnExchange(SteadyTime now, SteadyTime began, Sign sign, uint64_t credentials)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnProbe(SteadyTime now, Sign sign, uint64_t credentials) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(SteadyTime now, bool failed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Open(SteadyTime now, BreakerCause cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RefuseCredentials(SteadyTime now, uint64_t credentials) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Close(SteadyTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetState(BreakerState state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ProbeAt(SteadyTime when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t Credentials(SteadyTime now, bool look) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration NextWait() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration Jittered(absl::Duration wait) const;

  const Options options_;
  BreakerObserver& observer_;
  std::function<void()> wake_;  // set before the first call comes

  mutable Mutex mutex_;
  BreakerState state_ ABSL_GUARDED_BY(mutex_) = BreakerState::kClosed;
  struct Exchange {
    SteadyTime ended;
    bool failed;
  };
  std::deque<Exchange> window_ ABSL_GUARDED_BY(mutex_);  // the last ones; while closed
  size_t failed_ ABSL_GUARDED_BY(mutex_) = 0;            // of these
  absl::Duration wait_ ABSL_GUARDED_BY(mutex_);          // the last one, without jitter; zero: there was none
  SteadyTime changed_at_ ABSL_GUARDED_BY(mutex_){};      // when it opened, or refused credentials last
  SteadyTime closed_at_ ABSL_GUARDED_BY(mutex_) = SteadyTime::min();

  std::optional<SteadyTime> next_probe_ ABSL_GUARDED_BY(mutex_);
  std::optional<SteadyTime> probe_began_ ABSL_GUARDED_BY(mutex_);  // of the one that runs
  SteadyTime next_suspicion_ ABSL_GUARDED_BY(mutex_){};

  uint64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;  // the number of the credentials that were
  uint64_t seen_ ABSL_GUARDED_BY(mutex_) = 0;     // the newest number since then
  SteadyTime next_look_ ABSL_GUARDED_BY(mutex_){};
  SteadyTime next_trial_ ABSL_GUARDED_BY(mutex_){};
  std::string known_intent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::usecase
