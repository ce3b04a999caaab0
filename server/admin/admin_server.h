// admin::AdminServer: answers userintent-ledger beside a running gateway, on the Unix domain socket of the ledger.
//
// A gRPC server of its own with one thread, so that nothing of it can be reached from the network, and no call of the
// gateway meets it but in the ledger's queue. Who may open the socket may do everything: its mode is 0600. Made and
// destroyed by server.cc; borrows what it is given, which outlives it. A shard must run from before
// Start() until after the destructor: its thread reads this server's sockets too (see Start).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/operator_access.h"
#include "server/usecase/settle_observer.h"

namespace grpc {
class Server;
class ServerCompletionQueue;
}  // namespace grpc

namespace userintent::admin {

class AdminServer {
 public:
  // Replaces the socket of a dead process: whoever holds the ledger's lock owns the name. The status says in one line
  // why there is none; the gateway can do without.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(ledger::OperatorAccess& ledger,
                                                            const intent::Fingerprinter& fingerprinter,
                                                            usecase::SettleObserver& settle_observer,
                                                            const std::string& path);
  ~AdminServer();
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

 private:
  class Service;
  AdminServer(std::unique_ptr<Service> service, std::unique_ptr<grpc::ServerCompletionQueue> queue,
              std::unique_ptr<grpc::Server> server);

  const std::unique_ptr<Service> service_;
  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace userintent::admin
