// The composition root in process: what starts answers, what cannot start names its flag and leaves nothing behind, and
// a drain waits for what runs. Astra is a closed port, or one that never answers.
#include "server/app/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/app/probe_health.h"
#include "server/observe/log.h"
#include "tests/unit/base/temporary_directory.h"
#include "tests/unit/config/certificates.h"
#include "tests/unit/intent/valid_request.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent {
namespace {

using config::LedgerLocation;
using config::Settings;
using net::HostPort;
using testing::HasSubstr;
using testing::StartsWith;

constexpr auto kPatience = std::chrono::seconds(60);  // for a busy machine; waits end as soon as they can

// A socket on a port of its own on loopback.
class Socket {
 public:
  Socket() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~Socket() { close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // From here on connections are made, by the kernel; bound only, the port refuses them.
  void Listen() { EXPECT_EQ(listen(fd_, 16), 0); }
  uint16_t port() const { return port_; }

 private:
  const int fd_;
  uint16_t port_ = 0;
};

// The answer to GET, head and body.
std::string Get(const HostPort& address, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(address.port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) answer.append(buffer, static_cast<size_t>(n));
  close(fd);
  return answer;
}

class ServerTest : public testing::Test {
 protected:
  // The least that starts: a ledger in memory, an upstream that nothing listens at, ports of its own.
  Settings Valid() {
    Settings settings;
    settings.listen = {"127.0.0.1", 0};
    settings.metrics_listen = {"127.0.0.1", 0};
    settings.astra_base_url = {"127.0.0.1", closed_.port()};
    settings.astra_client_id_file = directory_.Write("id", "client-id\n");
    settings.astra_client_secret_file = directory_.Write("secret", "client-secret\n");
    settings.ledger = {LedgerLocation::Kind::kMemory, ""};
    settings.ledger_key_file = directory_.Write("key", std::string(32, 'k'));
    settings.connect_timeout = absl::Milliseconds(300);
    settings.shards = 1;
    return settings;
  }

  static absl::StatusOr<std::unique_ptr<Server>> Start(const Settings& settings) {
    absl::StatusOr<config::Loaded> loaded = config::Load(settings);
    if (!loaded.ok()) return loaded.status();
    return Server::Start(*std::move(loaded));
  }

  // Why it does not start: one line.
  static std::string Refusal(const Settings& settings) {
    const auto server = Start(settings);
    const std::string text(server.status().message());
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    return text;
  }

  static absl::Status Probe(const Server& server) {
    Settings settings;
    settings.listen = server.address();
    return ProbeHealth(settings);
  }

