#include "userintent/client.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/validate_service_config.h"
#include "tests/fake_gateway.h"
#include "userintent/channel.h"

namespace userintent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

FakeAnswer Ok() { return FakeAnswer(); }

FakeAnswer Hang() {
  FakeAnswer answer;
  answer.hang = true;
  return answer;
}

FakeAnswer Fails(grpc::StatusCode code) {
  FakeAnswer answer;
  answer.code = code;
  return answer;
}

CallOptions Within(absl::Duration timeout) {
  CallOptions options;
  options.timeout = timeout;
  return options;
}

// A background call whose end a test waits for.
class Background {
 public:
  explicit Background(Client* client, const CallOptions& options = {})
      : pending(client->CreateUserIntentAsync(Person(), options, [this](absl::StatusOr<CreateResult> created) {
          result = std::move(created);
          done.Notify();
        })) {}

  absl::StatusOr<CreateResult> End() {
    if (!done.WaitForNotificationWithTimeout(absl::Seconds(30))) ADD_FAILURE() << "it still runs";
    return result;
  }

  absl::StatusOr<CreateResult> result;
  absl::Notification done;
  PendingCreate pending;
};

Error ErrorIn(const absl::Status& status) {
  const std::optional<Error> error = ErrorOf(status);
  EXPECT_TRUE(error.has_value()) << status;
  return error.value_or(Error());
}

TEST(ClientTest, RequestIds) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  v1::CreateUserIntentRequest request = Person();
  const auto made = client->CreateUserIntent(request);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(std::regex_match(made->request_id,
                               std::regex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")));
  EXPECT_EQ(request.request_id(), "") << "the caller's message stays as it is";
  request.set_request_id("of the request");
  EXPECT_EQ(client->CreateUserIntent(request)->request_id, "of the request");
  CallOptions options;
  options.request_id = "of the options";
  EXPECT_EQ(client->CreateUserIntent(request, options)->request_id, "of the options");
  const auto heard = gateway.heard();
  EXPECT_EQ(heard[0].request_id(), made->request_id);
  EXPECT_EQ(heard[1].request_id(), "of the request");
  EXPECT_EQ(heard[2].request_id(), "of the options");
  EXPECT_EQ(heard[0].email(), "jane.doe@example.com");
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(NewRequestId());
  EXPECT_EQ(ids.size(), 1000U);
}

TEST(ClientTest, AnAnswer) {
  FakeGateway gateway({Ok()});
  const auto created = gateway.Connect()->CreateUserIntent(Person());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->user_intent_id(), "intent");
  EXPECT_TRUE(created->replayed());
  EXPECT_EQ(created->tries, 1);
  EXPECT_THAT(gateway.user_agents()[0], StartsWith("userintent-cpp/0.1.0 "));
}

TEST(ClientTest, EveryErrorHasAnId) {
  FakeGateway gateway({Fails(grpc::StatusCode::INTERNAL)});
  const auto client = gateway.Connect();
  const absl::Status blocking = client->CreateUserIntent(Person()).status();
  EXPECT_EQ(ErrorIn(blocking).request_id, gateway.heard()[0].request_id());
  Background call(client.get());
  EXPECT_EQ(ErrorIn(call.End().status()).request_id, call.pending.request_id());
  EXPECT_EQ(ErrorIn(client->GetCreation("looked-up").status()).request_id, "looked-up");
}

TEST(ClientTest, GetCreation) {
  FakeGateway gateway({Busy(absl::Milliseconds(1)), Ok()});
  const auto creation = gateway.Connect()->GetCreation("looked-up");
  ASSERT_TRUE(creation.ok()) << creation.status();
  EXPECT_EQ(creation->request_id(), "looked-up");
  EXPECT_EQ(gateway.heard().size(), 2U);
}

// The same for both ways to call.
class RepeatTest : public testing::TestWithParam<bool> {
 protected:
  static absl::StatusOr<CreateResult> Create(Client* client, const CallOptions& options = {}) {
    if (!GetParam()) return client->CreateUserIntent(Person(), options);
    return Background(client, options).End();
  }
};

