#include "server/observe/otlp_exporter.h"

#include <curl/curl.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/observe/log.h"

// In this file: one request to the collector; the queue; the thread.

namespace userintent::observe {

using Clock = std::chrono::steady_clock;

// Belongs to the exporter's thread. Keeps its connection from one batch to the next.
class OtlpExporter::Sender {
 public:
  explicit Sender(OtlpExporter& exporter) : exporter_(exporter), easy_(curl_easy_init()) {
    headers_ = curl_slist_append(nullptr, "Content-Type: application/json");
    SetOptions();
  }
  ~Sender() {
    curl_slist_free_all(headers_);
    curl_easy_cleanup(easy_);
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  // Whether the collector took the body.
  bool Send(const std::string& body) {
    if (!ready_) return false;
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDS, body.c_str());
    long status = 0;
    return curl_easy_perform(easy_) == CURLE_OK &&
           curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status >= 200 && status <= 299;
  }

 private:
  void SetOptions() {
    const Options& options = exporter_.options_;
    ready_ = easy_ != nullptr && headers_ != nullptr;
    const auto set = [this](CURLoption option, auto value) {
      ready_ = ready_ && curl_easy_setopt(easy_, option, value) == CURLE_OK;
    };
    url_ = options.origin + "/v1/traces";
    set(CURLOPT_URL, url_.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_FOLLOWLOCATION, 0L);
    set(CURLOPT_PROXY, "");  // also shuts out the proxy variables of the environment
    set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    set(CURLOPT_HTTPHEADER, headers_);
    set(CURLOPT_POST, 1L);
    set(CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout.count()));
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.timeout.count()));
    set(CURLOPT_QUICK_EXIT, 1L);  // else the end may wait for the resolver's thread
    set(CURLOPT_WRITEFUNCTION, &Sender::OnBody);
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &Sender::OnProgress);
    set(CURLOPT_XFERINFODATA, this);
  }

  // What the collector says beside its status is of no use.
  static size_t OnBody(char*, size_t size, size_t count, void*) { return size * count; }

  // Not 0: the request ends.
  static int OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    OtlpExporter& exporter = static_cast<Sender*>(self)->exporter_;
    const MutexLock lock(exporter.mutex_);
    return exporter.stop_ && Clock::now() >= exporter.stop_by_ ? 1 : 0;
  }

  OtlpExporter& exporter_;
  CURL* const easy_;
  curl_slist* headers_ = nullptr;
  std::string url_;
  bool ready_ = false;
};

OtlpExporter::OtlpExporter(Options options) : options_(std::move(options)) {
  {
    const MutexLock lock(mutex_);
    queue_.reserve(options_.max_queued);
  }
  thread_ = std::thread([this] { Run(); });
}

OtlpExporter::~OtlpExporter() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    stop_by_ = Clock::now() + options_.last;
  }
  wake_.NotifyAll();
  thread_.join();
}

void OtlpExporter::Export(const Span& span) noexcept {
  bool queued = false;
  bool wake = false;
  try {
    const MutexLock lock(mutex_);
    if (queue_.size() < options_.max_queued) {
      queue_.push_back(span);
      queued = true;
      wake = queue_.size() == 1 || queue_.size() == options_.max_batch;
    }
  } catch (...) {  // no memory: then the span is lost
  }
  if (wake) wake_.NotifyOne();
  if (!queued) options_.on_end(SpanEnd::kDropped, 1);
}

std::vector<Span> OtlpExporter::Take(std::chrono::milliseconds wait) {
  const bool full_is_enough = wait == options_.interval;
  std::vector<Span> batch;
  const MutexLock lock(mutex_);
  while (!stop_ && queue_.empty()) wake_.Wait(mutex_);
  const Clock::time_point until = Clock::now() + wait;
  while (!stop_ && Clock::now() < until && !(full_is_enough && queue_.size() >= options_.max_batch)) {
    wake_.WaitUntil(mutex_, until);
  }
  const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(std::min(queue_.size(), options_.max_batch));
  batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
  queue_.erase(queue_.begin(), end);
  return batch;
}

void OtlpExporter::Run() {
  Sender sender(*this);
  std::chrono::milliseconds wait = options_.interval;
  bool failing = false;
  for (;;) {
    const std::vector<Span> batch = Take(wait);
    if (batch.empty()) return;  // only at the end
    const bool taken = sender.Send(OtlpJson(batch, options_.version));
    options_.on_end(taken ? SpanEnd::kExported : SpanEnd::kFailed, batch.size());
    if (!taken && !std::exchange(failing, true)) Log(Level::kWarn, "traces_not_exported", {{"rows", batch.size()}});
    if (taken) failing = false;
    if (!taken && stopping()) return;
    wait = taken ? options_.interval : options_.pause;
  }
}

}  // namespace userintent::observe
