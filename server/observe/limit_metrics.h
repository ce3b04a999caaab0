// LimitMetrics: the limit of exchanges with Astra, and the queue of calls that wait for their turn.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/time/time.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

class LimitMetrics {
 public:
  // The texts are fixed and live as long as the process; their places are the numbers that RecordWait is given.
  LimitMetrics(prometheus::Registry& registry, std::span<const std::string_view> queue_ends);
  ~LimitMetrics();
  LimitMetrics(const LimitMetrics&) = delete;
  LimitMetrics& operator=(const LimitMetrics&) = delete;

  // The limit, how much of it is taken, and how many calls wait.
  void Set(int64_t limit, int64_t slots, int64_t waiting) noexcept;
  // A call that waits no more.
  void RecordWait(size_t end, absl::Duration waited) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
