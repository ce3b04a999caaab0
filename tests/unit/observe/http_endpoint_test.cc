#include "server/observe/http_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace userintent::observe {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  timeval limit{20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  return fd;
}

void SendAll(int fd, const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;  // the endpoint may hang up on a hostile request
    sent += static_cast<size_t>(n);
  }
}

std::string ReadToEnd(int fd) {
  std::string answer;
  char buffer[4096];
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) answer.append(buffer, static_cast<size_t>(n));
  close(fd);
  return answer;
}

class HttpEndpointTest : public testing::Test {
 protected:
  HttpEndpointTest() {
    auto started = HttpEndpoint::Start({.host = "127.0.0.1",
                                        .port = 0,
                                        .metrics = [this] { return Metrics(); },
                                        .reasons_not_ready = [this] { return reasons_; },
                                        .status = [this] { return page_; },
                                        .alive = [this] { return alive_.load(); }});
    EXPECT_TRUE(started.ok()) << started.status();
    endpoint_ = *std::move(started);
  }

  std::string Metrics() {
    if (throw_) throw std::runtime_error("canary-exception");
    return metrics_;
  }

  std::string Send(const std::string& bytes) {
    const int fd = Connect(endpoint_->port());
    SendAll(fd, bytes);
    shutdown(fd, SHUT_WR);
    return ReadToEnd(fd);
  }

