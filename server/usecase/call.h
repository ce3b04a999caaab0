// Call: one call as a use case sees it: who asks what, until when, and where the answer goes. No gRPC.
//
// A handler is a function CallerLeft(Call<Request, Response>&&) on a shard's thread. It answers by running `done` once,
// from inside itself or later on the same thread; after the caller has left, `done` may run or not and is ignored.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/base/loop.h"
#include "server/base/trace_context.h"
#include "server/policy/access.h"
#include "server/usecase/result.h"
#include "server/usecase/trail.h"

namespace userintent::usecase {

// How long before the caller's deadline it must have its answer (contract section 3, REQUEST_IN_PROGRESS).
inline constexpr std::chrono::milliseconds kAnswerMargin{50};
// A ledger that has said nothing for so long is out of order, whatever the caller's deadline.
inline constexpr std::chrono::seconds kLedgerSilent{1};

// When a call that begins now must be answered. When less than twice the margin is left, half of it is for the ledger,
// which must say in the rest that the deadline is too short.
inline SteadyTime AnswerBy(SteadyTime now, SteadyTime deadline) {
  return std::max(deadline - kAnswerMargin, now + (deadline - now) / 2);
}
// The longest wait before another request to Astra, which itself needs `min_deadline`. Negative: there is no time for
// one.
inline absl::Duration LongestWait(SteadyTime now, SteadyTime deadline, SteadyClock::duration min_deadline) {
  return absl::FromChrono(deadline - kAnswerMargin - min_deadline - now);
}

template <typename Response>
using Done = absl::AnyInvocable<void(Result<Response>)>;

// What a handler gives back: run at most once, when the caller cancels or its connection breaks before `done` ran.
// Tells what was done by then. May be empty, when it makes no difference.
using CallerLeft = absl::AnyInvocable<Trail()>;

template <typename Request, typename Response>
struct Call {
  std::string caller;  // the authenticated identity
  Request request;     // parsed, not yet checked
  SteadyTime deadline;
  Done<Response> done;
  std::shared_ptr<const policy::Access> access = nullptr;  // what the caller may do; null in tests: no limits
  std::optional<TraceContext> trace = std::nullopt;        // of the call's span; nothing: it is not traced
};

}  // namespace userintent::usecase
