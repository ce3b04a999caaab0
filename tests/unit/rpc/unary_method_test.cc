// One method, from a caller's bytes to the bytes of its answer: who may call, what is no message, that a call is
// answered and counted once, and that nothing is left of it.
#include "server/rpc/unary_method.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <condition_variable>
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
using CreateService = v1::UserIntentService::WithRawMethod_CreateUserIntent<v1::UserIntentService::Service>;
using Create = UnaryMethod<v1::CreateUserIntentRequest, v1::CreateUserIntentResponse,
                           &CreateService::RequestCreateUserIntent, CreateService>;
using CreateCall = usecase::Call<v1::CreateUserIntentRequest, v1::CreateUserIntentResponse>;

constexpr auto kPatience = 20s;

class UnaryWatcher final : public CallObserver {
 public:
  struct Ended {
    std::optional<v1::ErrorReason> reason;
    bool replayed;
    bool created;
    std::string caller;
    std::optional<Uuid> request_id;
    int posts;
    std::optional<TraceContext> trace;  // that the caller named
    std::optional<CallSpan> span;
  };

  void OnCallBegun(Method method) override {
    EXPECT_EQ(method, expected);
    const std::lock_guard lock(mutex_);
    ++begun_;
  }
  void OnCallEnded(const EndedCall& call) override {
    EXPECT_EQ(call.method, expected);
    EXPECT_GE(call.took, 0s);
    const std::lock_guard lock(mutex_);
    ended_.push_back({call.reason, call.replayed, call.created, std::string(call.caller), call.request_id,
                      call.trail != nullptr ? call.trail->posts : -1, TraceOf(*call.context),
                      call.span != nullptr ? std::optional(*call.span) : std::nullopt});
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
  std::vector<Ended> Calls(size_t n) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return ended_.size() >= n; }));
    EXPECT_EQ(begun_, ended_.size());
    return ended_;
  }

  Method expected = Method::kCreateUserIntent;
  int bugs = 0;  // on the shard's thread

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t begun_ = 0;
  std::vector<std::string> denied_;
  std::vector<Ended> ended_;
};

class UnaryMethodTest : public testing::Test {
 protected:
  ~UnaryMethodTest() override { server_.Stop(); }

  void Start(Create::Handler handler, MethodOptions options = {.method = Method::kCreateUserIntent, .posted = 2}) {
    method_.emplace(service_, context_, options, std::move(handler));
    server_.Start([this] { method_->Post(); });
    stub_ = v1::UserIntentService::NewStub(server_.channel());
  }