INSTANTIATE_TEST_SUITE_P(BothWays, RepeatTest, testing::Bool(),
                         [](const auto& way) { return way.param ? "Callback" : "Blocking"; });

TEST_P(RepeatTest, SameIdNotBeforeTheDelay) {
  FakeGateway gateway({Busy(absl::Milliseconds(80)), Busy(absl::Milliseconds(80)), Ok()});
  const auto client = gateway.Connect();
  const auto created = Create(client.get());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(created->tries, 3);
  const auto heard = gateway.heard();
  EXPECT_EQ(heard[1].request_id(), heard[0].request_id());
  EXPECT_EQ(heard[2].request_id(), heard[0].request_id());
  const auto times = gateway.times();
  EXPECT_GE(times[1] - times[0], absl::Milliseconds(80));
  EXPECT_GE(times[2] - times[1], absl::Milliseconds(80));
}

TEST_P(RepeatTest, NothingIsRepeatedWithoutRetryInfo) {
  for (const auto code : {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::ABORTED, grpc::StatusCode::UNKNOWN,
                          grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::DEADLINE_EXCEEDED}) {
    FakeGateway gateway({Fails(code), Ok()});
    const auto client = gateway.Connect();
    const Error error = ErrorIn(Create(client.get()).status());
    EXPECT_EQ(static_cast<int>(error.code), static_cast<int>(code));
    EXPECT_TRUE(error.maybe_sent());
    EXPECT_EQ(error.tries, 1);
    EXPECT_EQ(gateway.heard().size(), 1U);
  }
}

TEST_P(RepeatTest, APushbackBelowZeroForbids) {
  FakeAnswer answer = Busy(absl::Milliseconds(1));
  answer.pushback = "-1";
  FakeGateway gateway({answer, Ok()});
  const auto client = gateway.Connect();
  EXPECT_EQ(ErrorIn(Create(client.get()).status()).retry_after, std::nullopt);
  EXPECT_EQ(gateway.heard().size(), 1U);
}

TEST_P(RepeatTest, APushbackIsADelay) {
  FakeAnswer answer = Busy(absl::Milliseconds(1));
  answer.pushback = "150";
  FakeGateway gateway({answer, Ok()});
  const auto client = gateway.Connect();
  EXPECT_TRUE(Create(client.get()).ok());
  EXPECT_GE(gateway.times()[1] - gateway.times()[0], absl::Milliseconds(150));
}

TEST_P(RepeatTest, MaxTries) {
  FakeGateway gateway({Busy(absl::Milliseconds(1))});
  const auto client = gateway.Connect();
  EXPECT_EQ(ErrorIn(Create(client.get()).status()).tries, 5);
  CallOptions once;
  once.max_tries = 1;
  EXPECT_EQ(ErrorIn(Create(client.get(), once).status()).tries, 1);
}

TEST_P(RepeatTest, RepeatsShareTheDeadline) {
  FakeGateway gateway({Busy(absl::Milliseconds(300)), Ok()});
  const auto client = gateway.Connect();
  EXPECT_TRUE(Create(client.get(), Within(absl::Seconds(8))).ok());
  const absl::Duration rounding = absl::Milliseconds(50);  // gRPC's, on the wire
  EXPECT_LE(gateway.left()[0], absl::Seconds(8) + rounding);
  EXPECT_LE(gateway.left()[1], absl::Seconds(8) - absl::Milliseconds(300) + rounding);
}

TEST_P(RepeatTest, NoWaitThatWouldEndAfterTheDeadline) {
  FakeGateway gateway({Busy(absl::Hours(1))});
  const auto client = gateway.Connect();
  const Error error = ErrorIn(Create(client.get()).status());
  EXPECT_EQ(error.reason, "OVERLOADED");
  EXPECT_EQ(error.retry_after, absl::Hours(1));
  EXPECT_EQ(error.tries, 1);
}

