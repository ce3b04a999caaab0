// One server-streaming method, from a caller's bytes to the end of its stream: who may call, what is no message, that
// messages come in order, that a call is ended and counted once, and that nothing is left of it.
#include "server/rpc/streaming_method.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/rpc/test_calls.h"
#include "tests/unit/rpc/test_server.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent::rpc {
namespace {

using namespace std::chrono_literals;
using usecase::CallError;
using WatchService = v1::UserIntentService::WithRawMethod_WatchUserIntents<v1::UserIntentService::Service>;
using Request = v1::WatchUserIntentsRequest;
using Response = v1::WatchUserIntentsResponse;
using Watch = StreamingMethod<Request, Response, &WatchService::RequestWatchUserIntents, WatchService>;
using Call = usecase::StreamCall<Request, Response>;

constexpr auto kStreamPatience = 60s;

class StreamWatcher final : public CallObserver {
 public:
  void OnCallBegun(Method method) override {
    EXPECT_EQ(method, Method::kWatchUserIntents);
    const std::lock_guard lock(mutex_);
    ++begun_;
  }
  void OnCallEnded(const EndedCall& call) override {
    EXPECT_EQ(call.method, Method::kWatchUserIntents);
    EXPECT_FALSE(call.replayed);
    const std::lock_guard lock(mutex_);
    ended_.push_back(call.reason);
    changed_.notify_all();
  }
  void OnDenied(Method, const std::string& caller, const policy::Admission& admission) override {
    const std::lock_guard lock(mutex_);
    denied_.push_back(caller + (admission.verdict.would_deny ? " would be" : " is"));
  }
  void OnBug(std::string_view) override { ++bugs; }

  std::vector<std::string> Denied() {
    const std::lock_guard lock(mutex_);
    return denied_;
  }

  // The calls that ended, once there are `n`.
  std::vector<std::optional<v1::ErrorReason>> Calls(size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kStreamPatience, [&] { return ended_.size() >= n; }));
    EXPECT_EQ(begun_, ended_.size());
    return ended_;
  }

  std::atomic<int> bugs{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t begun_ = 0;
  std::vector<std::string> denied_;
  std::vector<std::optional<v1::ErrorReason>> ended_;
};

// How many streams there are, which their shard's thread destroys.
std::atomic<int> live_streams{0};

// Runs a function whenever a message was taken.
class TestStream final : public usecase::ServerStream {
 public:
  explicit TestStream(
      std::function<void()> on_written, std::function<void()> on_not_allowed = [] {})
      : on_written_(std::move(on_written)), on_not_allowed_(std::move(on_not_allowed)) {
    ++live_streams;
  }
  ~TestStream() override { --live_streams; }
  void OnWritten() override { on_written_(); }
  void OnNotAllowed() override { on_not_allowed_(); }

 private:
  const std::function<void()> on_written_;
  const std::function<void()> on_not_allowed_;
};

Response Message(size_t size) {
  Response message;
  message.mutable_heartbeat();
  message.set_resume_token(std::string(size, 't'));
  return message;
}

class StreamingMethodTest : public testing::Test {
 protected:
  ~StreamingMethodTest() override {
    server_.Stop();
    EXPECT_EQ(live_streams, 0);
  }

  void Start(Watch::Handler handler) {
    method_.emplace(service_, context_,
                    MethodOptions{.method = Method::kWatchUserIntents, .posted = 2, .errors_say_sent = false},
                    std::move(handler));
    server_.Start([this] { method_->Post(); });
    stub_ = v1::UserIntentService::NewStub(server_.channel());
  }

  std::unique_ptr<grpc::ClientReader<Response>> Begin(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + kStreamPatience);
    Request request;
    request.add_request_ids("of-the-test");
    return stub_->WatchUserIntents(&context, request);
  }

  template <typename F>
  static void WaitUntil(F condition) {
    const auto end = std::chrono::steady_clock::now() + kStreamPatience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(5ms);
    }
  }

  WatchService service_;
  TestServer server_{service_};
  StreamWatcher observer_;
  MethodContext context_{server_.shard(), observer_};
  std::optional<Watch> method_;
  std::unique_ptr<v1::UserIntentService::Stub> stub_;
};

