// The bare gRPC echo that the gateway is measured against: the callback API, the same messages, no work, no upstream.
// Prints its port, serves until it is killed.
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <cstdio>

#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace {

class Echo final : public userintent::v1::UserIntentService::CallbackService {
 public:
  grpc::ServerUnaryReactor* CreateUserIntent(grpc::CallbackServerContext* context,
                                             const userintent::v1::CreateUserIntentRequest* request,
                                             userintent::v1::CreateUserIntentResponse* response) override {
    response->mutable_user_intent()->set_id(request->request_id());
    response->mutable_user_intent()->set_status(userintent::v1::USER_INTENT_STATUS_PENDING);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

}  // namespace

int main() {
  Echo echo;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&echo);
  const auto server = builder.BuildAndStart();
  if (!server || port == 0) return 1;
  std::printf("{\"address\":\"127.0.0.1:%d\"}\n", port);
  std::fflush(stdout);
  server->Wait();
}