TEST_P(RepeatTest, TheDefaultDeadline) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  EXPECT_TRUE(Create(client.get()).ok());
  EXPECT_LE(gateway.left()[0], absl::Seconds(35.1));
  EXPECT_GT(gateway.left()[0], absl::Seconds(25));
}

TEST_P(RepeatTest, OwnDeadlineMaybeSentAndRepeat) {
  FakeGateway gateway({Hang(), Ok()});
  const auto client = gateway.Connect();
  const absl::Status late = Create(client.get(), Within(absl::Milliseconds(200))).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(ErrorIn(late).maybe_sent());
  const auto created = client->Repeat(late, Person());
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_EQ(gateway.heard()[1].request_id(), gateway.heard()[0].request_id());
  EXPECT_GT(gateway.left()[1], absl::Seconds(25)) << "a deadline of its own";
}

TEST_P(RepeatTest, AnExpiredDeadline) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  for (const absl::Duration timeout : {absl::ZeroDuration(), -absl::Seconds(1), -absl::InfiniteDuration()}) {
    const Error error = ErrorIn(Create(client.get(), Within(timeout)).status());
    EXPECT_EQ(error.code, absl::StatusCode::kDeadlineExceeded);
    EXPECT_FALSE(error.maybe_sent());
    EXPECT_EQ(error.sent, sent::kNo);
    EXPECT_EQ(error.tries, 0);
    EXPECT_FALSE(error.request_id.empty());
  }
  EXPECT_EQ(gateway.heard().size(), 0U);
}

TEST_P(RepeatTest, TheLongestDeadlines) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  for (const absl::Duration timeout : {absl::InfiniteDuration(), absl::Hours(24) * 1'000'000'000}) {
    EXPECT_TRUE(Create(client.get(), Within(timeout)).ok());
  }
}

TEST_P(RepeatTest, WhatCannotBeSentIsInvalidAndNotSent) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  for (const std::string& id : {std::string(70000, '1'), std::string("\xff")}) {
    CallOptions options;
    options.request_id = id;
    const Error error = ErrorIn(Create(client.get(), options).status());
    EXPECT_EQ(error.code, absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(error.reason, "MALFORMED_REQUEST");
    EXPECT_EQ(error.recovery, recovery::kFixRequest);
    EXPECT_FALSE(error.maybe_sent());
    EXPECT_EQ(error.tries, 0);
    EXPECT_EQ(error.request_id, id);
    EXPECT_FALSE(ErrorIn(client->GetCreation(id).status()).maybe_sent());
  }
  EXPECT_EQ(gateway.heard().size(), 0U);
}

TEST(ClientTest, TheLimitCountsTheIdThatTheLibraryMakes) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  v1::CreateUserIntentRequest request;
  request.set_request_id(NewRequestId());
  request.set_address2(std::string(65000, 'x'));
  request.mutable_address2()->append(64 * 1024 - request.ByteSizeLong(), 'x');
  ASSERT_EQ(request.ByteSizeLong(), 64U * 1024);
  request.clear_request_id();
  EXPECT_TRUE(client->CreateUserIntent(request).ok());
  request.mutable_address2()->push_back('x');
  EXPECT_EQ(ErrorIn(client->CreateUserIntent(request).status()).reason, "MALFORMED_REQUEST");
  EXPECT_EQ(gateway.heard().size(), 1U);
}

TEST(ClientTest, ARepeatThatCannotBeginStaysMaybeSent) {
  FakeGateway gateway({Fails(grpc::StatusCode::UNAVAILABLE), Ok()});
  const auto client = gateway.Connect();
  const absl::Status first = client->CreateUserIntent(Person()).status();
  absl::Status last = first;
  for (int i = 0; i < 2; ++i) {
    last = client->Repeat(last, Person(), Within(absl::ZeroDuration())).status();
    EXPECT_TRUE(ErrorIn(last).maybe_sent());
    EXPECT_EQ(ErrorIn(last).recovery, "");
    EXPECT_EQ(ErrorIn(last).request_id, ErrorIn(first).request_id);
  }
  EXPECT_TRUE(client->Repeat(last, Person()).ok());
  const absl::Status never = client->CreateUserIntent(Person(), Within(absl::ZeroDuration())).status();
  EXPECT_FALSE(ErrorIn(client->Repeat(never, Person(), Within(absl::ZeroDuration())).status()).maybe_sent());
  EXPECT_EQ(gateway.heard().size(), 2U);
}

