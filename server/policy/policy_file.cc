#include "server/policy/policy_file.h"

#include <openssl/sha.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "server/base/public_file.h"

namespace userintent::policy {
namespace {

constexpr char kFlag[] = "--policy_file";

std::string Sha256Start(std::string_view bytes) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), 6});
}

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyFile>> PolicyFile::Load(std::string path) {
  std::unique_ptr<PolicyFile> file(new PolicyFile(std::move(path)));
  if (absl::StatusOr<bool> read = file->Refresh(); !read.ok()) return read.status();
  return file;
}

absl::StatusOr<bool> PolicyFile::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  const FileMark mark = MarkOf(path_);  // before the reading: rather news once too often than never
  const SteadyTime now = SteadyClock::now();
  absl::StatusOr<std::string> text = ReadPublicFile(path_, kFlag);
  std::optional<absl::StatusOr<Policy>> policy;
  // The first reading is always news; later ones where a byte differs. Equal bytes cannot have become bad.
  const bool changed = text.ok() && (*text != text_ || text_.empty());
  if (changed) policy = Policy::Parse(*text);
  if (!text.ok() || (policy && !policy->ok())) {
    refused_.Refuse(mark);
    if (!text.ok()) return text.status();
    return absl::InvalidArgumentError(std::string(kFlag) + ": " + std::string(policy->status().message()));
  }
  refused_.Accept();
  const MutexLock lock(mutex_);
  content_.read_at = now;
  if (!policy) return false;
  content_.policy = std::make_shared<const Policy>(*std::move(*policy));
  content_.sha256 = Sha256Start(*text);
  text_ = *std::move(text);
  return true;
}

bool PolicyFile::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

PolicyFile::Content PolicyFile::Snapshot() const {
  const MutexLock lock(mutex_);
  return content_;
}

}  // namespace userintent::policy