  std::string Get(const std::string& target, const std::string& method = "GET") {
    return Send(absl::StrCat(method, " ", target, " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  }

  std::string metrics_ = "userintent_draining 0\n";
  std::string page_ = "<!DOCTYPE html>\n<p>\xc3\xbc</p>\n";
  std::vector<std::string> reasons_;  // changed between two requests only
  std::atomic<bool> alive_{true};
  std::atomic<bool> throw_{false};
  std::unique_ptr<HttpEndpoint> endpoint_;
};

TEST_F(HttpEndpointTest, ServesMetrics) {
  const std::string answer = Get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nuserintent_draining 0\n"));
}

TEST_F(HttpEndpointTest, ServesLongMetricsWhole) {
  metrics_ = std::string(4 << 20, 'x') + "end\n";
  const std::string answer = Get("/metrics?name[]=x");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_GT(answer.size(), metrics_.size());
  EXPECT_TRUE(absl::EndsWith(answer, "xend\n"));
}

TEST_F(HttpEndpointTest, LivezAndReadyz) {
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
  const std::string ready = Get("/readyz");
  EXPECT_THAT(ready, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(ready, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_THAT(ready, EndsWith("\r\n\r\n{\"ready\":true,\"reasons\":[]}\n"));
  reasons_ = {"it drains", "the ledger cannot be written"};
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
  const std::string answer = Get("/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_THAT(answer,
              EndsWith("\r\n\r\n{\"ready\":false,\"reasons\":[\"it drains\",\"the ledger cannot be written\"]}\n"));
}

TEST_F(HttpEndpointTest, LivezTellsOfADeafPort) {
  alive_ = false;
  const std::string answer = Get("/livez");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 Service Unavailable\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nthe port is deaf\n"));
  alive_ = true;
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpEndpointTest, StatusIsAPageThatLoadsNothing) {
  const std::string answer = Get("/status");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "));
  EXPECT_THAT(answer, HasSubstr("\r\nX-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nCache-Control: no-store\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n" + page_));
  EXPECT_THAT(Get("/status", "POST"), StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(Get("/status/"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(Get("/metrics"), Not(HasSubstr("Content-Security-Policy")));
}

TEST_F(HttpEndpointTest, EverythingElseIsNotFound) {
  for (const char* target :
       {"/", "/metrics/", "/metricsx", "/LIVEZ", "/../etc/passwd", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
        "/CMakeCache.txt", "/.", "//", "/index.html", "/metrics%00", "/livez\\..\\", "/favicon.ico"}) {
    const std::string answer = Get(target);
    EXPECT_THAT(answer, testing::AnyOf(StartsWith("HTTP/1.1 404 "), StartsWith("HTTP/1.1 400 "))) << target;
    EXPECT_THAT(answer, Not(HasSubstr("root:"))) << target;
    EXPECT_THAT(answer, Not(HasSubstr("CMake"))) << target;
    EXPECT_THAT(answer, Not(HasSubstr("href"))) << target;
  }
}

TEST_F(HttpEndpointTest, OnlyGet) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "MKCOL"}) {
    for (const char* path : {"/metrics", "/livez", "/new-file"}) {
      const std::string answer = Get(path, method);
      EXPECT_THAT(answer, StartsWith("HTTP/1.1 4")) << method;
      EXPECT_THAT(answer, Not(HasSubstr("userintent_"))) << method;
    }
  }
  const std::string answer = Get("/metrics", "POST");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(answer, HasSubstr("\r\nAllow: GET\r\n"));
  EXPECT_THAT(Get("/metrics", "HEAD"), StartsWith("HTTP/1.1 405 "));
}

TEST_F(HttpEndpointTest, CrossOriginPreflightGetsNothing) {
  const std::string answer = Send(
      "OPTIONS /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: https://example.com\r\n"
      "Access-Control-Request-Method: GET\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(answer, Not(HasSubstr("Access-Control")));
}

TEST_F(HttpEndpointTest, HostileRequestsAreRefusedAndEchoNothing) {
  std::string binary;
  for (int i = 0; i < 3000; ++i) binary += static_cast<char>(i * 37);
  const std::string requests[] = {
      absl::StrCat("GET /metrics?", std::string(100000, 'a'), "CANARY HTTP/1.1\r\nHost: localhost\r\n\r\n"),
      absl::StrCat("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ", std::string(100000, 'a'), "CANARY\r\n\r\n"),
      "CANARY\r\n\r\n",
      "GET CANARY HTTP/1.1\r\n\r\n",
      "GET /metrics HTTP/9.9\r\nHost: CANARY\r\n\r\n",
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nCANARY\r\n\r\n",
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: CANARY\r\n\r\n",
      std::string({0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01}) + " CANARY\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nCANARY",
      std::string("GET /") + '\0' + "CANARY HTTP/1.1\r\n\r\n",
      "GET /<script>CANARY</script> HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "\r\n\r\n\r\n",
      "",
      binary,
  };
  for (size_t i = 0; i < std::size(requests); ++i) {
    const std::string answer = Send(requests[i]);
    EXPECT_THAT(answer, testing::AnyOf("", StartsWith("HTTP/1.1 4"), StartsWith("HTTP/1.1 5"))) << i;
    EXPECT_THAT(answer, Not(HasSubstr("CANARY"))) << i;
    EXPECT_THAT(answer, Not(HasSubstr("ivetweb"))) << i;
  }
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpEndpointTest, SilentClientsDoNotShutOthersOutForLong) {
  std::vector<int> silent;
  for (int i = 0; i < 16; ++i) {
    silent.push_back(Connect(endpoint_->port()));
    SendAll(silent.back(), "GET /metr");
  }
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
  for (const int fd : silent) close(fd);
}

// While 50 clients say nothing a probe has its answer, before the first of them is sent away.
TEST_F(HttpEndpointTest, AProbeDoesNotWaitForSilentClients) {
  int open = 0;
  for (int attempt = 0; attempt < 5 && open < 50; ++attempt) {  // a machine may be too busy for one second
    std::vector<int> silent;
    for (int i = 0; i < 50; ++i) silent.push_back(Connect(endpoint_->port()));
    EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
    open = 0;
    for (const int fd : silent) {
      char byte;
      open += recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN ? 1 : 0;
      close(fd);
    }
  }
  EXPECT_EQ(open, 50);
}

TEST_F(HttpEndpointTest, AThrowingSourceIsA500WithoutItsText) {
  throw_ = true;
  const std::string answer = Get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(answer, Not(HasSubstr("canary-exception")));
  throw_ = false;
  EXPECT_THAT(Get("/metrics"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpEndpointTest, AnswersSeveralAtOnce) {
  std::atomic<int> good{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 8; ++t) {
    clients.emplace_back([&] {
      for (int i = 0; i < 20; ++i) good += absl::StartsWith(Get("/metrics"), "HTTP/1.1 200 OK\r\n") ? 1 : 0;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(good, 160);
}

TEST_F(HttpEndpointTest, APortInUseIsAnErrorNotACrash) {
  const auto second = HttpEndpoint::Start(
      {.host = "127.0.0.1", .port = endpoint_->port(), .metrics = nullptr, .reasons_not_ready = nullptr});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.status().message(), HasSubstr(absl::StrCat("127.0.0.1:", endpoint_->port())));
  EXPECT_THAT(Get("/livez"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST(HttpEndpoint, AnAddressOfAnotherMachineIsAnError) {
  EXPECT_FALSE(
      HttpEndpoint::Start({.host = "8.8.8.8", .port = 0, .metrics = nullptr, .reasons_not_ready = nullptr}).ok());
}

TEST(HttpEndpoint, ListensWhereItIsToldOnly) {
  for (const char* host : {"127.0.0.1", "localhost", "0.0.0.0", "::1", "::"}) {
    const auto endpoint =
        HttpEndpoint::Start({.host = host, .port = 0, .metrics = nullptr, .reasons_not_ready = nullptr});
    if (!endpoint.ok() && std::string_view(host).find(':') != std::string_view::npos) continue;  // no IPv6 here
    ASSERT_TRUE(endpoint.ok()) << host << ": " << endpoint.status();
    EXPECT_NE((*endpoint)->port(), 0) << host;
  }
  // 127.0.0.2 is this machine as well, and nobody listens there.
  const auto endpoint =
      HttpEndpoint::Start({.host = "127.0.0.1", .port = 0, .metrics = nullptr, .reasons_not_ready = nullptr});
  ASSERT_TRUE(endpoint.ok());
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons((*endpoint)->port());
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
  EXPECT_NE(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  close(fd);
}

TEST(HttpEndpoint, ThePortIsFreeAgainAfterwards) {
  auto endpoint =
      HttpEndpoint::Start({.host = "127.0.0.1", .port = 0, .metrics = nullptr, .reasons_not_ready = nullptr});
  ASSERT_TRUE(endpoint.ok());
  const uint16_t port = (*endpoint)->port();
  endpoint->reset();
  EXPECT_TRUE(
      HttpEndpoint::Start({.host = "127.0.0.1", .port = port, .metrics = nullptr, .reasons_not_ready = nullptr}).ok());
}

}  // namespace
}  // namespace userintent::observe
