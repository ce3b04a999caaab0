#include "server/astra/credentials.h"

#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "server/base/secret_file.h"
#include "server/base/text.h"
#include "server/base/wipe.h"

namespace userintent::astra {
namespace {

constexpr std::string_view kIdFlag = "--astra_client_id_file";
constexpr std::string_view kSecretFlag = "--astra_client_secret_file";

absl::Status Refused(std::string_view flag, std::string_view reason) {
  return absl::InvalidArgumentError(std::string(flag).append(": ").append(reason));
}

absl::StatusOr<Secret> ReadOne(const std::string& path, std::string_view flag) {
  if (path.empty()) return Refused(flag, "required");
  absl::StatusOr<Secret> secret = ReadSecretFile(path, flag);
  if (!secret.ok()) return secret;
  const std::string_view text = secret->Reveal();
  if (HasControlCharacter(text)) {
    return Refused(flag, "the file contains a control character (one newline at its end is allowed)");
  }
  return secret;
}

absl::StatusOr<Secret> ReadId(const std::string& path) {
  absl::StatusOr<Secret> id = ReadOne(path, kIdFlag);
  if (id.ok() && id->Reveal().find(':') != std::string_view::npos) {
    return Refused(kIdFlag, "a client id must not contain a colon");
  }
  return id;
}

// The status has a line for each file that is wrong.
absl::StatusOr<std::shared_ptr<BasicAuth>> ReadBoth(const std::string& id_file, const std::string& secret_file) {
  const absl::StatusOr<Secret> id = ReadId(id_file);
  const absl::StatusOr<Secret> secret = ReadOne(secret_file, kSecretFlag);
  if (!id.ok() && !secret.ok()) {
    return absl::InvalidArgumentError(std::string(id.status().message()) + "\n" +
                                      std::string(secret.status().message()));
  }
  if (!id.ok()) return id.status();
  if (!secret.ok()) return secret.status();

  std::string pair, header;
  pair.reserve(id->Reveal().size() + secret->Reveal().size() + 32);  // grows in one step, and never inside the object
  pair.append(id->Reveal()).append(":").append(secret->Reveal());
  std::string encoded = absl::Base64Escape(pair);
  const absl::Cleanup wipe = [&] {
    for (std::string* text : {&pair, &encoded, &header}) WipeUsed(*text);
  };
  header.reserve(encoded.size() + 32);
  header.append("Basic ").append(encoded);

  auto auth = std::make_shared<BasicAuth>();
  auth->header_value = Secret(std::move(header));
  auth->client_id = id->Reveal();
  auth->client_secret = *secret;
  return auth;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Credentials>> Credentials::Load(std::string client_id_file,
                                                               std::string client_secret_file) {
  absl::StatusOr<std::shared_ptr<BasicAuth>> auth = ReadBoth(client_id_file, client_secret_file);
  if (!auth.ok()) return auth.status();
  return std::unique_ptr<Credentials>(
      new Credentials(std::move(client_id_file), std::move(client_secret_file), *std::move(auth)));
}

Credentials::Credentials(std::string client_id_file, std::string client_secret_file,
                         std::shared_ptr<const BasicAuth> auth)
    : client_id_file_(std::move(client_id_file)),
      client_secret_file_(std::move(client_secret_file)),
      auth_(std::move(auth)) {}

absl::StatusOr<bool> Credentials::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  // Before the reading: what changes in between is then news once too often rather than never.
  const Marks marks = read_ = MarksNow();
  absl::StatusOr<std::shared_ptr<BasicAuth>> fresh = ReadBoth(client_id_file_, client_secret_file_);
  if (!fresh.ok()) {
    refused_.Refuse(marks);
    return fresh.status();
  }
  refused_.Accept();
  const MutexLock lock(mutex_);
  if ((*fresh)->header_value == auth_->header_value) return false;
  (*fresh)->number = auth_->number + 1;
  auth_ = *std::move(fresh);
  return true;
}

bool Credentials::RefreshIfTouched() {
  {
    const MutexLock one_at_a_time(refresh_mutex_);
    if (read_ == MarksNow()) return false;
  }
  return Refresh().value_or(false);
}

bool Credentials::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

std::shared_ptr<const BasicAuth> Credentials::Snapshot() const {
  const MutexLock lock(mutex_);
  return auth_;
}

}  // namespace userintent::astra
