#include "server/webhook/keys.h"

#include "absl/status/status.h"
#include "server/base/secret_file.h"

namespace userintent::webhook {
namespace {

// An empty path: no secret.
absl::StatusOr<Secret> ReadOne(const std::string& path, std::string_view flag) {
  if (path.empty()) return Secret();
  return ReadSecretFile(path, flag);
}

}  // namespace

absl::StatusOr<Keys::Read> Keys::ReadFiles(const Files& files) {
  absl::StatusOr<Secret> own = ReadOne(files.secret, "--webhook_secret_file");
  absl::StatusOr<Secret> previous = ReadOne(files.previous_secret, "--webhook_previous_secret_file");
  if (!own.ok() && !previous.ok()) {
    return absl::InvalidArgumentError(std::string(own.status().message()) + "\n" +
                                      std::string(previous.status().message()));
  }
  if (!own.ok()) return own.status();
  if (!previous.ok()) return previous.status();
  return Read{*std::move(own), *std::move(previous)};
}

absl::StatusOr<std::unique_ptr<Keys>> Keys::Load(Files files) {
  absl::StatusOr<Read> read = ReadFiles(files);
  if (!read.ok()) return read.status();
  return std::unique_ptr<Keys>(new Keys(std::move(files), *std::move(read)));
}

void Keys::SetClientSecret(const Secret& secret, SteadyTime now) {
  const MutexLock lock(mutex_);
  if (now - replaced_at_ >= kKept) replaced_ = Secret();
  if (secret == client_) return;
  if (!client_.empty()) {
    replaced_ = std::move(client_);
    replaced_at_ = now;
  }
  client_ = secret;
}

absl::StatusOr<bool> Keys::Refresh() {
  if (files_.secret.empty() && files_.previous_secret.empty()) return false;
  const MutexLock one_at_a_time(refresh_mutex_);
  // Before the reading: what changes in between is then news once too often rather than never.
  const std::pair marks(MarkOf(files_.secret), MarkOf(files_.previous_secret));
  absl::StatusOr<Read> fresh = ReadFiles(files_);
  if (!fresh.ok()) {
    refused_.Refuse(marks);
    return fresh.status();
  }
  refused_.Accept();
  const MutexLock lock(mutex_);
  if (fresh->own == read_.own && fresh->previous == read_.previous) return false;
  read_ = *std::move(fresh);
  return true;
}

bool Keys::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

Keys::Ring Keys::Now(SteadyTime now) const {
  const MutexLock lock(mutex_);
  Ring ring;
  if (!read_.own.empty()) {
    ring.secrets.push_back(read_.own);
    return ring;
  }
  if (client_.empty()) return ring;
  ring.secrets.push_back(client_);
  if (!replaced_.empty() && now - replaced_at_ < kKept) ring.secrets.push_back(replaced_);
  if (!read_.previous.empty()) ring.secrets.push_back(read_.previous);
  return ring;
}

}  // namespace userintent::webhook
