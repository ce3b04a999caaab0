#include "server/observe/breaker_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "server/observe/metric_makers.h"

namespace userintent::observe {

struct BreakerMetrics::Parts {
  std::vector<prometheus::Gauge*> states;
  std::vector<prometheus::Counter*> opened;  // by cause
  std::vector<prometheus::Counter*> probes;  // by result
};

BreakerMetrics::BreakerMetrics(prometheus::Registry& registry, const BreakerLabels& labels)
    : parts_(std::make_unique<Parts>()) {
  prometheus::Family<prometheus::Gauge>& states =
      prometheus::BuildGauge()
          .Name("userintent_upstream_breaker_state")
          .Help("1 for the state that the breaker is in; but for closed, no creation begins (UPSTREAM_SUSPENDED).")
          .Register(registry);
  for (const std::string_view state : labels.states) {
    parts_->states.push_back(&states.Add({{"state", std::string(state)}}));
  }
  parts_->opened = MakeCounters(registry, "userintent_upstream_breaker_opened_total",
                                "How often the breaker opened, by cause.", "cause", labels.causes);
  parts_->probes = MakeCounters(registry, "userintent_upstream_breaker_probes_total",
                                "GETs by which the breaker learned how Astra does, by what they came to.", "result",
                                labels.probe_results);
  SetState(0);
}

BreakerMetrics::~BreakerMetrics() = default;

void BreakerMetrics::SetState(size_t state) noexcept {
  for (size_t i = 0; i < parts_->states.size(); ++i) parts_->states[i]->Set(i == state ? 1 : 0);
}

void BreakerMetrics::CountOpened(size_t cause) noexcept { parts_->opened[cause]->Increment(); }

void BreakerMetrics::CountProbe(size_t result) noexcept { parts_->probes[result]->Increment(); }

}  // namespace userintent::observe