TEST_P(RepeatTest, NoRetriesOfGrpcItself) {
  // RetryInfo is absent, but a service config that the target brings along would allow it.
  FakeGateway gateway({Fails(grpc::StatusCode::UNAVAILABLE), Ok()});
  const auto client = gateway.Connect();
  EXPECT_FALSE(Create(client.get()).ok());
  EXPECT_EQ(gateway.heard().size(), 1U);
}

TEST_P(RepeatTest, ErrorsHoldNoValuesOfTheRequest) {
  FakeGateway gateway({Fails(grpc::StatusCode::INTERNAL)});
  const auto client = gateway.Connect();
  const absl::Status status = Create(client.get()).status();
  for (const char* secret : {"jane", "Jane", "8259", "secret"}) EXPECT_THAT(status.ToString(), Not(HasSubstr(secret)));
}

TEST(ClientTest, CancelReachesTheGateway) {
  FakeGateway gateway({Hang()});
  const auto client = gateway.Connect();
  Background call(client.get());
  gateway.Await(1);
  call.pending.Cancel();
  const absl::Status status = call.End().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(ErrorIn(status).maybe_sent());
  EXPECT_EQ(ErrorIn(status).request_id, gateway.heard()[0].request_id());
  call.pending.Cancel();  // after the end: nothing
}

