// OtlpExporter: hands spans to a collector (--otlp_endpoint), as OTLP over HTTP with JSON.
//
// Export() may be called from any thread: it puts the span into a queue, takes one short lock, and never waits. A
// thread of its own sends what is queued in batches. Spans are dropped and counted where the queue is full, and where a
// batch is not taken: a collector that is slow, gone or wrong costs spans and nothing else. After a batch that failed
// the next one waits for a while.
//
// Made by Telemetry after libcurl was set up (http::CurlGlobalInit); its destructor tries to send one more batch, for a
// second or two at most.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/base/mutex.h"
#include "server/observe/span.h"

namespace userintent::observe {

// What became of spans; for metrics.
enum class SpanEnd {
  kExported,
  kDropped,  // the queue was full
  kFailed,   // the collector did not take them
};

class OtlpExporter {
 public:
  struct Options {
    std::string origin;   // "https://host:port" or "http://host:port"; /v1/traces is added
    std::string version;  // of this program
    size_t max_queued = 4096;
    size_t max_batch = 512;
    std::chrono::milliseconds interval{1000};  // between two batches that are not full
    std::chrono::milliseconds pause{5000};     // after one that failed
    std::chrono::milliseconds timeout{5000};   // of one request
    std::chrono::milliseconds last{1000};      // of the last one, at the end; libcurl looks once a second
    // Any thread; must not block.
    std::function<void(SpanEnd end, size_t spans)> on_end = [](SpanEnd, size_t) {};
  };

  explicit OtlpExporter(Options options);
  ~OtlpExporter();
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  void Export(const Span& span) noexcept ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Sender;

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // The next batch, when there is one; empty at the end.
  std::vector<Span> Take(std::chrono::milliseconds wait) ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopping() ABSL_LOCKS_EXCLUDED(mutex_) {
    const MutexLock lock(mutex_);
    return stop_;
  }

  const Options options_;
  Mutex mutex_;
  CondVar wake_;
  std::vector<Span> queue_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point stop_by_ ABSL_GUARDED_BY(mutex_){};
  std::thread thread_;
};

}  // namespace userintent::observe
