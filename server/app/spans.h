// The spans that calls and exchanges with Astra become: gRPC's proposal A72 gives a call's span its name, and
// OpenTelemetry's conventions an exchange's. What they tell stands here and nowhere else: words and numbers of the
// gateway's own, no value of a request.
//
// Pure functions; any thread.
#pragma once

#include "absl/time/time.h"
#include "server/observe/span.h"
#include "server/rpc/call_observer.h"
#include "server/usecase/exchange_trace.h"

namespace userintent {

// Of a call with a span. Both end at `now`.
observe::Span SpanOf(const rpc::EndedCall& call, absl::Time now);
observe::Span SpanOf(const usecase::TracedExchange& exchange, absl::Time now);

}  // namespace userintent
