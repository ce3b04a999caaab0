// FakeGateway: a gRPC server on the loopback that answers as a test says. For the tests of this directory.
//
// Threads: the constructor and the getters for any thread; calls are answered on gRPC's threads. The test owns
// it, and destroys it after its clients, or before them to break their connections.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/grpcpp.h"
#include "userintent/client.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

// What the gateway says to one RPC.
struct FakeAnswer {
  grpc::StatusCode code = grpc::StatusCode::OK;  // OK: the intent "intent"
  std::string message = "message";
  std::string reason = {};  // empty: no ErrorInfo
  std::map<std::string, std::string> words = {};
  std::string domain = "userintent.v1";
  std::optional<absl::Duration> retry = {};
  std::string pushback = {};
  std::vector<std::string> violations = {};
  std::string details = {};  // these bytes instead
  bool hang = false;         // until the client leaves

  grpc::Status Status() const;
};

// What the gateway says on one watch: these messages, then the end.
struct FakeStream {
  std::vector<userintent::v1::WatchUserIntentsResponse> messages = {};
  FakeAnswer end = {};  // OK: a clean one; hang: none, until the client leaves
};

FakeAnswer Busy(absl::Duration retry);  // OVERLOADED, to be repeated after this time

class FakeGateway {
 public:
  explicit FakeGateway(std::vector<FakeAnswer> answers, std::string address = "127.0.0.1:0",
                       std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials());
  ~FakeGateway();
  FakeGateway(const FakeGateway&) = delete;
  FakeGateway& operator=(const FakeGateway&) = delete;

  const std::string& address() const { return address_; }
  userintent::ClientOptions Options() const;
  // A client with these options, or plaintext ones.
  std::unique_ptr<userintent::Client> Connect() const { return Connect(Options()); }
  static std::unique_ptr<userintent::Client> Connect(const userintent::ClientOptions& options);

  // Of the watches, in order; the last one stays. Before the first watch.
  void Streams(std::vector<FakeStream> streams);

  // Waits until so many RPCs, or watches, have arrived.
  void Await(size_t rpcs) const;
  void AwaitWatches(size_t watches) const;
  // Waits until every watch has ended, here at the gateway.
  void AwaitNoWatch() const;
  std::vector<userintent::v1::CreateUserIntentRequest> heard() const;
  std::vector<userintent::v1::GetUserIntentRequest> reads() const;
  std::vector<userintent::v1::GetAuthorizationUrlRequest> authorizations() const;
  std::vector<userintent::v1::WatchUserIntentsRequest> watches() const;
  std::vector<absl::Time> watch_times() const;
  std::vector<absl::Time> times() const;
  std::vector<absl::Duration> left() const;  // until the caller's deadline
  std::vector<std::string> user_agents() const;

 private:
  class Service;

  std::string address_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
};

userintent::v1::CreateUserIntentRequest Person();
