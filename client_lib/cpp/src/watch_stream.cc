#include "src/watch_stream.h"

#include <utility>

#include "grpcpp/alarm.h"
#include "src/call.h"
#include "src/decode.h"

namespace userintent {

WatchStream::WatchStream(const WatchOptions& options, std::function<std::shared_ptr<Stub>()> connect,
                         absl::Duration silence)
    : connect_(std::move(connect)), silence_(silence), state_(options), resume_token_(options.resume_token) {}

WatchStream::~WatchStream() {
  Cancel();
  if (reader_ != nullptr) Finish();
}

std::optional<WatchEvent> WatchStream::Next() {
  if (!status().ok()) return std::nullopt;
  for (;;) {
    if (reader_ == nullptr && !Open()) break;
    v1::WatchUserIntentsResponse message;
    const bool heard = Read(&message);
    if (IsCancelled()) break;
    if (!heard) {
      const std::optional<absl::Duration> wait = state_.Lost(Finish());
      if (!wait.has_value() || !Pause(*wait)) break;
      continue;
    }
    std::optional<WatchEvent> event = state_.Heard(std::move(message));
    {
      absl::MutexLock lock(&mu_);
      resume_token_ = state_.resume_token();
    }
    if (event.has_value()) return event;
  }
  End();
  return std::nullopt;
}

void WatchStream::Cancel() {
  std::shared_ptr<grpc::ClientContext> context;
  {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    context = context_;
  }
  if (context != nullptr) context->TryCancel();
}

absl::Status WatchStream::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

std::string WatchStream::resume_token() const {
  absl::MutexLock lock(&mu_);
  return resume_token_;
}

int WatchStream::streams() const {
  absl::MutexLock lock(&mu_);
  return streams_;
}

bool WatchStream::Open() {
  const std::optional<absl::Duration> left = state_.BeginStream();
  if (!left.has_value()) return false;
  stub_ = connect_();
  auto context = std::make_shared<grpc::ClientContext>();
  if (*left != absl::InfiniteDuration()) context->set_deadline(In(*left));
  {
    absl::MutexLock lock(&mu_);
    if (cancelled_) return false;
    ++streams_;
    context_ = context;  // a Cancel from here on reaches the stream even before it begins
  }
  reader_ = stub_->WatchUserIntents(context.get(), state_.request());
  return true;
}

bool WatchStream::Read(v1::WatchUserIntentsResponse* message) {
  std::weak_ptr<grpc::ClientContext> context;
  {
    absl::MutexLock lock(&mu_);
    context = context_;
  }
  grpc::Alarm silent;
  silent.Set(In(silence_), [context](bool rang) {
    const std::shared_ptr<grpc::ClientContext> still = rang ? context.lock() : nullptr;
    if (still != nullptr) still->TryCancel();
  });
  return reader_->Read(message);
}

Error WatchStream::Finish() {
  std::shared_ptr<grpc::ClientContext> context;
  {
    absl::MutexLock lock(&mu_);
    context = std::move(context_);
    context_ = nullptr;
  }
  // Nothing, unless it was cancelled.
  for (v1::WatchUserIntentsResponse unread; reader_->Read(&unread);) {
  }
  const grpc::Status status = reader_->Finish();
  reader_ = nullptr;
  return Decode(status, context->GetServerTrailingMetadata());
}

bool WatchStream::Pause(absl::Duration wait) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&cancelled_), wait);
}

bool WatchStream::IsCancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

void WatchStream::End() {
  if (reader_ != nullptr) Finish();
  absl::MutexLock lock(&mu_);
  if (cancelled_) state_.Cancelled();
  status_ = StatusOf(state_.error());
}

}  // namespace userintent