TEST(ClientTest, CancelEndsAWait) {
  FakeGateway gateway({Busy(absl::Seconds(20))});
  const auto client = gateway.Connect();
  const absl::Time start = absl::Now();
  Background call(client.get());
  gateway.Await(1);
  absl::SleepFor(absl::Milliseconds(200));  // by then it waits; if not, the RPC is cancelled, which ends the same way
  call.pending.Cancel();
  EXPECT_EQ(call.End().status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
}

TEST(ClientTest, CancelAtAnyMoment) {
  FakeGateway gateway({Busy(absl::ZeroDuration())});
  const auto client = gateway.Connect();
  for (int i = 0; i < 300; ++i) {
    Background call(client.get());
    if (i % 3 != 0) absl::SleepFor(absl::Microseconds(i * 5));
    call.pending.Cancel();
    const absl::Status status = call.End().status();
    EXPECT_TRUE(status.code() == absl::StatusCode::kCancelled || status.code() == absl::StatusCode::kUnavailable);
  }
}

TEST(ClientTest, DestructionEndsBackgroundCalls) {
  FakeGateway gateway({Hang(), Busy(absl::Seconds(20))});
  auto client = gateway.Connect();
  Background running(client.get());
  gateway.Await(1);
  Background waiting(client.get());
  gateway.Await(2);
  absl::SleepFor(absl::Milliseconds(200));  // as above
  client.reset();
  ASSERT_TRUE(running.done.HasBeenNotified());
  ASSERT_TRUE(waiting.done.HasBeenNotified());
  EXPECT_EQ(running.result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(waiting.result.status().code(), absl::StatusCode::kCancelled);
  running.pending.Cancel();  // of a client that is gone: nothing
}

TEST(ClientTest, ACallbackMayDestroyTheClient) {
  FakeGateway gateway({Ok()});
  std::shared_ptr<Client> client = gateway.Connect();
  absl::Notification done;
  Client* const raw = client.get();
  // The callback holds the last reference, which goes with what it captured.
  raw->CreateUserIntentAsync(Person(), {}, [&done, last = std::move(client)](absl::StatusOr<CreateResult> created) {
    EXPECT_TRUE(created.ok());
    done.Notify();
  });
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

// Contexts hold their channel, so a callback may be what lets go of the last one (see connection.cc, KeepThreads).
TEST(ClientTest, ClientsComeAndGo) {
  FakeGateway gateway({Ok()});
  for (int i = 0; i < 200; ++i) {
    const auto client = gateway.Connect();
    Background call(client.get());
    if (i % 2 == 1) call.pending.Cancel();
    ASSERT_TRUE(call.done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  }
}

TEST(ClientTest, ACallbackMayBeginTheNextCall) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  absl::Notification done;
  int left = 20;
  std::function<void()> next = [&] {
    client->CreateUserIntentAsync(Person(), {}, [&](absl::StatusOr<CreateResult>) {
      if (--left > 0) {
        next();
      } else {
        done.Notify();
      }
    });
  };
  next();
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(30)));
  EXPECT_EQ(gateway.heard().size(), 20U);
}

int Threads() {
  DIR* const directory = opendir("/proc/self/task");
  int count = -2;  // . and ..
  while (readdir(directory) != nullptr) ++count;
  closedir(directory);
  return count;
}

TEST(ClientTest, NoThreadPerBackgroundCall) {
  constexpr int kCalls = 300;
  FakeGateway gateway({Busy(absl::Seconds(20)), Busy(absl::Seconds(20)), Hang()});
  auto client = gateway.Connect();
  Background first(client.get());
  gateway.Await(1);
  const int before = Threads();
  std::vector<std::unique_ptr<Background>> calls;
  for (int i = 0; i < kCalls; ++i) calls.push_back(std::make_unique<Background>(client.get()));
  gateway.Await(kCalls + 1);
  EXPECT_LT(Threads() - before, 30);
  client.reset();
  for (const auto& call : calls) EXPECT_TRUE(call->done.HasBeenNotified());
}

TEST(ClientTest, ManyThreadsShareAClient) {
  FakeGateway gateway({Ok()});
  const auto client = gateway.Connect();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&client] {
      for (int n = 0; n < 25; ++n) {
        EXPECT_TRUE(client->CreateUserIntent(Person()).ok());
        EXPECT_TRUE(Background(client.get()).End().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<std::string> ids;
  for (const auto& request : gateway.heard()) ids.insert(request.request_id());
  EXPECT_EQ(ids.size(), 400U);
}

// A peer that is not gRPC, whose threads would poll for the client, too: it closes the first connection, and begins
// HTTP/2 on those that follow without ever answering.
class RawPeer {
 public:
  RawPeer() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    target_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }

  ~RawPeer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    for (const int fd : open_) close(fd);
    close(listener_);
  }

  const std::string& target() const { return target_; }

 private:
  void Serve() {
    for (bool first = true;; first = false) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      if (first) {
        close(fd);
        continue;
      }
      const char settings[9] = {0, 0, 0, 4, 0, 0, 0, 0, 0};
      EXPECT_EQ(send(fd, settings, sizeof settings, MSG_NOSIGNAL), 9);
      open_.push_back(fd);
    }
  }

  const int listener_;
  std::string target_;
  std::vector<int> open_;  // the thread's, until it has ended
  std::thread thread_;
};

