#include "server/tls/client_authorities.h"

#include <openssl/err.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace userintent::tls {
namespace {

constexpr std::string_view kAuthoritiesFlag = "--tls_client_ca_file";

using Trust = ClientAuthorities::Trust;

absl::StatusOr<std::shared_ptr<const Trust>> ReadTrust(const std::string& file) {
  absl::StatusOr<Certificates> read = ReadCertificateFile(file, kAuthoritiesFlag);
  if (!read.ok()) return read.status();
  auto trust = std::make_shared<Trust>();
  trust->certificates = *std::move(read);
  trust->store.reset(X509_STORE_new());
  trust->names.reset(sk_X509_NAME_new_null());
  trust->not_after = SystemTime::max();
  // As libgrpc sets its own store: what is in the file is believed, also where it is no root.
  X509_STORE_set_flags(trust->store.get(), X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_TRUSTED_FIRST);
  for (const auto& certificate : trust->certificates.parsed) {
    X509_STORE_add_cert(trust->store.get(), certificate.get());
    sk_X509_NAME_push(trust->names.get(), X509_NAME_dup(X509_get_subject_name(certificate.get())));
    trust->not_after = std::min(trust->not_after, TimeOf(X509_get0_notAfter(certificate.get())));
  }
  ERR_clear_error();
  return trust;
}

}  // namespace

ClientAuthorities::ClientAuthorities(std::string file, std::shared_ptr<const Trust> trust)
    : file_(std::move(file)), trust_(std::move(trust)) {}

absl::StatusOr<std::unique_ptr<ClientAuthorities>> ClientAuthorities::Load(std::string file) {
  absl::StatusOr<std::shared_ptr<const Trust>> trust = ReadTrust(file);
  if (!trust.ok()) return trust.status();
  return std::unique_ptr<ClientAuthorities>(new ClientAuthorities(std::move(file), *std::move(trust)));
}

absl::StatusOr<bool> ClientAuthorities::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  const FileMark mark = MarkOf(file_);  // before the reading: rather news once too often than never
  absl::StatusOr<std::shared_ptr<const Trust>> fresh = ReadTrust(file_);
  if (!fresh.ok()) {
    refused_.Refuse(mark);
    return fresh.status();
  }
  refused_.Accept();
  if ((*fresh)->certificates.pem == Snapshot()->certificates.pem) return false;
  const MutexLock lock(mutex_);
  trust_ = *std::move(fresh);
  return true;
}

bool ClientAuthorities::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

std::shared_ptr<const Trust> ClientAuthorities::Snapshot() const {
  const MutexLock lock(mutex_);
  return trust_;
}

}  // namespace userintent::tls
