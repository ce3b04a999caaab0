// ExchangeTrace: the span of one exchange with Astra, a child of the span of the call that it is for. Costs nothing
// where the call is not traced. Plain values; belongs to whoever makes the exchange.
#pragma once

#include <optional>
#include <string_view>

#include "server/astra/astra.h"
#include "server/base/loop.h"
#include "server/base/trace_context.h"

namespace userintent::usecase {

// One exchange that ended.
struct TracedExchange {
  TraceContext span;
  SpanId parent{};
  bool post = false;  // else a GET
  int http_status = 0;
  std::string_view error_type;  // as in astra::Outcome
  SteadyClock::duration took{};
};

class ExchangeTrace {
 public:
  explicit ExchangeTrace(std::optional<TraceContext> call) : call_(call) {}

  // The next request that `astra` is given belongs to this trace.
  void Begin(astra::Client& astra) {
    if (!call_) return;
    span_ = {call_->trace_id, NewSpanId(), call_->sampled};
    astra.TraceNext(span_);
  }

  // Nothing: nobody wants the span.
  template <typename Outcome>
  std::optional<TracedExchange> End(bool post, const Outcome& outcome, SteadyClock::duration took) const {
    if (!call_ || !call_->sampled) return std::nullopt;
    return TracedExchange{span_, call_->span_id, post, outcome.http_status, outcome.error_type, took};
  }

 private:
  std::optional<TraceContext> call_;
  TraceContext span_;
};

}  // namespace userintent::usecase
