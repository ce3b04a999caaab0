// A gRPC server in this process with one shard, whose services and methods the test brings. Its port is one of
// 127.0.0.1 that the system picks.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <string>
#include <utility>

#include "server/rpc/shard.h"

namespace userintent::rpc {

// Of a shard that sends nothing.
class NoHttp final : public http::Client {
 public:
  ~NoHttp() override { close(event_); }
  ExchangeId Start(http::Request, Done) override {
    ADD_FAILURE() << "sends";
    return 0;
  }
  bool CancelUnsent(ExchangeId) override { return false; }
  int PollFd() const override { return event_; }
  std::optional<SteadyTime> NextTimer() const override { return std::nullopt; }
  void Turn() override {}
  const http::Stats& stats() const override { return stats_; }

 private:
  const int event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);  // never readable
  const http::Stats stats_;
};

// Set up with services, Start() with what posts the calls; Stop(), at the latest by the destructor, before what the
// calls use is destroyed.
class TestServer {
 public:
  explicit TestServer(grpc::Service& service) {
    builder_.RegisterService(&service);
    builder_.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    shard_ = std::make_unique<Shard>(builder_.AddCompletionQueue(), http_);
  }
  ~TestServer() { Stop(); }

  void Start(Task post_calls) {
    server_ = builder_.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    shard_->Start(std::move(post_calls));
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port_), grpc::InsecureChannelCredentials());
  }
  void Stop() {
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    shard_->Stop();
    server_.reset();
  }

  // Runs `task` on the shard's thread and waits for it.
  void OnShard(absl::AnyInvocable<void()> task) {
    std::promise<void> ran;
    shard_->Post([&] {
      task();
      ran.set_value();
    });
    ran.get_future().wait();
  }

  grpc::ServerBuilder& builder() { return builder_; }
  Shard& shard() { return *shard_; }
  grpc::Server& server() { return *server_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  NoHttp http_;
  grpc::ServerBuilder builder_;
  int port_ = 0;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace userintent::rpc