TEST_F(StreamingMethodTest, MessagesComeInOrderAndThenTheError) {
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    EXPECT_EQ(call.caller, "local");
    EXPECT_EQ(call.request.request_ids(0), "of-the-test");
    auto* const output = &call.output;
    output->Write(Message(1));
    return std::make_shared<TestStream>([output, n = std::make_shared<size_t>(1)] {
      if (++*n <= 100) return output->Write(Message(*n));
      output->End(CallError::Of(v1::ERROR_REASON_DRAINING));
    });
  });
  grpc::ClientContext context;
  const auto reader = Begin(context);
  Response message;
  size_t n = 0;
  while (reader->Read(&message)) EXPECT_EQ(message.resume_token().size(), ++n);
  EXPECT_EQ(n, 100U);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  const auto info = InfoOf(status);
  ASSERT_TRUE(info);
  EXPECT_EQ(info->reason(), "DRAINING");
  EXPECT_FALSE(info->metadata().contains("sent"));
  EXPECT_FALSE(context.GetServerTrailingMetadata().contains(kPushbackTrailer));
  EXPECT_EQ(observer_.Calls(1)[0], v1::ERROR_REASON_DRAINING);
  WaitUntil([] { return live_streams == 0; });
}

TEST_F(StreamingMethodTest, AnErrorAtOnceIsTheStatus) {
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    call.output.End(CallError::Of(v1::ERROR_REASON_FIELD_INVALID));
    call.output.End(CallError::Of(v1::ERROR_REASON_DRAINING));  // too late
    return nullptr;
  });
  grpc::ClientContext context;
  const auto reader = Begin(context);
  Response message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(context.GetServerTrailingMetadata().contains(kPushbackTrailer));
  EXPECT_EQ(observer_.Calls(1)[0], v1::ERROR_REASON_FIELD_INVALID);
}

TEST_F(StreamingMethodTest, WhoHasNoIdentityIsNotServed) {
  context_.require_identity = true;
  Start([](Call&&) -> std::shared_ptr<usecase::ServerStream> {
    ADD_FAILURE() << "served";
    return nullptr;
  });
  grpc::ClientContext context;
  EXPECT_EQ(Begin(context)->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

TEST_F(StreamingMethodTest, WhomThePolicyRefusesIsNotServed) {
  policy::Gatekeeper keeper;
  keeper.Install(OneRule(Method::kWatchUserIntents, false, true));
  policy::Gate gate(keeper);
  context_.gate = &gate;
  Start([](Call&&) -> std::shared_ptr<usecase::ServerStream> {
    ADD_FAILURE() << "served";
    return nullptr;
  });
  grpc::ClientContext context;
  const grpc::Status status = Begin(context)->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  ASSERT_TRUE(InfoOf(status));
  EXPECT_EQ(InfoOf(status)->reason(), "CALLER_NOT_ALLOWED");
  EXPECT_TRUE(context.GetServerTrailingMetadata().contains(kPushbackTrailer));
  EXPECT_EQ(observer_.Denied(), std::vector<std::string>{"local is"});
}

TEST_F(StreamingMethodTest, APolicyThatTakesTheMethodAwayEndsItsStreams) {
  policy::Gatekeeper keeper;
  policy::Gate gate(keeper);
  context_.gate = &gate;
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    auto* const output = &call.output;
    output->Write(Message(1));
    return std::make_shared<TestStream>([] {},
                                        [output] { output->End(CallError::Of(v1::ERROR_REASON_CALLER_NOT_ALLOWED)); });
  });
  const auto install = [&](std::shared_ptr<const policy::Policy> policy) {
    keeper.Install(std::move(policy));
    server_.OnShard([&] { method_->OnPolicyChanged(); });
  };
  constexpr size_t kStreams = 5;
  grpc::ClientContext contexts[kStreams];
  std::vector<std::unique_ptr<grpc::ClientReader<Response>>> readers;
  Response message;
  for (grpc::ClientContext& context : contexts) {
    readers.push_back(Begin(context));
    EXPECT_TRUE(readers.back()->Read(&message));
  }
  install(OneRule(Method::kWatchUserIntents, true, true));
  install(OneRule(Method::kWatchUserIntents, false, false));  // tried out only
  EXPECT_EQ(live_streams, static_cast<int>(kStreams));
  EXPECT_TRUE(observer_.Denied().empty());
  install(OneRule(Method::kWatchUserIntents, false, true));
  for (const auto& reader : readers) {
    EXPECT_FALSE(reader->Read(&message));
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  }
  EXPECT_EQ(observer_.Calls(kStreams).back(), v1::ERROR_REASON_CALLER_NOT_ALLOWED);
  EXPECT_EQ(observer_.Denied(), std::vector<std::string>(kStreams, "local is"));
  WaitUntil([] { return live_streams == 0; });
  install(OneRule(Method::kWatchUserIntents, false, true));  // nobody is left to be told
  EXPECT_EQ(observer_.Denied().size(), kStreams);
}

