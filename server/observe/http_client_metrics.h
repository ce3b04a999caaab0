// HttpClientMetrics: requests to Astra in the words of OpenTelemetry's conventions, so that dashboards made for any
// HTTP client show them.
//
// Made and owned by Metrics, which shows it. As Metrics: any thread, never throws. A series of a status appears with
// its first answer, since it is Astra that chooses the status; so not from the start.
#pragma once

#include <array>
#include <map>
#include <span>
#include <string_view>
#include <tuple>

#include "absl/time/time.h"
#include "server/base/mutex.h"

namespace prometheus {
class Registry;
class Histogram;
template <typename T>
class Family;
}  // namespace prometheus

namespace userintent::observe {

enum class HttpMethod { kGet, kPost };

class HttpClientMetrics {
 public:
  // `errors`: what may keep an answer from coming; fixed, and lives as long as the process.
  HttpClientMetrics(prometheus::Registry& registry, std::span<const std::string_view> errors);
  HttpClientMetrics(const HttpClientMetrics&) = delete;
  HttpClientMetrics& operator=(const HttpClientMetrics&) = delete;

  // One request that ended. `status`: 0 if no status line came. `error`: one of the words; empty if the answer came as
  // a whole.
  void Record(HttpMethod method, int status, std::string_view error, absl::Duration latency) noexcept;

 private:
  using Series = std::tuple<HttpMethod, int, std::string_view>;

  prometheus::Histogram& Find(const Series& series) ABSL_LOCKS_EXCLUDED(mutex_);

  prometheus::Family<prometheus::Histogram>& family_;
  Mutex mutex_;
  std::map<Series, prometheus::Histogram*> histograms_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::observe
