// grpc.health.v1 on a shard: what Check answers, and what Watch tells and when.
#include "server/rpc/health_service.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/rpc/healthcheck.h"
#include "tests/unit/rpc/test_server.h"

namespace userintent::rpc {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// Of every call that began and ended, its code.
class HealthWatcher final : public CallObserver {
 public:
  void OnCallBegun(Method) override { ADD_FAILURE() << "not of our service"; }
  void OnCallEnded(const EndedCall&) override { ADD_FAILURE() << "not of our service"; }
  void OnOtherCallBegun() override { ++begun; }
  void OnOtherCallEnded(std::string_view code, SteadyClock::duration took) override {
    EXPECT_GE(took, SteadyClock::duration::zero());
    ended.emplace_back(code);
  }
  void OnDenied(Method, const std::string&, const policy::Admission&) override {}
  void OnBug(std::string_view) override {}

  int begun = 0;  // on the shard's thread, as the other
  std::vector<std::string> ended;
};

class HealthServiceTest : public testing::Test {
 protected:
  HealthServiceTest() {
    server_.Start([this] { calls_.Start(); });
    stub_ = Health::NewStub(server_.channel());
  }
  ~HealthServiceTest() override { server_.Stop(); }

  grpc::Status Check(const std::string& service, HealthCheckResponse* response) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    return stub_->Check(&context, request, response);
  }
  void Set(bool serving) {
    state_.Set(serving);
    server_.OnShard([this] { calls_.Announce(); });
  }

  HealthService service_;
  TestServer server_{service_};
  HealthState state_;
  HealthWatcher observer_;
  HealthCalls calls_{service_, state_, server_.shard(), observer_};
  std::unique_ptr<Health::Stub> stub_;
};

TEST_F(HealthServiceTest, CheckAnswersForTheServerAndItsService) {
  for (const bool serving : {false, true, false}) {
    Set(serving);
    for (const char* const service : {"", "userintent.v1.UserIntentService"}) {
      HealthCheckResponse response;
      ASSERT_TRUE(Check(service, &response).ok());
      EXPECT_EQ(response.status(), serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING);
    }
  }
}

TEST_F(HealthServiceTest, CheckKnowsNoOtherService) {
  HealthCheckResponse response;
  EXPECT_EQ(Check("grpc.health.v1.Health", &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(HealthServiceTest, EveryCallIsCounted) {
  HealthCheckResponse response;
  EXPECT_TRUE(Check("", &response).ok());
  EXPECT_FALSE(Check("another", &response).ok());
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, HealthCheckRequest());
  ASSERT_TRUE(watch->Read(&response));
  context.TryCancel();
  while (watch->Read(&response)) {
  }
  std::vector<std::string> ended;
  while (ended.size() < 3) {  // the caller's leaving comes in its time
    server_.OnShard([&] { ended = observer_.ended; });
  }
  EXPECT_EQ(ended, (std::vector<std::string>{"OK", "NOT_FOUND", "CANCELLED"}));
  server_.OnShard([&] { EXPECT_EQ(observer_.begun, 3); });
}

TEST_F(HealthServiceTest, BytesThatAreNoQuestion) {
  grpc::GenericStub stub(server_.channel());
  grpc::ClientContext context;
  const grpc::Slice slice(std::string("\xff"));
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(HealthServiceTest, AServerThatCallsItselfNoticesAShardThatIsStuck) {
  CallsToSelf calls(server_.server());
  for (const bool serving : {false, true}) {
    Set(serving);
    EXPECT_TRUE(calls.Answered(absl::Minutes(1)));
  }
  std::promise<void> stuck;
  std::promise<void> go_on;
  server_.shard().Post([&] {
    stuck.set_value();
    go_on.get_future().wait();
  });
  stuck.get_future().wait();  // a call that comes before what is posted would be answered
  EXPECT_FALSE(calls.Answered(absl::Milliseconds(300)));
  EXPECT_FALSE(calls.Answered(absl::Milliseconds(1)));
  go_on.set_value();
  EXPECT_TRUE(calls.Answered(absl::Minutes(1)));
}

TEST_F(HealthServiceTest, WatchTellsTheStateAndThenItsChanges) {
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, HealthCheckRequest());
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  Set(false);  // no news
  Set(true);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  Set(false);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  context.TryCancel();
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
  Set(true);  // tells a watch that is gone
}

TEST_F(HealthServiceTest, WatchTakesANameThatItDoesNotKnow) {
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("other");
  const auto watch = stub_->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  watch->Finish();
}

TEST_F(HealthServiceTest, AServerThatStopsEndsAWatch) {
  grpc::ClientContext context;
  const auto watch = stub_->Watch(&context, HealthCheckRequest());
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  server_.Stop();
  EXPECT_FALSE(watch->Read(&response));
}

}  // namespace
}  // namespace userintent::rpc