  static grpc::Status Create(const HostPort& address, const v1::CreateUserIntentRequest& request) {
    const auto stub =
        v1::UserIntentService::NewStub(grpc::CreateChannel(address.Text(), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    v1::CreateUserIntentResponse response;
    return stub->CreateUserIntent(&context, request, &response);
  }

  // Keeps house until /metrics has the line.
  static bool WaitForMetric(Server& server, const std::string& line) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < end) {
      server.HouseKeep();
      if (absl::StrContains(Get(server.metrics_address(), "/metrics"), "\n" + line + "\n")) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  TemporaryDirectory directory_;
  Socket closed_;  // bound, so that nobody else listens there
};

TEST_F(ServerTest, WhatStartedAnswersAtEveryDoor) {
  const observe::ScopedLogCapture log;
  const auto server = Start(Valid());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_NE((*server)->address().port, 0);
  EXPECT_TRUE(Probe(**server).ok()) << Probe(**server);
  EXPECT_THAT(Get((*server)->metrics_address(), "/livez"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Get((*server)->metrics_address(), "/readyz"), HasSubstr("{\"ready\":true,\"reasons\":[]}"));
  v1::CreateUserIntentRequest request = intent::ValidRequest();
  request.set_validate_only(true);
  const grpc::Status status = Create((*server)->address(), request);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(log.Lines(), testing::Contains(HasSubstr("\"event\":\"listening\"")));
  EXPECT_THAT(log.Lines(), testing::Contains(HasSubstr("--ledger: memory: forgets")));
}

TEST_F(ServerTest, ACreationThatAstraCannotBeReachedForEndsAsNotSent) {
  const auto server = Start(Valid());
  ASSERT_TRUE(server.ok()) << server.status();
  const grpc::Status status = Create((*server)->address(), intent::ValidRequest());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_TRUE(WaitForMetric(**server,
                            "userintent_calls_total{code=\"UNAVAILABLE\",method=\"CreateUserIntent\","
                            "reason=\"UPSTREAM_UNREACHABLE\"} 1"));
}

TEST_F(ServerTest, APortInUseNamesItsFlagAndLeavesNothingBehind) {
  Socket taken;
  taken.Listen();
  Settings settings = Valid();
  settings.listen.port = taken.port();
  EXPECT_EQ(Refusal(settings),
            absl::StrCat("--listen: cannot listen on 127.0.0.1:", taken.port(), ": is the port in use?"));

  // The last step of a start fails: the port that was bound before, with its threads, is given back.
  uint16_t port = 0;
  {
    const auto server = Start(Valid());
    ASSERT_TRUE(server.ok()) << server.status();
    port = (*server)->address().port;
  }
  settings = Valid();
  settings.listen.port = port;
  settings.metrics_listen.port = taken.port();
  EXPECT_EQ(Refusal(settings),
            absl::StrCat("--metrics_listen: cannot listen on 127.0.0.1:", taken.port(), ": is the port in use?"));
  settings.metrics_listen.port = 0;
  settings.webhook_listen = {"127.0.0.1", taken.port()};
  EXPECT_EQ(Refusal(settings),
            absl::StrCat("--webhook_listen: cannot listen on 127.0.0.1:", taken.port(), ": is the port in use?"));
  settings.webhook_listen.port = 0;
  const auto server = Start(settings);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(Probe(**server).ok());
}

TEST_F(ServerTest, ALedgerThatCannotBeOpenedNamesItsFlag) {
  Settings settings = Valid();
  const std::string open = directory_.Path("open");
  std::filesystem::create_directory(open);
  ASSERT_EQ(chmod(open.c_str(), 0777), 0);
  settings.ledger = {LedgerLocation::Kind::kSqlite, open + "/ledger.db"};
  EXPECT_THAT(Refusal(settings), testing::MatchesRegex("--ledger: .*: others may write its directory.*"));
  settings.ledger.path = directory_.Write("notes", std::string(200, 'x'));
  EXPECT_THAT(Refusal(settings), StartsWith("--ledger: "));
  settings.ledger.path = directory_.Path("ledger.db");
  const auto first = Start(settings);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(Refusal(settings), StartsWith("--ledger: "));  // it is in use
  EXPECT_TRUE(Probe(**first).ok());
}

// Certificates, keys and credentials are used as they were read: their files may be gone by the start.
TEST_F(ServerTest, AStartUnderTlsReadsNoFileAgain) {
  Settings settings = Valid();
  const test::KeyPtr key = test::NewKey();
  const std::string certificate = test::CertificateText(key.get());
  settings.tls_cert_file = directory_.Write("tls.crt", certificate, 0644);
  settings.tls_key_file = directory_.Write("tls.key", test::KeyText(key.get()));
  settings.tls_client_ca_file = directory_.Write("ca.crt", certificate, 0644);
  absl::StatusOr<config::Loaded> loaded = config::Load(settings);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  for (const std::string* path :
       {&settings.tls_cert_file, &settings.tls_key_file, &settings.tls_client_ca_file, &settings.astra_client_id_file,
        &settings.astra_client_secret_file, &settings.ledger_key_file}) {
    ASSERT_TRUE(std::filesystem::remove(*path)) << *path;
  }
  const auto server = Server::Start(*std::move(loaded));
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(Probe(**server).ok());
  // The port speaks TLS, so the probe in the server hears it, and a call without TLS does not get through.
  const auto stub = v1::UserIntentService::NewStub(
      grpc::CreateChannel((*server)->address().Text(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::CreateUserIntentResponse response;
  EXPECT_EQ(stub->CreateUserIntent(&context, intent::ValidRequest(), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(Get((*server)->metrics_address(), "/livez"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(ServerTest, WithoutMetricsListenThereIsNoEndpoint) {
  Settings settings = Valid();
  settings.metrics_listen = {};
  const auto server = Start(settings);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->metrics_address().empty());
  EXPECT_TRUE(Probe(**server).ok());
}

TEST_F(ServerTest, AnIdleServerDrainsAtOnceAndSaysWhyItIsNotReady) {
  const auto server = Start(Valid());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE((*server)->Drain());
  EXPECT_THAT(Get((*server)->metrics_address(), "/readyz"),
              testing::AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("{\"ready\":false,\"reasons\":[\"it drains\"]}")));
  const absl::Status probe = Probe(**server);
  EXPECT_EQ(probe.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(probe.message()), HasSubstr("it drains"));
}

// It says at once that it will go, and drains later.
TEST_F(ServerTest, ALameDuckIsAPartOfTheDrain) {
  Settings settings = Valid();
  settings.lame_duck = absl::Seconds(2);
  const auto server = Start(settings);
  ASSERT_TRUE(server.ok()) << server.status();
  const SteadyTime begun = SteadyClock::now();
  std::thread drain([&] { EXPECT_TRUE((*server)->Drain()); });
  std::string answer;
  while (answer.find("it will drain in a moment") == std::string::npos) {
    answer = Get((*server)->metrics_address(), "/readyz");
    ASSERT_THAT(answer, testing::Not(HasSubstr("it drains"))) << "this machine is too slow";
  }
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  drain.join();
  EXPECT_GE(SteadyClock::now() - begun, std::chrono::seconds(2));
  EXPECT_THAT(Get((*server)->metrics_address(), "/readyz"), HasSubstr("it drains"));
}

// The upstream takes connections and says nothing, so a creation is under way when the drain begins. The drain waits
// for its end, and for the answer to its caller.
TEST_F(ServerTest, ADrainWaitsForWhatRuns) {
  Socket silent;
  silent.Listen();
  Settings settings = Valid();
  settings.astra_base_url.port = silent.port();
  const auto server = Start(settings);
  ASSERT_TRUE(server.ok()) << server.status();
  grpc::Status status;
  std::thread caller([&, address = (*server)->address()] { status = Create(address, intent::ValidRequest()); });
  EXPECT_TRUE(WaitForMetric(**server, "userintent_upstream_posts_in_flight 1"));
  EXPECT_TRUE((*server)->Drain());
  caller.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_TRUE(WaitForMetric(**server, "userintent_calls_in_flight 0"));
}

// The time of a drain can be too short, and the caller is answered all the same.
TEST_F(ServerTest, ADrainThatRunsOutOfTimeSaysSo) {
  Socket silent;
  silent.Listen();
  Settings settings = Valid();
  settings.astra_base_url.port = silent.port();
  settings.connect_timeout = absl::Seconds(30);
  settings.drain_timeout = absl::Milliseconds(1);
  const auto server = Start(settings);
  ASSERT_TRUE(server.ok()) << server.status();
  grpc::Status status;
  std::thread caller([&, address = (*server)->address()] { status = Create(address, intent::ValidRequest()); });
  EXPECT_TRUE(WaitForMetric(**server, "userintent_upstream_posts_in_flight 1"));
  EXPECT_FALSE((*server)->Drain());
  caller.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("This try sent nothing"));
}

TEST(ProbeHealth, WithoutAServerThereIsNoConnection) {
  Socket closed;
  Settings settings;
  settings.listen = {"127.0.0.1", closed.port()};
  const absl::Status status = ProbeHealth(settings);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no connection"));
}

}  // namespace
}  // namespace userintent
