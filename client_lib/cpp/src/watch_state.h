// watch_state: what a watch knows between the messages of its streams: where to go on, which events its reader has not
// seen yet, whether a stream that was lost is taken up again, and after which pause. No I/O but looking at the clock.
//
// One thread at a time.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "userintent/error.h"
#include "userintent/v1/user_intent_service.pb.h"
#include "userintent/watch.h"

namespace userintent {

class WatchState {
 public:
  using Clock = absl::Duration (*)();
  using Jitter = double (*)();  // in [0, 1)

  explicit WatchState(const WatchOptions& options);
  WatchState(const WatchOptions& options, Clock clock, Jitter jitter);

  // Begins a stream: the time that is left for it, infinite without a timeout. Absent: none is left, or the request
  // cannot be sent; the watch has ended with error().
  std::optional<absl::Duration> BeginStream();

  // Of the next stream.
  const v1::WatchUserIntentsRequest& request() const { return request_; }
  const std::string& resume_token() const { return request_.resume_token(); }

  // Absent: nothing that the reader wants to hear.
  std::optional<WatchEvent> Heard(v1::WatchUserIntentsResponse message);

  // A stream has ended with this error; of a clean end the code is OK. How long to wait before the next one. Absent:
  // the watch has ended with error().
  std::optional<absl::Duration> Lost(Error error);

  // The caller does not want to hear more: the watch has ended with error().
  void Cancelled();

  const Error& error() const { return error_; }

 private:
  // `error` as one of this watch, with its request_id and the streams so far.
  Error OfWatch(Error error) const;
  void EndHere(absl::StatusCode code, std::string message);

  const Clock clock_;
  const Jitter jitter_;
  const absl::Duration deadline_;  // on the clock
  v1::WatchUserIntentsRequest request_;
  bool synced_ = false;  // the reader knows
  int lost_ = 0;         // streams without news since the last one with some
  int streams_ = 0;
  std::string trouble_;  // why the last stream was lost, while no other was heard
  Error error_;
};

}  // namespace userintent
