// ReplicaMetrics: how it stands with a ledger that replicas share.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws, every series from the start; a
// ledger in a file leaves them as they are.
#pragma once

#include <memory>

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace userintent::observe {

struct ReplicaReport {
  bool well = true;
  int replicas = 0;
  int unswept = 0;
  int standbys = 0;
  double lease_left = 0;     // seconds
  double commit_waits = 0;   // seconds
  double oldest_writer = 0;  // seconds
  int in_doubt = 0;
};

class ReplicaMetrics {
 public:
  explicit ReplicaMetrics(prometheus::Registry& registry);
  ~ReplicaMetrics();
  ReplicaMetrics(const ReplicaMetrics&) = delete;
  ReplicaMetrics& operator=(const ReplicaMetrics&) = delete;

  void Show(const ReplicaReport& report) noexcept;
  void CountSwept(int64_t rows) noexcept;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace userintent::observe
