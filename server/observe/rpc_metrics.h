// RpcMetrics: calls as gRPC's proposal A66 counts them, in Prometheus' form, so that dashboards made for any gRPC
// server show this one.
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

class RpcMetrics {
 public:
  // `service`: its full name, which goes before each method. `codes`: names of gRPC's codes, in any order, perhaps
  // several times. All are fixed and live as long as the process.
  RpcMetrics(prometheus::Registry& registry, std::string_view service, std::span<const std::string_view> methods,
             std::span<const std::string_view> codes);
  ~RpcMetrics();
  RpcMetrics(const RpcMetrics&) = delete;
  RpcMetrics& operator=(const RpcMetrics&) = delete;

  // `method` by its place; the number of methods is "other": a method of another service.
  void CountStarted(size_t method) noexcept;
  // `code` by its place.
  void RecordEnded(size_t method, size_t code, absl::Duration latency) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
