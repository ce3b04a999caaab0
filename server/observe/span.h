// Span: one stretch of time of a trace, and how it is written for OTLP (OpenTelemetry's protocol, over HTTP as JSON).
//
// Plain values and a pure function; any thread. Names, keys and texts are fixed words that live as long as the process:
// there is no way to put a value of a request into a span.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "server/base/trace_context.h"

namespace userintent::observe {

struct SpanAttribute {
  std::string_view key;
  std::variant<std::string_view, int64_t> value;
};

struct Span {
  enum class Kind { kServer = 2, kClient = 3 };  // OTLP's numbers

  TraceId trace_id{};
  SpanId span_id{};
  SpanId parent{};  // zeros: the trace begins here
  std::string_view name;
  Kind kind = Kind::kServer;
  absl::Time start;
  absl::Time end;
  bool failed = false;
  absl::InlinedVector<SpanAttribute, 4> attributes;
};

// The body of one request to a collector. `version`: of this program.
std::string OtlpJson(std::span<const Span> spans, std::string_view version);

}  // namespace userintent::observe
