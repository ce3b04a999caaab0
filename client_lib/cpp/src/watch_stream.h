// watch_stream: a watch over the network: one stream after the other, each on the connection of its time.
//
// Threads: as Watch::Source. Its functions wait in the caller's thread; only the silence of a stream is noticed on one
// of gRPC's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/sync_stream.h"
#include "src/connection.h"
#include "src/watch_state.h"
#include "userintent/watch.h"

namespace userintent {

class WatchStream final : public Watch::Source {
 public:
  // The gateway is heard every 20 seconds. A stream that is silent for so long is dead, whatever its connection says.
  static constexpr absl::Duration kSilence = absl::Seconds(60);

  // connect: the stub of each new stream.
  WatchStream(const WatchOptions& options, std::function<std::shared_ptr<Stub>()> connect,
              absl::Duration silence = kSilence);
  ~WatchStream() override;

  std::optional<WatchEvent> Next() override ABSL_LOCKS_EXCLUDED(mu_);
  void Cancel() override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status status() const override ABSL_LOCKS_EXCLUDED(mu_);
  std::string resume_token() const override ABSL_LOCKS_EXCLUDED(mu_);
  int streams() const override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Begins a stream. False: the watch has ended.
  bool Open();
  // Waits for a message of the stream. False: the stream is over.
  bool Read(v1::WatchUserIntentsResponse* message);
  // How the stream ended, which leaves none.
  Error Finish();
  // Waits before the next stream. False: cancelled.
  bool Pause(absl::Duration wait);
  bool IsCancelled() const;
  // The watch has ended, as its state says.
  void End();

  const std::function<std::shared_ptr<Stub>()> connect_;
  const absl::Duration silence_;
  // Of the thread that calls Next.
  WatchState state_;
  std::shared_ptr<Stub> stub_;
  std::unique_ptr<grpc::ClientReader<v1::WatchUserIntentsResponse>> reader_;  // null: no stream

  mutable absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mu_);  // of the stream
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::string resume_token_ ABSL_GUARDED_BY(mu_);
  int streams_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace userintent
