#include "server/observe/policy_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/observe/metric_makers.h"

namespace userintent::observe {
namespace {

using prometheus::BuildGauge;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Registry;

}  // namespace

struct PolicyMetrics::Parts {
  std::vector<Counter*> denied;      // by method
  std::vector<Counter*> would_deny;  // by reason
  Mutex rules_mutex;
  Family<Gauge>* rules_family = nullptr;
  Gauge* rules ABSL_GUARDED_BY(rules_mutex) = nullptr;  // the one child of the family
  Counter* probes_limited = nullptr;
  Gauge* age = nullptr;
  Counter* reload_failures = nullptr;
};

PolicyMetrics::PolicyMetrics(Registry& registry, std::span<const std::string_view> methods,
                             std::span<const std::string_view> would_deny)
    : parts_(std::make_unique<Parts>()) {
  parts_->denied = MakeCounters(registry, "userintent_policy_denied_total",
                                "Calls, and watches under way, that the policy refused, by method.", "method", methods);
  parts_->would_deny = MakeCounters(registry, "userintent_policy_would_deny_total",
                                    "Calls that passed only because their rule says enforce: false, by what would have "
                                    "refused them.",
                                    "reason", would_deny);
  parts_->rules_family = &BuildGauge()
                              .Name("userintent_policy_rules")
                              .Help("Rules of the policy in force; the label begins like `sha256sum` of its file.")
                              .Register(registry);
  SetPolicy("none", 0);
  parts_->probes_limited = MakeCounter(registry, "userintent_probes_limited_total",
                                       "Answers that would have told a caller of others' requests, and were held back "
                                       "because it is over its probe_rate.");
  parts_->age = MakeGauge(registry, "userintent_policy_age_seconds",
                          "How long ago the policy file was last read and found good; 0: there is none.");
  parts_->reload_failures = MakeCounter(registry, "userintent_policy_reload_failures_total",
                                        "Readings of the policy file that were refused; the last good one stays.");
}

PolicyMetrics::~PolicyMetrics() = default;

void PolicyMetrics::CountDenied(size_t method) noexcept { parts_->denied[method]->Increment(); }

void PolicyMetrics::CountWouldDeny(size_t reason) noexcept { parts_->would_deny[reason]->Increment(); }

void PolicyMetrics::SetPolicy(const std::string& sha256, size_t rules) noexcept {
  const MutexLock lock(parts_->rules_mutex);
  Gauge* const before = parts_->rules;
  try {
    parts_->rules = &parts_->rules_family->Add({{"sha256", sha256}});
  } catch (...) {  // the label of before stays
    return;
  }
  parts_->rules->Set(static_cast<double>(rules));
  if (before != nullptr && before != parts_->rules) parts_->rules_family->Remove(before);
}

void PolicyMetrics::AddWouldDeny(size_t reason, uint64_t n) noexcept {
  parts_->would_deny[reason]->Increment(static_cast<double>(n));
}

void PolicyMetrics::AddProbesLimited(uint64_t n) noexcept { parts_->probes_limited->Increment(static_cast<double>(n)); }

void PolicyMetrics::SetAge(absl::Duration age) noexcept { parts_->age->Set(absl::ToDoubleSeconds(age)); }

void PolicyMetrics::CountReloadFailure() noexcept { parts_->reload_failures->Increment(); }

}  // namespace userintent::observe
