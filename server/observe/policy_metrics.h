// PolicyMetrics: what is counted of the policy: calls that it refused or would have refused, and how its file fares.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

class PolicyMetrics {
 public:
  // All texts are fixed and live as long as the process; their places are the numbers that the methods are given.
  PolicyMetrics(prometheus::Registry& registry, std::span<const std::string_view> methods,
                std::span<const std::string_view> would_deny);
  ~PolicyMetrics();
  PolicyMetrics(const PolicyMetrics&) = delete;
  PolicyMetrics& operator=(const PolicyMetrics&) = delete;

  // One call that was refused, and one that passed because its rule says `enforce: false`.
  void CountDenied(size_t method) noexcept;
  void CountWouldDeny(size_t reason) noexcept;
  // The same of limits, as a difference since the last call; and answers that were held back by a caller's probe_rate.
  void AddWouldDeny(size_t reason, uint64_t n) noexcept;
  void AddProbesLimited(uint64_t n) noexcept;

  // What is in force: the first hex digits of the file's SHA-256, which are no secret, and how many rules it has.
  void SetPolicy(const std::string& sha256, size_t rules) noexcept;
  // How long ago the file was last read and found good; zero where there is none.
  void SetAge(absl::Duration age) noexcept;
  void CountReloadFailure() noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
