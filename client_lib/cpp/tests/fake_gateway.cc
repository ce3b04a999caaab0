#include "tests/fake_gateway.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "gmock/gmock.h"

using userintent::v1::CreateUserIntentRequest;
using userintent::v1::WatchUserIntentsResponse;

grpc::Status FakeAnswer::Status() const {
  if (code == grpc::StatusCode::OK) return grpc::Status::OK;
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  if (!reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    info.set_domain(domain);
    for (const auto& [name, word] : words) (*info.mutable_metadata())[name] = word;
    status.add_details()->PackFrom(info);
  }
  if (!violations.empty()) {
    google::rpc::BadRequest bad;
    for (const std::string& field : violations) {
      auto* violation = bad.add_field_violations();
      violation->set_field(field);
      violation->set_description("breaks a rule");
    }
    status.add_details()->PackFrom(bad);
  }
  if (retry.has_value()) {
    google::rpc::RetryInfo info;
    absl::Duration rest;
    info.mutable_retry_delay()->set_seconds(absl::IDivDuration(*retry, absl::Seconds(1), &rest));
    info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
    status.add_details()->PackFrom(info);
  }
  return grpc::Status(code, message, details.empty() ? status.SerializeAsString() : details);
}

FakeAnswer Busy(absl::Duration retry) {
  FakeAnswer answer;
  answer.code = grpc::StatusCode::UNAVAILABLE;
  answer.reason = "OVERLOADED";
  answer.words = {{"sent", "no"}, {"recovery", "RETRY_SAME_ID"}};
  answer.retry = retry;
  return answer;
}

// Answers in order; the last one stays.
class FakeGateway::Service final : public userintent::v1::UserIntentService::CallbackService {
 public:
  explicit Service(std::vector<FakeAnswer> answers) : answers_(std::move(answers)) {}

  grpc::ServerUnaryReactor* CreateUserIntent(grpc::CallbackServerContext* context,
                                             const CreateUserIntentRequest* request,
                                             userintent::v1::CreateUserIntentResponse* response) override {
    response->mutable_user_intent()->set_id("intent");
    response->set_replayed(true);
    return Give(context, *request);
  }

  grpc::ServerUnaryReactor* GetCreation(grpc::CallbackServerContext* context,
                                        const userintent::v1::GetCreationRequest* request,
                                        userintent::v1::GetCreationResponse* response) override {
    response->mutable_creation()->set_request_id(request->request_id());
    CreateUserIntentRequest heard;
    heard.set_request_id(request->request_id());
    return Give(context, heard);
  }

  grpc::ServerUnaryReactor* GetUserIntent(grpc::CallbackServerContext* context,
                                          const userintent::v1::GetUserIntentRequest* request,
                                          userintent::v1::GetUserIntentResponse* response) override {
    response->mutable_user_intent()->set_id("intent");
    response->mutable_user_intent()->set_user_id("user");
    response->set_stale(request->allow_stale());
    {
      absl::MutexLock lock(&mu_);
      reads_.push_back(*request);
    }
    CreateUserIntentRequest heard;
    heard.set_request_id(request->request_id());
    return Give(context, heard);
  }

  grpc::ServerUnaryReactor* GetAuthorizationUrl(grpc::CallbackServerContext* context,
                                                const userintent::v1::GetAuthorizationUrlRequest* request,
                                                userintent::v1::GetAuthorizationUrlResponse* response) override {
    response->set_url("https://app.example.com/");
    {
      absl::MutexLock lock(&mu_);
      authorizations_.push_back(*request);
    }
    CreateUserIntentRequest heard;
    heard.set_request_id(request->request_id());
    return Give(context, heard);
  }

  grpc::ServerWriteReactor<WatchUserIntentsResponse>* WatchUserIntents(
      grpc::CallbackServerContext* context, const userintent::v1::WatchUserIntentsRequest* request) override {
    absl::MutexLock lock(&mu_);
    FakeStream stream = streams_[std::min(watches_.size(), streams_.size() - 1)];
    watches_.push_back(*request);
    watch_times_.push_back(absl::Now());
    ++open_;
    if (!stream.end.pushback.empty()) context->AddTrailingMetadata("grpc-retry-pushback-ms", stream.end.pushback);
    return new Writer(this, std::move(stream));
  }

 private:
  // Ends when the answer says so, or with the caller's cancellation.
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    void OnDone() override { delete this; }
    void OnCancel() override { Once(grpc::Status::CANCELLED); }
    void Once(const grpc::Status& status) {
      if (!finished_.exchange(true)) Finish(status);
    }

