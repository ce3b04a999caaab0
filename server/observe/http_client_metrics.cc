#include "server/observe/http_client_metrics.h"

#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string>

#include "server/observe/metric_makers.h"

namespace userintent::observe {
namespace {

// Seconds; the conventions advise these, and the last two reach beyond --upstream_timeout.
const prometheus::Histogram::BucketBoundaries kUpstreamBuckets = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5,
                                                                  0.75,  1,    2.5,   5,    7.5,   10,  20,   40};

// A peer that made up statuses could fill the memory otherwise.
constexpr size_t kMostSeries = 200;

}  // namespace

HttpClientMetrics::HttpClientMetrics(prometheus::Registry& registry, std::span<const std::string_view> errors)
    : family_(prometheus::BuildHistogram()
                  .Name("http_client_request_duration_seconds")
                  .Help("Time of one request to Astra, in the words of OpenTelemetry's conventions; error_type is the "
                        "status from 400 on, or what kept a whole answer from coming. A status appears with its first "
                        "answer.")
                  .Register(registry)) {
  for (const HttpMethod method : {HttpMethod::kGet, HttpMethod::kPost}) {
    Find({method, 200, ""});
    for (const std::string_view error : errors) Find({method, 0, error});
  }
}

void HttpClientMetrics::Record(HttpMethod method, int status, std::string_view error, absl::Duration latency) noexcept {
  Quietly([&] { Find({method, status, error}).Observe(absl::ToDoubleSeconds(latency)); });
}

prometheus::Histogram& HttpClientMetrics::Find(const Series& series) {
  const MutexLock lock(mutex_);
  const auto found = histograms_.find(series);
  if (found != histograms_.end()) return *found->second;
  const auto& [method, status, error] = series;
  const bool full = histograms_.size() >= kMostSeries;
  prometheus::Labels labels{{"http_request_method", method == HttpMethod::kPost ? "POST" : "GET"}};
  // What is absent is left out, as the conventions want it.
  const std::string number = full ? "other" : std::to_string(status);
  if (status != 0) labels.emplace("http_response_status_code", number);
  if (!error.empty()) {
    labels.emplace("error_type", std::string(error));
  } else if (status >= 400) {
    labels.emplace("error_type", number);
  }
  prometheus::Histogram& histogram = family_.Add(labels, kUpstreamBuckets);
  if (!full) histograms_.emplace(series, &histogram);
  return histogram;
}

}  // namespace userintent::observe
