#include "server/admin/admin_server.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/admin/operator_service.h"
#include "server/admin/socket.h"
#include "server/base/errno_text.h"
#include "server/observe/log.h"
#include "server/rpc/listener.h"
#include "userintent/admin/v1/ledger_admin_service.grpc.pb.h"

namespace userintent::admin {

class AdminServer::Service final : public v1::LedgerAdminService::Service {
 public:
  explicit Service(OperatorService::Options options) : operator_service_(std::move(options)) {}

  grpc::Status ShowRequest(grpc::ServerContext*, const v1::ShowRequestRequest* request,
                           v1::ShowRequestResponse* response) override {
    return Answer(operator_service_.ShowRequest(*request, response));
  }
  grpc::Status ListUnresolved(grpc::ServerContext*, const v1::ListUnresolvedRequest* request,
                              v1::ListUnresolvedResponse* response) override {
    return Answer(operator_service_.ListUnresolved(*request, response));
  }
  grpc::Status GetStatistics(grpc::ServerContext*, const v1::GetStatisticsRequest* request,
                             v1::GetStatisticsResponse* response) override {
    return Answer(operator_service_.GetStatistics(*request, response));
  }
  grpc::Status ResolveRequest(grpc::ServerContext*, const v1::ResolveRequestRequest* request,
                              v1::ResolveRequestResponse* response) override {
    return Answer(operator_service_.ResolveRequest(*request, response));
  }
  grpc::Status ListAudit(grpc::ServerContext*, const v1::ListAuditRequest* request,
                         v1::ListAuditResponse* response) override {
    return Answer(operator_service_.ListAudit(*request, response));
  }
  grpc::Status ListConflicts(grpc::ServerContext*, const v1::ListConflictsRequest* request,
                             v1::ListConflictsResponse* response) override {
    return Answer(operator_service_.ListConflicts(*request, response));
  }
  grpc::Status FindRequests(grpc::ServerContext*, const v1::FindRequestsRequest* request,
                            v1::FindRequestsResponse* response) override {
    return Answer(operator_service_.FindRequests(*request, response));
  }
  grpc::Status BackUp(grpc::ServerContext* context, const v1::BackUpRequest* request,
                      v1::BackUpResponse* response) override {
    const absl::Status status =
        operator_service_.BackUp(*request, response, [context] { return context->IsCancelled(); });
    if (status.ok()) {
      observe::Log(observe::Level::kInfo, "ledger_backed_up", {{"rows", response->copy().requests()}});
    } else {
      observe::Log(observe::Level::kWarn, "ledger_not_backed_up",
                   {{"warning", observe::SafeText(std::string(status.message()))}});
    }
    return Answer(status);
  }

 private:
  static grpc::Status Answer(const absl::Status& status) {
    return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
  }
  OperatorService operator_service_;
};

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(ledger::OperatorAccess& ledger,
                                                                const intent::Fingerprinter& fingerprinter,
                                                                usecase::SettleObserver& settle_observer,
                                                                const std::string& path) {
  const std::string socket = SocketPath(path);
  if (!SocketFits(socket)) {
    return absl::InvalidArgumentError(absl::StrCat(socket, ": is too long a name for a socket (107 bytes)"));
  }
  struct stat status {};
  if (::lstat(socket.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(socket, ": is there already, and is no socket"));
  }
  OperatorService::Options options;
  options.ledger = &ledger;
  options.fingerprinter = &fingerprinter;
  options.settle_observer = &settle_observer;
  options.path = path;
  auto service = std::make_unique<Service>(std::move(options));

  grpc::ServerBuilder builder;
  rpc::ConfigureBuilder(builder, false);
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  int bound = 0;
  builder.AddListeningPort(SocketTarget(socket), grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(service.get());
  // libgrpc has one poller for all servers of the process. With a queue that somebody says to poll, the threads of this
  // one leave the polling to the shards, whose events they would take away; nobody needs to look at the queue itself.
  std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  // Of the process, so for its other threads too; none makes anything wider than this here, and no directories.
  const mode_t before = ::umask(0177);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ::umask(before);
  if (!server || bound == 0) return absl::UnavailableError(absl::StrCat(socket, ": cannot listen there"));
  auto admin = std::unique_ptr<AdminServer>(new AdminServer(std::move(service), std::move(queue), std::move(server)));
  if (::chmod(socket.c_str(), 0600) != 0) {
    return absl::UnavailableError(absl::StrCat(socket, ": cannot be made private: ", ErrnoText()));
  }
  return admin;
}

AdminServer::AdminServer(std::unique_ptr<Service> service, std::unique_ptr<grpc::ServerCompletionQueue> queue,
                         std::unique_ptr<grpc::Server> server)
    : service_(std::move(service)), queue_(std::move(queue)), server_(std::move(server)) {}

AdminServer::~AdminServer() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  server_->Wait();
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

}  // namespace userintent::admin
