#include "src/connection.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "src/call.h"
#include "userintent/channel.h"

namespace userintent {

namespace {

// gRPC 1.51 has threads for its callback API while some channel that was used with it exists. This gives it one for the
// rest of the process, on which one call is made that is cancelled before it begins, so nothing is ever sent:
//   Without such a channel nobody polls in a program whose blocking calls all fail at once, because the gateway cannot
//   be reached; a new connection then comes about only with a timer of 5 s. (Later versions always poll.) And the last
//   such channel must not go in a callback, where a call's context holds it: the threads would wait for themselves.
void KeepThreads() {
  static const Stub* const kept = [] {
    struct Nothing {
      grpc::ClientContext context;
      v1::GetCreationRequest request;
      v1::GetCreationResponse response;
    };
    auto* const stub = new Stub(grpc::CreateChannel("unix:never-connected", grpc::InsecureChannelCredentials()));
    auto nothing = std::make_shared<Nothing>();
    nothing->context.TryCancel();
    stub->async()->GetCreation(&nothing->context, &nothing->request, &nothing->response,
                               [nothing](const grpc::Status&) {});
    return stub;
  }();
  (void)kept;
}

// True for everything but control characters, nothing at all, and a scheme with nothing behind it. gRPC makes a channel
// of those, too, whose calls fail in ways that read like a broken connection; of a NUL, of what is before it.
bool NamesSomething(absl::string_view target) {
  for (const char c : target) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return false;
  }
  const size_t last = target.find_last_not_of('/');
  return last != absl::string_view::npos && target.find(':') != last;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ClientOptions& options) {
  const int kinds = int{options.tls.has_value()} + int{options.plaintext} + int{options.channel != nullptr};
  if (kinds != 1) return absl::InvalidArgumentError("give exactly one of tls, plaintext and channel");
  if (options.channel == nullptr && !NamesSomething(options.target)) {
    return absl::InvalidArgumentError("target is empty, or holds a control character");
  }
  if (options.timeout <= absl::ZeroDuration()) return absl::InvalidArgumentError("timeout must be above zero");
  if (options.max_tries < 1) return absl::InvalidArgumentError("max_tries must be at least 1");
  KeepThreads();
  std::unique_ptr<Connection> connection(new Connection(options));
  absl::MutexLock lock(&connection->mu_);
  // Before the files are read: a change in between is found by the next look.
  if (options.tls.has_value()) connection->stamp_ = StampOf(*options.tls);
  connection->looked_ = SteadyNow();
  absl::StatusOr<std::shared_ptr<Stub>> stub = connection->Connect();
  if (!stub.ok()) return stub.status();
  connection->stub_ = *std::move(stub);
  return connection;
}

std::shared_ptr<Stub> Connection::stub() {
  absl::MutexLock lock(&mu_);
  if (!options_.tls.has_value()) return stub_;
  const absl::Duration now = SteadyNow();
  if (now - looked_ < kLookInterval) return stub_;
  looked_ = now;
  TlsStamp stamp = StampOf(*options_.tls);
  if (stamp == stamp_) return stub_;
  // Half a change, say, cannot be used. The old files' channel goes on, and a later look may find the other half.
  if (absl::StatusOr<std::shared_ptr<Stub>> fresh = Connect(); fresh.ok()) {
    stub_ = *std::move(fresh);
    stamp_ = std::move(stamp);
  }
  return stub_;
}

void Connection::LookAtOnce() {
  absl::MutexLock lock(&mu_);
  looked_ = -absl::InfiniteDuration();
}

absl::StatusOr<std::shared_ptr<Stub>> Connection::Connect() const {
  std::shared_ptr<grpc::ChannelInterface> channel = options_.channel;
  if (channel == nullptr) {
    grpc::ChannelArguments arguments = ChannelArguments();
    std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
    if (options_.tls.has_value()) {
      if (!options_.tls->server_name.empty()) arguments.SetSslTargetNameOverride(options_.tls->server_name);
      absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> loaded = LoadCredentials(*options_.tls);
      if (!loaded.ok()) return loaded.status();
      credentials = *std::move(loaded);
    }
    channel = grpc::CreateCustomChannel(options_.target, credentials, arguments);
  }
  return std::make_shared<Stub>(channel);
}

}  // namespace userintent