TEST_F(StreamingMethodTest, BytesThatAreNoMessageAreRefused) {
  Start([](Call&&) -> std::shared_ptr<usecase::ServerStream> {
    ADD_FAILURE() << "served";
    return nullptr;
  });
  const std::pair<std::string, const char*> requests[] = {{"\x0a\xff", "MALFORMED_REQUEST"},
                                                          {"\xf8\x01\x01", "UNKNOWN_FIELDS"}};
  for (const auto& [bytes, reason] : requests) {
    grpc::GenericStub stub(server_.channel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kStreamPatience);
    const grpc::Slice slice(bytes);
    grpc::CompletionQueue queue;
    const auto call = stub.PrepareUnaryCall(&context, "/userintent.v1.UserIntentService/WatchUserIntents",
                                            grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    const auto info = InfoOf(status);
    ASSERT_TRUE(info) << status.error_message();
    EXPECT_EQ(info->reason(), reason);
  }
}

TEST_F(StreamingMethodTest, AnExceptionIsABugAndEndsTheCall) {
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    call.output.Write(Message(1));
    return std::make_shared<TestStream>([] { throw std::runtime_error("x"); });
  });
  grpc::ClientContext context;
  const auto reader = Begin(context);
  Response message;
  EXPECT_TRUE(reader->Read(&message));
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(observer_.Calls(1)[0], v1::ERROR_REASON_INTERNAL);
  EXPECT_EQ(observer_.bugs, 1);
}

TEST_F(StreamingMethodTest, ACallerThatLeavesIsCountedOnce) {
  // Some leave while messages are under way, some while all is quiet.
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    auto* const output = &call.output;
    output->Write(Message(1));
    return std::make_shared<TestStream>([output, n = std::make_shared<int>(0)] {
      if (++*n < 100) output->Write(Message(10'000));
    });
  });
  for (size_t i = 1; i <= 20; ++i) {
    grpc::ClientContext context;
    const auto reader = Begin(context);
    Response message;
    EXPECT_TRUE(reader->Read(&message));
    for (size_t read = i % 2; read > 0 && read < 100; ++read) EXPECT_TRUE(reader->Read(&message));
    context.TryCancel();
    while (reader->Read(&message)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_EQ(observer_.Calls(i).back(), std::nullopt);
  }
  WaitUntil([] { return live_streams == 0; });
}

// A message is under way that its reader does not take, and behind it the end.
TEST_F(StreamingMethodTest, TheEndReachesAReaderThatReadsAgain) {
  std::atomic<int> written{0};
  usecase::StreamOutput<Response>* output = nullptr;
  Start([&](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    output = &call.output;
    output->Write(Message(100'000));
    return std::make_shared<TestStream>([&] {
      ++written;
      output->Write(Message(100'000));
    });
  });
  grpc::ClientContext context;
  const auto reader = Begin(context);
  int seen = -1;
  WaitUntil([&] { return std::exchange(seen, written.load()) == written.load() && seen > 0; });
  server_.OnShard([&] { output->End(CallError::Of(v1::ERROR_REASON_CALLER_RATE_LIMITED)); });
  Response message;
  int read = 0;
  while (reader->Read(&message)) ++read;
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_TRUE(InfoOf(status));
  EXPECT_EQ(InfoOf(status)->reason(), "CALLER_RATE_LIMITED");
  EXPECT_GE(read, written);
  EXPECT_EQ(observer_.Calls(1)[0], v1::ERROR_REASON_CALLER_RATE_LIMITED);
}

TEST_F(StreamingMethodTest, AReaderThatNeverReadsAgainIsLetGo) {
  usecase::StreamOutput<Response>* output = nullptr;
  std::atomic<int> written{0};
  Start([&](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    output = &call.output;
    output->Write(Message(100'000));
    return std::make_shared<TestStream>([&] {
      ++written;
      output->Write(Message(100'000));
    });
  });
  grpc::ClientContext context;
  const auto reader = Begin(context);
  int seen = -1;
  WaitUntil([&] { return std::exchange(seen, written.load()) == written.load() && seen > 0; });
  server_.OnShard([&] { output->End(CallError::Of(v1::ERROR_REASON_CALLER_RATE_LIMITED)); });
  WaitUntil([] { return live_streams == 0; });
  Response message;
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(StreamingMethodTest, AServerThatStopsLetsGoOfOpenStreams) {
  Start([](Call&& call) -> std::shared_ptr<usecase::ServerStream> {
    call.output.Write(Message(1));
    return std::make_shared<TestStream>([] {});
  });
  grpc::ClientContext contexts[3];
  std::vector<std::unique_ptr<grpc::ClientReader<Response>>> readers;
  Response message;
  for (grpc::ClientContext& context : contexts) {
    readers.push_back(Begin(context));
    EXPECT_TRUE(readers.back()->Read(&message));
  }
  server_.Stop();
  EXPECT_EQ(live_streams, 0);
  EXPECT_EQ(observer_.Calls(3).size(), 3U);
  for (const auto& reader : readers) {
    EXPECT_FALSE(reader->Read(&message));
    EXPECT_FALSE(reader->Finish().ok());
  }
}

}  // namespace
}  // namespace userintent::rpc
