// admin::LedgerHandle: the ledger that userintent-ledger works on. Where a server runs on a file, it answers through
// its socket; otherwise this process opens the file. A ledger in PostgreSQL is opened with the database's credentials,
// whoever else uses it. Single-threaded; blocks.
#pragma once

#include <grpcpp/client_context.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/admin/operator_service.h"
#include "server/intent/fingerprint.h"
#include "server/ledger/ledger_file.h"
#include "server/ledger/operator_access.h"
#include "server/ledger/sqlite_store.h"
#include "userintent/admin/v1/ledger_admin_service.grpc.pb.h"

namespace userintent::admin {

// The server through its socket, or this process on the file.
class LedgerHandle {
 public:
  // How the file is opened where no server runs.
  struct Access {
    bool writes = false;    // what a dead process left SENDING is made UNKNOWN first, as a server's start would
    bool as_it_is = false;  // an older schema is not brought up to date
    std::unique_ptr<const intent::Fingerprinter> fingerprinter = nullptr;
  };
  // `place`: a path, or the URL of a database, which any process may work on beside others.
  static absl::StatusOr<LedgerHandle> Open(const std::string& place, Access access);

  std::chrono::system_clock::duration timeout = std::chrono::seconds(60);

  bool is_server() const { return operator_service_ == nullptr; }

  template <typename Request, typename Response, typename Local>
  absl::Status Call(grpc::Status (v1::LedgerAdminService::Stub::*remote)(grpc::ClientContext*, const Request&,
                                                                         Response*),
                    Local local, const Request& request, Response* response) {
    if (operator_service_) return std::invoke(local, *operator_service_, request, response);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + timeout);
    const grpc::Status status = (stub_.get()->*remote)(&context, request, response);
    if (status.ok()) return absl::OkStatus();
    std::string text = status.error_message();
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      text = "the server did not answer in time; the same command may be repeated without harm";
    }
    return {static_cast<absl::StatusCode>(status.error_code()), text};
  }

 private:
  std::unique_ptr<v1::LedgerAdminService::Stub> stub_;
  // Without a server. In this order: the service asks the access, which uses the store, which the lock protects.
  std::unique_ptr<ledger::LedgerFile> file_;
  std::unique_ptr<ledger::SqliteStore> store_;
  std::unique_ptr<ledger::OperatorAccess> access_;
  std::unique_ptr<const intent::Fingerprinter> fingerprinter_;
  std::unique_ptr<OperatorService> operator_service_;

  void Serve(const std::string& place, Access access);
};

// Whether --ledger names a database.
bool IsDatabase(std::string_view place);

// True: a server listens on this socket. False: none does.
absl::StatusOr<bool> Listens(const std::string& socket);

}  // namespace userintent::admin