  grpc::Status Call(grpc::ClientContext& context, v1::CreateUserIntentResponse* response = nullptr) {
    v1::CreateUserIntentRequest request;
    request.set_request_id("of-the-test");
    v1::CreateUserIntentResponse unused;
    return stub_->CreateUserIntent(&context, request, response != nullptr ? response : &unused);
  }
  grpc::Status Call(v1::CreateUserIntentResponse* response = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    return Call(context, response);
  }
  grpc::Status CallWithBytes(const std::string& bytes) {
    grpc::GenericStub stub(server_.channel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kPatience);
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::CompletionQueue queue;
    const auto call =
        stub.PrepareUnaryCall(&context, "/userintent.v1.UserIntentService/CreateUserIntent", request, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag;
    bool ok;
    queue.Next(&tag, &ok);
    return status;
  }

  CreateService service_;
  TestServer server_{service_};
  UnaryWatcher observer_;
  MethodContext context_{server_.shard(), observer_};
  std::optional<Create> method_;
  std::unique_ptr<v1::UserIntentService::Stub> stub_;
};

TEST_F(UnaryMethodTest, AHandlersValueIsTheAnswer) {
  Start([](CreateCall&& call) -> usecase::CallerLeft {
    EXPECT_EQ(call.caller, "local");
    EXPECT_EQ(call.request.request_id(), "of-the-test");
    v1::CreateUserIntentResponse response;
    response.set_astra_request_id("req-1");
    response.set_replayed(true);
    call.done(std::move(response));
    return nullptr;
  });
  v1::CreateUserIntentResponse response;
  ASSERT_TRUE(Call(&response).ok());
  EXPECT_EQ(response.astra_request_id(), "req-1");
  const auto ended = observer_.Calls(1);
  EXPECT_EQ(ended[0].reason, v1::ERROR_REASON_UNSPECIFIED);
  EXPECT_TRUE(ended[0].replayed);
}

TEST_F(UnaryMethodTest, AHandlersErrorIsTheStatus) {
  Start([](CreateCall&& call) -> usecase::CallerLeft {
    call.done(CallError::Of(v1::ERROR_REASON_REQUEST_NOT_FOUND));
    return nullptr;
  });
  grpc::ClientContext context;
  const grpc::Status status = Call(context);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(InfoOf(status));
  EXPECT_EQ(InfoOf(status)->reason(), "REQUEST_NOT_FOUND");
  EXPECT_EQ(InfoOf(status)->metadata().at("sent"), "no");
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  EXPECT_EQ(observer_.Calls(1)[0].reason, v1::ERROR_REASON_REQUEST_NOT_FOUND);
}

TEST_F(UnaryMethodTest, ErrorsOfAMethodThatCreatesNothingSayNotWhatWasSent) {
  Start(
      [](CreateCall&& call) -> usecase::CallerLeft {
        call.done(CallError::Of(v1::ERROR_REASON_REQUEST_NOT_FOUND));
        return nullptr;
      },
      {.method = Method::kCreateUserIntent, .posted = 2, .errors_say_sent = false});
  for (const grpc::Status& status : {Call(), CallWithBytes("\xff")}) {
    ASSERT_TRUE(InfoOf(status));
    EXPECT_EQ(InfoOf(status)->metadata().count("sent"), 0u);
    EXPECT_EQ(InfoOf(status)->metadata().count("recovery"), 1u);
  }
}

constexpr char kTraceparent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST_F(UnaryMethodTest, TheObserverIsToldWhoAskedForWhatAndHowItCameAbout) {
  Start([](CreateCall&& call) -> usecase::CallerLeft {
    v1::CreateUserIntentResponse response;
    response.mutable_user_intent()->set_id("intent-1");
    response.set_replayed(call.request.email() == "replay");
    usecase::Result<v1::CreateUserIntentResponse> result(std::move(response));
    usecase::Trail trail;
    trail.posts = 2;
    result.set_trail(trail);
    call.done(std::move(result));
    return nullptr;
  });
  v1::CreateUserIntentResponse response;
  v1::CreateUserIntentRequest request;
  request.set_request_id("0D0C7B86-3b5e-4c39-9d7c-1f6a7c1c3a01");
  for (const char* const email : {"create", "replay"}) {
    request.set_email(email);
    grpc::ClientContext context;
    EXPECT_TRUE(stub_->CreateUserIntent(&context, request, &response).ok());
  }
  EXPECT_TRUE(Call().ok());  // its request_id is no UUID
  const auto ended = observer_.Calls(3);
  EXPECT_TRUE(ended[0].created);
  EXPECT_EQ(ended[0].caller, "local");
  EXPECT_EQ(ended[0].request_id, ParseUuid(request.request_id()));
  EXPECT_EQ(ended[0].posts, 2);
  EXPECT_FALSE(ended[0].trace);
  EXPECT_FALSE(ended[0].span);
  EXPECT_FALSE(ended[1].created);
  EXPECT_FALSE(ended[2].request_id);
}

TEST_F(UnaryMethodTest, ACallersTraceIsReadWhereItIsOne) {
  Start([](CreateCall&& call) -> usecase::CallerLeft {
    EXPECT_FALSE(call.trace);
    call.done(v1::CreateUserIntentResponse());
    return nullptr;
  });
  const std::vector<std::vector<std::string>> sent = {
      {kTraceparent}, {}, {"00-not-a-trace"}, {std::string(kTraceparent) + "-more"}};
  for (const auto& values : sent) {
    grpc::ClientContext context;
    for (const std::string& value : values) context.AddMetadata("traceparent", value);
    EXPECT_TRUE(Call(context).ok());
  }
  const auto ended = observer_.Calls(sent.size());
  ASSERT_TRUE(ended[0].trace);
  EXPECT_EQ(TraceparentText(*ended[0].trace), kTraceparent);
  EXPECT_FALSE(ended[1].trace);
  EXPECT_FALSE(ended[2].trace);
  EXPECT_FALSE(ended[3].trace);
}

TEST_F(UnaryMethodTest, ATracedCallHasASpanOfTheCallersTraceOrOfANewOne) {
  context_.tracing = {.on = true, .sample_new = true};
  std::vector<TraceContext> told;  // on the shard's thread
  Start([&](CreateCall&& call) -> usecase::CallerLeft {
    told.push_back(call.trace.value());
    call.done(v1::CreateUserIntentResponse());
    return nullptr;
  });
  for (const std::string flags : {"01", "00", ""}) {
    grpc::ClientContext context;
    if (!flags.empty()) context.AddMetadata("traceparent", std::string(kTraceparent, sizeof kTraceparent - 3) + flags);
    EXPECT_TRUE(Call(context).ok());
  }
  const auto ended = observer_.Calls(3);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(ended[i].span);
    EXPECT_EQ(ended[i].span->own.trace_id, told[i].trace_id);
    EXPECT_EQ(ended[i].span->own.span_id, told[i].span_id);
    EXPECT_EQ(TraceIdText(told[i].trace_id) == "4bf92f3577b34da6a3ce929d0e0e4736", i < 2);
    EXPECT_EQ(SpanIdText(ended[i].span->parent), i < 2 ? "00f067aa0ba902b7" : "0000000000000000");
    EXPECT_NE(SpanIdText(told[i].span_id), "00f067aa0ba902b7");
    EXPECT_EQ(told[i].sampled, i != 1);
  }
}

