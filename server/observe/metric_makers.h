// How one series, or one for each word of a label, is registered. For the files of this room that register metrics.
//
// What is returned belongs to `registry` and lives as long.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace userintent::observe {

inline prometheus::Counter* MakeCounter(prometheus::Registry& registry, const std::string& name,
                                        const std::string& help) {
  return &prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

inline prometheus::Gauge* MakeGauge(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return &prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

// A histogram's lock and allocation-free paths do not throw in practice; if one ever does, a lost count must not end a
// call.
template <typename F>
void Quietly(F&& f) noexcept {
  try {
    f();
  } catch (...) {
  }
}

// One counter for each word, in their order.
inline std::vector<prometheus::Counter*> MakeCounters(prometheus::Registry& registry, const std::string& name,
                                                      const std::string& help, const std::string& label,
                                                      std::span<const std::string_view> words) {
  prometheus::Family<prometheus::Counter>& family = prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  std::vector<prometheus::Counter*> counters;
  for (const std::string_view word : words) counters.push_back(&family.Add({{label, std::string(word)}}));
  return counters;
}

}  // namespace userintent::observe