// Without connection.cc's KeepThreads the connection never comes about: main.cc has switched off the timer that would
// poll.
TEST(ClientTest, BlockingCallsThatFailAtOnceDoNotKeepAConnectionFromComingBack) {
  RawPeer peer;
  ClientOptions options;
  options.target = peer.target();
  options.plaintext = true;
  const auto client = FakeGateway::Connect(options);
  const absl::Time end = absl::Now() + absl::Seconds(20);
  absl::Status status;
  do {
    // Fails at once while there is no connection, and waits for its answer in vain where there is one.
    status = client->CreateUserIntent(Person(), Within(absl::Milliseconds(300))).status();
    absl::SleepFor(absl::Milliseconds(10));
  } while (status.code() == absl::StatusCode::kUnavailable && absl::Now() < end);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

TEST(ClientTest, OptionsThatMakeNoSense) {
  const auto refused = [](const ClientOptions& options) {
    return Client::Create(options).status().code() == absl::StatusCode::kInvalidArgument;
  };
  ClientOptions options;
  options.target = "127.0.0.1:1";
  EXPECT_TRUE(refused(options)) << "plaintext is never an accident";
  options.plaintext = true;
  EXPECT_FALSE(refused(options));
  options.tls = TlsFiles();
  EXPECT_TRUE(refused(options));
  options.tls.reset();
  options.timeout = absl::ZeroDuration();
  EXPECT_TRUE(refused(options));
  options.timeout = absl::Seconds(1);
  options.max_tries = 0;
  EXPECT_TRUE(refused(options));
  options.max_tries = 1;
  EXPECT_FALSE(refused(options));
}

TEST(ClientTest, TargetsThatNameNothing) {
  const auto refused = [](std::string target) {
    ClientOptions options;
    options.target = std::move(target);
    options.plaintext = true;
    return Client::Create(options).status().code() == absl::StatusCode::kInvalidArgument;
  };
  for (const char* target : {"", "/", "://", "dns:///", "host:", "host\n:1", "host\x7f:1"}) {
    EXPECT_TRUE(refused(target)) << target;
  }
  EXPECT_TRUE(refused(std::string("127.0.0.1\0:1", 12))) << "gRPC would call 127.0.0.1";
  for (const char* target : {"localhost:1", "dns:///localhost:1", "[::1]:1", "::", "unix:/run/x"}) {
    EXPECT_FALSE(refused(target)) << target;
  }
}

TEST(ClientTest, AChannelOfTheCallersOwn) {
  FakeGateway gateway({Busy(absl::Milliseconds(1)), Ok()});
  ClientOptions options;
  options.channel =
      grpc::CreateCustomChannel(gateway.address(), grpc::InsecureChannelCredentials(), ChannelArguments());
  const auto client = FakeGateway::Connect(options);
  EXPECT_TRUE(client->CreateUserIntent(Person()).ok());
  EXPECT_EQ(gateway.heard().size(), 2U);
}

std::string PublishedServiceConfig() {
  std::ifstream file(SERVICE_CONFIG);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ServiceConfigTest, GrpcTakesItAndObeysTheGateway) {
  const std::string config = PublishedServiceConfig();
  ASSERT_EQ(grpc::experimental::ValidateServiceConfigJSON(config), "");
  for (const bool forbidden : {false, true}) {
    FakeAnswer answer = Fails(grpc::StatusCode::UNAVAILABLE);
    answer.pushback = forbidden ? "-1" : "1";
    FakeGateway gateway({answer, Ok()});
    grpc::ChannelArguments arguments;
    arguments.SetServiceConfigJSON(config);
    const auto stub = v1::UserIntentService::NewStub(
        grpc::CreateCustomChannel(gateway.address(), grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext context;
    v1::CreateUserIntentResponse response;
    EXPECT_EQ(stub->CreateUserIntent(&context, Person(), &response).ok(), !forbidden);
    EXPECT_EQ(gateway.heard().size(), forbidden ? 1U : 2U);
  }
}

TEST(ServiceConfigTest, HasNoEffectOnTheClient) {
  FakeAnswer answer = Fails(grpc::StatusCode::UNAVAILABLE);
  answer.pushback = "1";
  FakeGateway gateway({answer, Ok()});
  grpc::ChannelArguments arguments = ChannelArguments();
  arguments.SetServiceConfigJSON(PublishedServiceConfig());
  ClientOptions options;
  options.channel = grpc::CreateCustomChannel(gateway.address(), grpc::InsecureChannelCredentials(), arguments);
  EXPECT_FALSE(FakeGateway::Connect(options)->CreateUserIntent(Person()).ok());
  EXPECT_EQ(gateway.heard().size(), 1U);
}

}  // namespace
}  // namespace userintent