TEST_F(UnaryMethodTest, BytesThatAreNoRequestReachNoHandler) {
  Start([](CreateCall&&) -> usecase::CallerLeft {
    ADD_FAILURE() << "handled";
    return nullptr;
  });
  const std::pair<std::string, std::string> cases[] = {
      {"\xff", "MALFORMED_REQUEST"},
      {std::string("\x0a\x02\xc3\x28", 4), "MALFORMED_REQUEST"},  // a string that is not UTF-8
      {std::string("\xc2\x3e\x01x", 4), "UNKNOWN_FIELDS"},
  };
  for (const auto& [bytes, reason] : cases) {
    const grpc::Status status = CallWithBytes(bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    ASSERT_TRUE(InfoOf(status));
    EXPECT_EQ(InfoOf(status)->reason(), reason);
  }
}

TEST_F(UnaryMethodTest, ACallerWithoutAnIdentityReachesNoHandler) {
  context_.require_identity = true;  // and the connection has none
  Start([](CreateCall&&) -> usecase::CallerLeft {
    ADD_FAILURE() << "handled";
    return nullptr;
  });
  const grpc::Status status = Call();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(observer_.Calls(1)[0].reason, v1::ERROR_REASON_CALLER_UNAUTHENTICATED);
}

TEST_F(UnaryMethodTest, ACallerThatThePolicyRefusesReachesNoHandlerNorParser) {
  policy::Gatekeeper keeper;
  keeper.Install(OneRule(Method::kCreateUserIntent, false, true));
  policy::Gate gate(keeper);
  context_.gate = &gate;
  Start([](CreateCall&&) -> usecase::CallerLeft {
    ADD_FAILURE() << "handled";
    return nullptr;
  });
  for (const grpc::Status& status : {Call(), CallWithBytes("\xff"), CallWithBytes("\xc2\x3e\x01x")}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    ASSERT_TRUE(InfoOf(status));
    EXPECT_EQ(InfoOf(status)->reason(), "CALLER_NOT_ALLOWED");
    EXPECT_EQ(InfoOf(status)->metadata().at("recovery"), "STOP");
  }
  EXPECT_EQ(observer_.Calls(3)[2].reason, v1::ERROR_REASON_CALLER_NOT_ALLOWED);
  EXPECT_EQ(observer_.Denied(), std::vector<std::string>(3, "local is"));
}

TEST_F(UnaryMethodTest, TheHandlerIsToldWhatTheCallerMayDo) {
  policy::Gatekeeper keeper;
  policy::Gate gate(keeper);
  context_.gate = &gate;
  std::vector<std::shared_ptr<const policy::Access>> told;  // on the shard's thread
  Start([&](CreateCall&& call) -> usecase::CallerLeft {
    told.push_back(call.access);
    call.done(v1::CreateUserIntentResponse());
    return nullptr;
  });
  EXPECT_TRUE(Call().ok());  // no policy
  const auto policy = OneRule(Method::kCreateUserIntent, true, true);
  keeper.Install(policy);
  EXPECT_TRUE(Call().ok());
  EXPECT_TRUE(observer_.Denied().empty());
  keeper.Install(OneRule(Method::kCreateUserIntent, false, false));  // tried out only
  EXPECT_TRUE(Call().ok());
  EXPECT_EQ(observer_.Denied(), std::vector<std::string>{"local would be"});
  keeper.Install(OneRule(Method::kCreateUserIntent, false, true));
  EXPECT_EQ(Call().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  server_.Stop();
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0]->policy, nullptr);
  EXPECT_EQ(told[1]->policy, policy);
  EXPECT_EQ(told[1]->rule, &policy->rules()[0]);
  EXPECT_FALSE(told[2]->rule->enforce);
}

