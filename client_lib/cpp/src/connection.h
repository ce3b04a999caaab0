// connection: the stub that a call uses; a new one, with a channel of its own, when the TLS files have changed and can
// be used. A call keeps its stub, and so the old channel, until it ends.
//
// Any thread may use a Connection. A client owns it; stubs are shared with the calls that use them.
#pragma once

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "src/tls.h"
#include "userintent/client.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent {

using Stub = v1::UserIntentService::Stub;

class Connection {
 public:
  // How often the files are looked at, at most.
  static constexpr absl::Duration kLookInterval = absl::Seconds(5);

  static absl::StatusOr<std::unique_ptr<Connection>> Open(const ClientOptions& options);

  std::shared_ptr<Stub> stub();

  // For tests: the next stub() looks at the files, whatever the time.
  void LookAtOnce();

 private:
  explicit Connection(const ClientOptions& options) : options_(options) {}
  // A channel with fresh credentials.
  absl::StatusOr<std::shared_ptr<Stub>> Connect() const;

  const ClientOptions options_;
  absl::Mutex mu_;
  std::shared_ptr<Stub> stub_ ABSL_GUARDED_BY(mu_);
  TlsStamp stamp_ ABSL_GUARDED_BY(mu_);
  absl::Duration looked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace userintent
