#include "server/observe/rpc_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <vector>

#include "server/observe/metric_makers.h"

namespace userintent::observe {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;

// Seconds. Of A66's boundaries every second or third: a replay takes half a millisecond, an exchange with Astra up to
// half a minute.
const Histogram::BucketBoundaries kBuckets = {0.0001, 0.0003, 0.0006, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05,
                                              0.1,    0.25,   0.5,    1,     2,     5,     10,   20,    50};

}  // namespace

struct RpcMetrics::Parts {
  struct Method {
    Counter* started = nullptr;
    std::vector<Histogram*> seconds;  // by the place of the code; one histogram for each name
  };
  std::vector<Method> methods;
};

RpcMetrics::RpcMetrics(prometheus::Registry& registry, std::string_view service,
                       std::span<const std::string_view> methods, std::span<const std::string_view> codes)
    : parts_(std::make_unique<Parts>()) {
  Family<Counter>& started = prometheus::BuildCounter()
                                 .Name("grpc_server_call_started_total")
                                 .Help("Calls that began, as gRPC's proposal A66 counts them.")
                                 .Register(registry);
  Family<Histogram>& seconds =
      prometheus::BuildHistogram()
          .Name("grpc_server_call_duration_seconds")
          .Help("Time from the arrival of a call to its end, by gRPC's code, as proposal A66 counts it.")
          .Register(registry);
  for (size_t i = 0; i <= methods.size(); ++i) {
    const std::string name =
        i < methods.size() ? std::string(service) + "/" + std::string(methods[i]) : std::string("other");
    Parts::Method& method = parts_->methods.emplace_back();
    method.started = &started.Add({{"grpc_method", name}});
    std::map<std::string_view, Histogram*> by_name;
    for (const std::string_view code : codes) {
      Histogram*& histogram = by_name[code];
      if (histogram == nullptr) {
        histogram = &seconds.Add({{"grpc_method", name}, {"grpc_status", std::string(code)}}, kBuckets);
      }
      method.seconds.push_back(histogram);
    }
  }
}

RpcMetrics::~RpcMetrics() = default;

void RpcMetrics::CountStarted(size_t method) noexcept { parts_->methods[method].started->Increment(); }

void RpcMetrics::RecordEnded(size_t method, size_t code, absl::Duration latency) noexcept {
  Quietly([&] { parts_->methods[method].seconds[code]->Observe(absl::ToDoubleSeconds(latency)); });
}

}  // namespace userintent::observe
