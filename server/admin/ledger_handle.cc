#include "server/admin/ledger_handle.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/admin/socket.h"
#include "server/base/errno_text.h"
#include "server/ledger/backup.h"
#include "server/ledger/opening.h"
#include "server/ledger/sqlite_ledger.h"
#include "server/postgres/inspector.h"
#include "server/postgres/url.h"
#include "userintent/v1/errors.pb.h"

namespace userintent::admin {
namespace {

// The work runs on the thread that asks, on a store that no other thread uses.
class FileAccess final : public ledger::OperatorAccess {
 public:
  FileAccess(ledger::SqliteStore& store, bool writes) : store_(store), writes_(writes) {}

  absl::Status Transact(Work work) override {
    absl::Status s = store_.Start();
    if (s.ok()) s = work(store_, store_);
    if (s.ok() && writes_) s = store_.Touch();  // newer than a copy that was made before
    if (s.ok()) s = store_.Commit();
    if (!s.ok()) store_.Rollback();
    return s;
  }
  absl::StatusOr<ledger::BackupReport> BackUp(const ledger::BackupOptions& options) override {
    return ledger::BackUp([this](absl::FunctionRef<absl::Status(ledger::SqliteStore&)> work) { return work(store_); },
                          options);
  }

 private:
  ledger::SqliteStore& store_;
  const bool writes_;
};

absl::StatusOr<ledger::OpenedFiles> OpenHere(const std::string& path, const std::string& socket,
                                             const LedgerHandle::Access& access) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return absl::NotFoundError(
        absl::StrCat("there is no ledger at ", path, " (", ErrnoText(), "); --ledger names another one"));
  }
  ledger::OpeningOptions opening;
  opening.store.path = path;
  opening.store.for_operator = true;
  opening.store.as_it_is = access.as_it_is;
  opening.only_read = !access.writes;
  absl::StatusOr<ledger::OpenedFiles> files = ledger::OpenFiles(opening);
  if (absl::IsAborted(files.status())) {
    return absl::UnavailableError(
        absl::StrCat("ledger ", path, ": another process uses it but does not answer at ", socket,
                     SocketFits(socket) ? "; a server that starts or ends does so: try again in a moment"
                                        : ", whose name is too long for a socket; stop the server first"));
  }
  if (!files.ok()) return files.status();
  if (access.writes) {
    const auto recovered =
        ledger::RecoverAll(*files->store, opening.store, userintent::v1::ERROR_REASON_OUTCOME_UNKNOWN);
    if (!recovered.ok()) return recovered.status();
  }
  return files;
}

}  // namespace

absl::StatusOr<bool> Listens(const std::string& socket) {
  if (!SocketFits(socket)) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.data(), socket.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError("cannot make a socket");
  const int result = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(fd);
  if (result == 0) return true;
  if (error == ENOENT || error == ECONNREFUSED || error == ENOTDIR) return false;
  return absl::PermissionDeniedError(
      absl::StrCat("cannot open ", socket, ": ", ErrnoText(error), "; run this as the user of the server"));
}

bool IsDatabase(std::string_view place) {
  return place.starts_with("postgresql://") || place.starts_with("postgres://");
}

absl::StatusOr<LedgerHandle> LedgerHandle::Open(const std::string& path, Access access) {
  LedgerHandle opened;
  if (IsDatabase(path)) {
    absl::StatusOr<std::unique_ptr<postgres::OperatorsLedger>> database = postgres::OperatorsLedger::Open(path);
    if (!database.ok()) return database.status();
    opened.access_ = *std::move(database);
    opened.Serve(postgres::PlaceOf(path), std::move(access));
    return opened;
  }
  const std::string socket = SocketPath(path);
  const absl::StatusOr<bool> listens = Listens(socket);
  if (!listens.ok()) return listens.status();
  if (*listens) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    opened.stub_ = v1::LedgerAdminService::NewStub(
        grpc::CreateCustomChannel(SocketTarget(socket), grpc::InsecureChannelCredentials(), arguments));
    return opened;
  }

  absl::StatusOr<ledger::OpenedFiles> files = OpenHere(path, socket, access);
  if (!files.ok()) return files.status();
  opened.file_ = std::move(files->file);
  opened.store_ = std::move(files->store);
  opened.access_ = std::make_unique<FileAccess>(*opened.store_, access.writes);
  opened.Serve(path, std::move(access));
  return opened;
}

void LedgerHandle::Serve(const std::string& place, Access access) {
  fingerprinter_ = std::move(access.fingerprinter);
  OperatorService::Options options;
  options.ledger = access_.get();
  options.fingerprinter = fingerprinter_.get();
  options.path = place;
  options.server_runs = false;
  operator_service_ = std::make_unique<OperatorService>(std::move(options));
}

}  // namespace userintent::admin
