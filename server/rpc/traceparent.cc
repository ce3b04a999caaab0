#include "server/rpc/traceparent.h"

#include <iterator>
#include <string_view>

namespace userintent::rpc {

std::optional<TraceContext> TraceOf(const grpc::ServerContext& call) {
  const auto [first, end] = call.client_metadata().equal_range("traceparent");
  if (first == end || std::next(first) != end) return std::nullopt;
  return ParseTraceparent(std::string_view(first->second.data(), first->second.size()));
}

std::optional<CallSpan> BeginSpan(const grpc::ServerContext& call, const Tracing& tracing) {
  if (!tracing.on) return std::nullopt;
  if (const std::optional<TraceContext> caller = TraceOf(call)) {
    return CallSpan{{caller->trace_id, NewSpanId(), caller->sampled}, caller->span_id};
  }
  return CallSpan{{NewTraceId(), NewSpanId(), tracing.sample_new}, {}};
}

}  // namespace userintent::rpc
