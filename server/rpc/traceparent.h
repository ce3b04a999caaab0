// The trace that a caller says its call belongs to: the only thing that is ever read of a caller's metadata.
#pragma once

#include <grpcpp/server_context.h>

#include <optional>

#include "server/base/trace_context.h"

namespace userintent::rpc {

// Whether calls are traced here at all, and whether a trace that begins here is one that is exported.
struct Tracing {
  bool on = false;
  bool sample_new = false;
};

// The span of one call: `own` is handed on to what the call does; `parent` is zeros where the trace begins here.
struct CallSpan {
  TraceContext own;
  SpanId parent{};
};

// Nothing: there is no `traceparent`, there are several, or it is malformed. On the call's thread. libgrpc++ makes a
// map of all metadata when it is first asked for one of them, so it is only asked where the answer is of use.
std::optional<TraceContext> TraceOf(const grpc::ServerContext& call);

// The span of a call that begins; nothing where calls are not traced, at no cost.
std::optional<CallSpan> BeginSpan(const grpc::ServerContext& call, const Tracing& tracing);

}  // namespace userintent::rpc
