// call: the tries of one call: how long each may take, whether and when to send it again; and the budget of a client's
// repeats. No I/O but looking at the clock.
//
// Any thread may use a Budget. A Call belongs to one thread at a time, and its budget must outlive it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "userintent/error.h"

namespace userintent {

// Of a message on the wire: the gateway takes no longer one.
inline constexpr size_t kMaxRequestBytes = 64 * 1024;

// A token bucket: repeats stay few beside the calls that succeed, so they cannot keep an outage going.
class Budget {
 public:
  // Pays for one repeat; false: there is not enough left for a whole one.
  bool Take();
  void Succeeded();

 private:
  // In tenths of a token, so that the sums are exact.
  static constexpr int kCapacity = 100;
  static constexpr int kRepeat = 10;
  static constexpr int kSuccess = 1;

  absl::Mutex mu_;
  int tokens_ ABSL_GUARDED_BY(mu_) = kCapacity;
};

// Time that only goes forward, from an arbitrary start.
absl::Duration SteadyNow();
// gRPC's form of a moment. Nobody waits longer than a year; far beyond it, the clocks' conversions in gRPC overflow.
std::chrono::system_clock::time_point In(absl::Duration left);
// In [0, 1).
double RandomJitter();

// Why a request cannot be sent at all: it is longer than the gateway takes, or a text in it is not UTF-8, which
// protobuf would send all the same. Code, message, reason and recovery; absent: it can.
std::optional<Error> Unsendable(const google::protobuf::Message& request);

class Call {
 public:
  using Clock = absl::Duration (*)();
  using Jitter = double (*)();  // in [0, 1)

  Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget);
  Call(std::string request_id, absl::Duration timeout, int max_tries, Budget* budget, Clock clock, Jitter jitter);

  // Makes it a read, whose errors say nothing about sending. user_intent_id: what it asks for; empty: the request's.
  // Before the first try.
  void IsRead(std::string user_intent_id);
  bool is_read() const { return read_; }

  // Begins a try: the time that is left for its RPC. Absent: none is left; the call has ended with error().
  std::optional<absl::Duration> BeginTry();

  // Whether this request can be sent at all. False: the call has ended with error(). Before the first try.
  bool Accepts(const google::protobuf::Message& request);

  void Succeeded() { budget_->Succeeded(); }

  // How long to wait before the next try. Absent: there is to be none; the call has ended with error().
  std::optional<absl::Duration> Failed(Error error);

  // The call was cancelled while no RPC ran: it has ended with error(), which says "not sent" before the first try.
  void Cancelled();

  const std::string& request_id() const { return request_id_; }
  int tries() const { return tries_; }
  const Error& error() const { return error_; }

 private:
  // An error of this library's own, of a call that ended without an answer.
  void EndHere(absl::StatusCode code, std::string message);
  // What error_ says beside the answer: whose error it is, and why there is no further try.
  void Complete(std::string_view not_repeated);

  const std::string request_id_;
  const int max_tries_;
  Budget* const budget_;
  const Clock clock_;
  const Jitter jitter_;
  const absl::Duration deadline_;
  bool read_ = false;
  std::string user_intent_id_;  // of a read
  int tries_ = 0;
  Error error_;  // of the last try
};

}  // namespace userintent