TEST_F(UnaryMethodTest, AReadThatIsAMessageTakesAToken) {
  policy::Rule rule;
  rule.name = "local";
  rule.methods.fill(true);
  rule.read_rate = policy::Rate{0.001, 2};
  policy::Gatekeeper keeper;
  keeper.Install(std::make_shared<const policy::Policy>(std::vector{rule}));
  policy::Gate gate(keeper);
  context_.gate = &gate;
  observer_.expected = Method::kGetCreation;
  Start(
      [](CreateCall&& call) -> usecase::CallerLeft {
        call.done(v1::CreateUserIntentResponse());
        return nullptr;
      },
      {.method = Method::kGetCreation, .posted = 2, .errors_say_sent = false});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(InfoOf(CallWithBytes("\xff"))->reason(), "MALFORMED_REQUEST");
  EXPECT_TRUE(Call().ok());
  EXPECT_TRUE(Call().ok());
  const grpc::Status status = Call();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ASSERT_TRUE(InfoOf(status));
  EXPECT_EQ(InfoOf(status)->reason(), "CALLER_RATE_LIMITED");
  EXPECT_EQ(InfoOf(status)->metadata().at("recovery"), "RETRY_SAME_ID");
  google::rpc::Status details;
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  ASSERT_TRUE(details.details(1).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 900);
  EXPECT_LE(retry.retry_delay().seconds(), 1000);
  EXPECT_EQ(InfoOf(CallWithBytes("\xff"))->reason(), "MALFORMED_REQUEST") << "comes before";
  EXPECT_EQ(keeper.over_limit().refused[static_cast<size_t>(policy::Limit::kReadRate)], 1u);
  server_.Stop();
}

TEST_F(UnaryMethodTest, ACreationTakesNoReadToken) {
  policy::Access access;
  EXPECT_FALSE(TakeRead(nullptr, Method::kGetCreation));
  EXPECT_FALSE(TakeRead(&access, Method::kGetCreation)) << "no account";
  policy::Limits limits;
  limits.read = policy::Rate{0.001, 1};
  access.account = std::make_shared<policy::CallerAccount>(limits);
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(TakeRead(&access, Method::kCreateUserIntent));
  EXPECT_FALSE(TakeRead(&access, Method::kWatchUserIntents));
  for (const Method read :
       {Method::kGetCreation, Method::kGetUserIntent, Method::kGetAuthorizationUrl, Method::kWatchUserIntents}) {
    EXPECT_TRUE(TakeRead(&access, read));
  }
}

TEST_F(UnaryMethodTest, AnAnswerMayComeLaterAndOnlyTheFirstCounts) {
  Start([this](CreateCall&& call) -> usecase::CallerLeft {
    server_.shard().Post([done = std::move(call.done)]() mutable {
      v1::CreateUserIntentResponse response;
      response.set_astra_request_id("first");
      done(response);
      done(CallError::Of(v1::ERROR_REASON_INTERNAL));
    });
    return [] {
      ADD_FAILURE() << "the caller stayed";
      return usecase::Trail{};
    };
  });
  v1::CreateUserIntentResponse response;
  ASSERT_TRUE(Call(&response).ok());
  EXPECT_EQ(response.astra_request_id(), "first");
  server_.Stop();
  EXPECT_EQ(observer_.Calls(1).size(), 1u);
}

TEST_F(UnaryMethodTest, ACallerThatLeavesIsToldOfAndItsAnswerDropped) {
  std::promise<void> handled;
  int left = 0;                                      // on the shard's thread
  usecase::Done<v1::CreateUserIntentResponse> done;  // the same
  Start([&](CreateCall&& call) -> usecase::CallerLeft {
    done = std::move(call.done);
    handled.set_value();
    return [&] {
      ++left;
      done(v1::CreateUserIntentResponse());
      return usecase::Trail{};
    };
  });
  grpc::ClientContext context;
  std::thread caller([&] { EXPECT_EQ(Call(context).error_code(), grpc::StatusCode::CANCELLED); });
  handled.get_future().wait();
  context.TryCancel();
  caller.join();
  const auto ended = observer_.Calls(1);
  EXPECT_EQ(ended[0].reason, std::nullopt);
  server_.OnShard([&] { done(v1::CreateUserIntentResponse()); });
  server_.Stop();
  done(v1::CreateUserIntentResponse());  // the call is gone
  EXPECT_EQ(left, 1);
  EXPECT_EQ(observer_.Calls(1).size(), 1u);
}

