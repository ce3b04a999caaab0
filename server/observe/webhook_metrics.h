// WebhookMetrics: what is counted of Astra's webhooks: those that came in, and what came of them.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "absl/time/time.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

// All texts are fixed and live as long as the process; their places are the numbers that the methods are given.
struct WebhookLabels {
  std::span<const std::string_view> answers;
  std::span<const std::string_view> keys;
  std::span<const std::string_view> forms;
  std::span<const std::string_view> cuts;
  std::span<const std::string_view> results;
};

class WebhookMetrics {
 public:
  WebhookMetrics(prometheus::Registry& registry, const WebhookLabels& labels);
  ~WebhookMetrics();
  WebhookMetrics(const WebhookMetrics&) = delete;
  WebhookMetrics& operator=(const WebhookMetrics&) = delete;

  // One answer at the door.
  void RecordAnswer(size_t answer, absl::Duration took) noexcept;
  // One that was stored, or known.
  void SetLastReceived(absl::Time time) noexcept;
  void CountSignature(size_t key, size_t form) noexcept;
  void CountCut(size_t why) noexcept;
  void SetConnections(size_t open) noexcept;

  // One webhook of which something came.
  void CountEnded(size_t result) noexcept;
  void CountSettled() noexcept;
  void SetBacklog(size_t waiting, absl::Duration oldest) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
