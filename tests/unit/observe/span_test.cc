// What a collector is sent, and that nobody waits for it: over a collector that answers, one that is gone, and one that
// takes connections and says nothing.
#include "server/observe/span.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "server/observe/log.h"
#include "server/observe/otlp_exporter.h"

namespace userintent::observe {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

Span Some(int n) {
  Span span;
  span.trace_id = TraceId{1, 2, 3};
  span.span_id = SpanId{static_cast<uint8_t>(n + 1)};
  span.name = "POST";
  span.kind = Span::Kind::kClient;
  span.start = absl::FromUnixMicros(1'700'000'000'000'001);
  span.end = span.start + absl::Milliseconds(5);
  return span;
}

// A collector on a port of its own. It answers each request with `status`; 0: with nothing.
class Collector {
 public:
  explicit Collector(int status) : status_(status), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    origin = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~Collector() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }

  std::string origin;
  std::vector<std::string> Requests(size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, 60s, [&] { return requests_.size() >= n; }));
    return requests_;
  }

 private:
  void Serve() {
    for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0; close(fd)) {
      while (ReadOne(fd)) {
      }
    }
  }
  bool ReadOne(int fd) {
    std::string text;
    size_t body = std::string::npos;
    size_t length = 0;
    char buffer[4096];
    while (body == std::string::npos || text.size() < body + length) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) return false;
      text.append(buffer, static_cast<size_t>(n));
      if (body != std::string::npos) continue;
      const size_t end = text.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      body = end + 4;
      length = std::stoul(text.substr(text.find("Content-Length: ") + 16));
    }
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(text);
      changed_.notify_all();
    }
    if (status_ == 0) return recv(fd, buffer, sizeof buffer, 0) > 0;
    const std::string answer = "HTTP/1.1 " + std::to_string(status_) + " x\r\nContent-Length: 2\r\n\r\n{}";
    return send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) > 0;
  }

  const int status_;
  const int listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

class OtlpExporterTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { curl_global_init(CURL_GLOBAL_DEFAULT); }

  OtlpExporter::Options Options(const std::string& origin) {
    OtlpExporter::Options options;
    options.origin = origin;
    options.version = "1.2.3";
    options.interval = 10ms;
    options.pause = 20ms;
    options.on_end = [this](SpanEnd end, size_t spans) { ended[static_cast<size_t>(end)] += spans; };
    return options;
  }
  size_t Ended(SpanEnd end) { return ended[static_cast<size_t>(end)]; }

  std::atomic<size_t> ended[3]{};
  ScopedLogCapture log_;
};

TEST(Span, IsWrittenAsOtlpWantsIt) {
  Span child = Some(1);
  child.parent = SpanId{9};
  child.failed = true;
  child.attributes = {{"http.response.status_code", int64_t{503}}, {"error.type", "timeout"}};
  const std::vector<Span> spans = {Some(0), child};
  const json body = json::parse(OtlpJson(spans, "1.2.3"));
  const json& resource = body["resourceSpans"][0];
  EXPECT_EQ(resource["resource"]["attributes"][0],
            json::parse(R"({"key":"service.name","value":{"stringValue":"userintent-server"}})"));
  const json& written = resource["scopeSpans"][0]["spans"];
  ASSERT_EQ(written.size(), 2u);
  EXPECT_EQ(written[0], json::parse(R"({"traceId":"01020300000000000000000000000000","spanId":"0100000000000000",
      "name":"POST","kind":3,"startTimeUnixNano":"1700000000000001000","endTimeUnixNano":"1700000000005001000",
      "flags":1})"));
  EXPECT_EQ(written[1]["parentSpanId"], "0900000000000000");
  EXPECT_EQ(written[1]["status"]["code"], 2);
  EXPECT_EQ(written[1]["attributes"], json::parse(R"([{"key":"http.response.status_code","value":{"intValue":"503"}},
                            {"key":"error.type","value":{"stringValue":"timeout"}}])"));
}

TEST_F(OtlpExporterTest, SpansArriveInBatches) {
  Collector collector(200);
  OtlpExporter::Options options = Options(collector.origin);
  options.max_batch = 2;
  {
    OtlpExporter exporter(options);
    for (int i = 0; i < 5; ++i) exporter.Export(Some(i));
    size_t spans = 0;
    const auto requests = collector.Requests(3);
    for (const std::string& request : requests) {
      EXPECT_THAT(request, StartsWith("POST /v1/traces HTTP/1.1\r\n"));
      EXPECT_THAT(request, HasSubstr("Content-Type: application/json\r\n"));
      const json body = json::parse(request.substr(request.find("\r\n\r\n") + 4));
      spans += body["resourceSpans"][0]["scopeSpans"][0]["spans"].size();
    }
    EXPECT_EQ(spans, 5u);
  }
  EXPECT_EQ(Ended(SpanEnd::kExported), 5u);
  EXPECT_EQ(Ended(SpanEnd::kFailed) + Ended(SpanEnd::kDropped), 0u);
}

TEST_F(OtlpExporterTest, TheLastOnesLeaveAtTheEnd) {
  Collector collector(200);
  OtlpExporter::Options options = Options(collector.origin);
  options.interval = 1h;
  {
    OtlpExporter exporter(options);
    exporter.Export(Some(1));
  }
  EXPECT_EQ(Ended(SpanEnd::kExported), 1u);
}

TEST_F(OtlpExporterTest, ACollectorThatRefusesCostsSpansAndOneLine) {
  Collector collector(503);
  {
    OtlpExporter exporter(Options(collector.origin));
    exporter.Export(Some(1));
    collector.Requests(1);
    exporter.Export(Some(2));
    collector.Requests(2);
  }
  EXPECT_EQ(Ended(SpanEnd::kFailed), 2u);
  EXPECT_THAT(log_.Lines(), testing::ElementsAre(HasSubstr("traces_not_exported")));
}

TEST_F(OtlpExporterTest, ACollectorThatIsGoneHarmsNothing) {
  std::string origin;
  { origin = Collector(200).origin; }
  OtlpExporter exporter(Options(origin));
  exporter.Export(Some(1));
  while (Ended(SpanEnd::kFailed) == 0) std::this_thread::sleep_for(1ms);
}

TEST_F(OtlpExporterTest, AFullQueueDropsAndNobodyWaits) {
  Collector collector(0);
  OtlpExporter::Options options = Options(collector.origin);
  options.max_queued = 10;
  options.timeout = 60s;
  options.last = 100ms;
  {
    OtlpExporter exporter(options);
    exporter.Export(Some(0));
    collector.Requests(1);  // which is never answered
    for (int i = 0; i < 1000; ++i) exporter.Export(Some(i % 100));
    EXPECT_EQ(Ended(SpanEnd::kDropped), 990u);
    EXPECT_EQ(Ended(SpanEnd::kFailed), 0u);
  }  // the end waits for no answer either
  EXPECT_GE(Ended(SpanEnd::kFailed), 1u);
}

}  // namespace
}  // namespace userintent::observe
