#include "server/observe/limit_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <vector>

#include "server/observe/metric_makers.h"

namespace userintent::observe {
namespace {

// Seconds: up to a tenth of the longest usual deadline, and a little more.
const prometheus::Histogram::BucketBoundaries kWaitBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                              0.25,  0.5,    1,     2.5,  5,     10};

}  // namespace

struct LimitMetrics::Parts {
  prometheus::Gauge* limit = nullptr;
  prometheus::Gauge* slots = nullptr;
  prometheus::Gauge* waiting = nullptr;
  std::vector<prometheus::Counter*> ends;
  prometheus::Histogram* seconds = nullptr;
};

LimitMetrics::LimitMetrics(prometheus::Registry& registry, std::span<const std::string_view> queue_ends)
    : parts_(std::make_unique<Parts>()) {
  parts_->limit = MakeGauge(registry, "userintent_upstream_limit",
                            "Creations that may be under way at once, by what Astra's answers say.");
  parts_->slots = MakeGauge(registry, "userintent_upstream_slots",
                            "Of this limit, how much is taken; more than all for a while after it fell.");
  parts_->waiting = MakeGauge(registry, "userintent_upstream_queue", "Calls that wait for a place below the limit.");
  parts_->ends = MakeCounters(registry, "userintent_upstream_queue_ends_total",
                              "Calls that waited for a place below the limit, by how the wait ended; slot: it got one.",
                              "end", queue_ends);
  parts_->seconds = &prometheus::BuildHistogram()
                         .Name("userintent_upstream_queue_seconds")
                         .Help("How long calls waited for a place below the limit, those included that got none.")
                         .Register(registry)
                         .Add({}, kWaitBuckets);
}

LimitMetrics::~LimitMetrics() = default;

void LimitMetrics::Set(int64_t limit, int64_t slots, int64_t waiting) noexcept {
  parts_->limit->Set(static_cast<double>(limit));
  parts_->slots->Set(static_cast<double>(slots));
  parts_->waiting->Set(static_cast<double>(waiting));
}

void LimitMetrics::RecordWait(size_t end, absl::Duration waited) noexcept {
  parts_->ends[end]->Increment();
  try {
    parts_->seconds->Observe(absl::ToDoubleSeconds(waited));
  } catch (...) {  // of the mutex; one observation is lost
  }
}

}  // namespace userintent::observe
