// BreakerMetrics: whether creations are suspended because of how Astra answers, and how often that came about.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

// All texts are fixed and live as long as the process; their places are the numbers that the methods are given.
struct BreakerLabels {
  std::span<const std::string_view> states;  // the first one is that of the start
  std::span<const std::string_view> causes;
  std::span<const std::string_view> probe_results;
};

class BreakerMetrics {
 public:
  BreakerMetrics(prometheus::Registry& registry, const BreakerLabels& labels);
  ~BreakerMetrics();
  BreakerMetrics(const BreakerMetrics&) = delete;
  BreakerMetrics& operator=(const BreakerMetrics&) = delete;

  // Calls of this one do not overlap.
  void SetState(size_t state) noexcept;
  void CountOpened(size_t cause) noexcept;
  void CountProbe(size_t result) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