TEST_F(UnaryMethodTest, AnExceptionIsABugOfTheGatewayAndEndsOneCall) {
  Start([](CreateCall&&) -> usecase::CallerLeft { throw std::runtime_error("of the test"); });
  for (int i = 0; i < 2; ++i) {
    const grpc::Status status = Call();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
    EXPECT_EQ(status.error_message().find("of the test"), std::string::npos);
  }
  server_.Stop();
  EXPECT_EQ(observer_.bugs, 2);
}

TEST_F(UnaryMethodTest, MoreCallsThanArePostedAreServed) {
  constexpr int kCalls = 64;
  std::vector<usecase::Done<v1::CreateUserIntentResponse>> held;  // on the shard's thread
  Start([&](CreateCall&& call) -> usecase::CallerLeft {
    held.push_back(std::move(call.done));
    if (held.size() == kCalls) {  // all at once
      for (auto& done : held) done(v1::CreateUserIntentResponse());
    }
    return nullptr;
  });
  std::vector<std::thread> callers;
  callers.reserve(kCalls);
  for (int i = 0; i < kCalls; ++i) callers.emplace_back([this] { EXPECT_TRUE(Call().ok()); });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(observer_.Calls(kCalls).size(), static_cast<size_t>(kCalls));
}

TEST_F(UnaryMethodTest, TheCallersDeadlineElseTheDefault) {
  context_.default_deadline = 1h;
  std::vector<SteadyClock::duration> left;  // on the shard's thread
  Start([&](CreateCall&& call) -> usecase::CallerLeft {
    left.push_back(call.deadline - SteadyClock::now());
    call.done(v1::CreateUserIntentResponse());
    return nullptr;
  });
  grpc::ClientContext without;
  EXPECT_TRUE(Call(without).ok());
  EXPECT_TRUE(Call().ok());
  server_.Stop();
  ASSERT_EQ(left.size(), 2u);
  EXPECT_GT(left[0], 1h - kPatience);
  EXPECT_LE(left[0], 1h);
  EXPECT_LE(left[1], kPatience);
}

TEST_F(UnaryMethodTest, AServerThatStopsLetsGoOfCallsThatNobodyMade) {
  Start([](CreateCall&&) -> usecase::CallerLeft { return nullptr; },
        {.method = Method::kCreateUserIntent, .posted = 256});
  server_.Stop();
  EXPECT_TRUE(observer_.Calls(0).empty());
}

TEST(SteadyDeadline, IsWhatTheCallerStillWaits) {
  const SteadyTime now = SteadyClock::now();
  const auto left = [&](SteadyClock::duration asked) {
    const gpr_timespec span = gpr_time_from_nanos(std::chrono::nanoseconds(asked).count(), GPR_TIMESPAN);
    return SteadyDeadline(gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), span), now, 35s) - now;
  };
  EXPECT_EQ(SteadyDeadline(gpr_inf_future(GPR_CLOCK_REALTIME), now, 35s), now + 35s);
  EXPECT_EQ(SteadyDeadline(gpr_inf_past(GPR_CLOCK_REALTIME), now, 35s) - now, -24h);
  const std::pair<SteadyClock::duration, SteadyClock::duration> cases[] = {
      {5s, 5s}, {20s, 19900ms}, {200s, 199s}, {10000h, 24h}};
  for (const auto& [asked, expected] : cases) {
    EXPECT_LE(left(asked), expected);
    EXPECT_GT(left(asked), expected - 5s) << "the machine stood still";
  }
  EXPECT_LE(left(-1s), -1s);
  // The longest that HTTP/2 can say: 99999999 hours.
  const gpr_timespec longest = gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_hours(99'999'999, GPR_TIMESPAN));
  EXPECT_GT(SteadyDeadline(longest, now, 35s), now + 23h);
}

}  // namespace
}  // namespace userintent::rpc