   private:
    std::atomic<bool> finished_ = false;
  };

  // Writes one message after the other.
  class Writer final : public grpc::ServerWriteReactor<WatchUserIntentsResponse> {
   public:
    Writer(Service* service, FakeStream stream) : service_(service), stream_(std::move(stream)) { Go(); }
    void OnWriteDone(bool ok) override {
      if (ok) Go();
    }
    void OnCancel() override { Once(grpc::Status::CANCELLED); }
    void OnDone() override {
      {
        absl::MutexLock lock(&service_->mu_);
        --service_->open_;
      }
      delete this;
    }

   private:
    void Go() {
      if (next_ < stream_.messages.size()) {
        StartWrite(&stream_.messages[next_++]);
      } else if (!stream_.end.hang) {
        Once(stream_.end.Status());
      }
    }
    void Once(const grpc::Status& status) {
      if (!finished_.exchange(true)) Finish(status);
    }

    Service* const service_;
    const FakeStream stream_;
    size_t next_ = 0;
    std::atomic<bool> finished_ = false;
  };

  grpc::ServerUnaryReactor* Give(grpc::CallbackServerContext* context, const CreateUserIntentRequest& request) {
    FakeAnswer answer;
    {
      absl::MutexLock lock(&mu_);
      answer = answers_[std::min(heard_.size(), answers_.size() - 1)];
      heard_.push_back(request);
      times_.push_back(absl::Now());
      left_.push_back(absl::FromChrono(context->deadline()) - absl::Now());
      const auto agent = context->client_metadata().find("user-agent");
      agents_.emplace_back(agent == context->client_metadata().end()
                               ? std::string()
                               : std::string(agent->second.data(), agent->second.size()));
    }
    if (!answer.pushback.empty()) context->AddTrailingMetadata("grpc-retry-pushback-ms", answer.pushback);
    auto* reactor = new Reactor;
    if (!answer.hang) reactor->Once(answer.Status());
    return reactor;
  }

  const std::vector<FakeAnswer> answers_;

 public:
  mutable absl::Mutex mu_;
  std::vector<CreateUserIntentRequest> heard_;
  std::vector<userintent::v1::GetUserIntentRequest> reads_;
  std::vector<userintent::v1::GetAuthorizationUrlRequest> authorizations_;
  std::vector<FakeStream> streams_ = {FakeStream()};
  std::vector<userintent::v1::WatchUserIntentsRequest> watches_;
  std::vector<absl::Time> watch_times_;
  int open_ = 0;  // watches
  std::vector<absl::Time> times_;
  std::vector<absl::Duration> left_;
  std::vector<std::string> agents_;
};

FakeGateway::FakeGateway(std::vector<FakeAnswer> answers, std::string address,
                         std::shared_ptr<grpc::ServerCredentials> credentials)
    : service_(std::make_unique<Service>(std::move(answers))) {
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(address, std::move(credentials), &port);
  builder.RegisterService(service_.get());
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr);
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeGateway::~FakeGateway() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
}

userintent::ClientOptions FakeGateway::Options() const {
  userintent::ClientOptions options;
  options.target = address_;
  options.plaintext = true;
  return options;
}

std::unique_ptr<userintent::Client> FakeGateway::Connect(const userintent::ClientOptions& options) {
  auto client = userintent::Client::Create(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return client.ok() ? *std::move(client) : nullptr;
}

void FakeGateway::Await(size_t rpcs) const {
  const auto arrived = [this, rpcs] { return service_->heard_.size() >= rpcs; };
  absl::MutexLock lock(&service_->mu_);
  EXPECT_TRUE(service_->mu_.AwaitWithTimeout(absl::Condition(&arrived), absl::Seconds(30)));
}

void FakeGateway::Streams(std::vector<FakeStream> streams) {
  absl::MutexLock lock(&service_->mu_);
  service_->streams_ = std::move(streams);
}

void FakeGateway::AwaitWatches(size_t watches) const {
  const auto arrived = [this, watches] { return service_->watches_.size() >= watches; };
  absl::MutexLock lock(&service_->mu_);
  EXPECT_TRUE(service_->mu_.AwaitWithTimeout(absl::Condition(&arrived), absl::Seconds(30)));
}

void FakeGateway::AwaitNoWatch() const {
  const auto gone = [this] { return service_->open_ == 0; };
  absl::MutexLock lock(&service_->mu_);
  EXPECT_TRUE(service_->mu_.AwaitWithTimeout(absl::Condition(&gone), absl::Seconds(30)));
}

std::vector<userintent::v1::GetAuthorizationUrlRequest> FakeGateway::authorizations() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->authorizations_;
}

std::vector<userintent::v1::WatchUserIntentsRequest> FakeGateway::watches() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->watches_;
}

std::vector<absl::Time> FakeGateway::watch_times() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->watch_times_;
}

std::vector<CreateUserIntentRequest> FakeGateway::heard() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->heard_;
}

std::vector<userintent::v1::GetUserIntentRequest> FakeGateway::reads() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->reads_;
}

std::vector<absl::Time> FakeGateway::times() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->times_;
}

std::vector<absl::Duration> FakeGateway::left() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->left_;
}

std::vector<std::string> FakeGateway::user_agents() const {
  absl::MutexLock lock(&service_->mu_);
  return service_->agents_;
}

CreateUserIntentRequest Person() {
  CreateUserIntentRequest request;
  request.set_email("jane.doe@example.com");
  request.set_first_name("Jane");
  request.set_ssn_last_four("8259");
  (*request.mutable_metadata())["secretkey"] = "secretvalue";
  return request;
}
