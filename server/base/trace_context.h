// TraceContext: which trace a call or a request belongs to, as W3C's Trace Context says it in the header `traceparent`.
//
// Plain values and pure functions, but for those that draw random ids; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace userintent {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

struct TraceContext {
  TraceId trace_id{};
  SpanId span_id{};  // of the span that is the parent of whatever comes next
  bool sampled = false;
};

// Nothing for a text that is not exactly as the standard has it. Of versions that come after 00 what 00 has is read.
std::optional<TraceContext> ParseTraceparent(std::string_view text);

// Version 00; of the flags no more than "sampled".
std::string TraceparentText(const TraceContext& context);

std::string TraceIdText(const TraceId& id);  // 32 digits, in lower case
std::string SpanIdText(const SpanId& id);    // 16 of them

// Random; never all zeros, which stand for "none".
TraceId NewTraceId();
SpanId NewSpanId();

}  // namespace userintent
