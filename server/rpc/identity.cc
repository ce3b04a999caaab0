#include "server/rpc/identity.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "server/base/text.h"

namespace userintent::rpc {
namespace {

using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;

// Null: it cannot be read.
CertificatePtr Read(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                      BIO_free);
  CertificatePtr certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), X509_free);
  ERR_clear_error();
  return certificate;
}

bool Usable(grpc::string_ref name) {
  return !name.empty() && name.size() <= 512 && AllVisible({name.data(), name.size()});
}

}  // namespace

std::optional<std::string> CallerOf(const grpc::AuthContext& context, bool require_tls) {
  if (!require_tls) return kLocalCaller;
  const auto uris = context.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
  if (uris.size() > 1) return std::nullopt;
  if (uris.size() == 1) {
    if (!Usable(uris[0])) return std::nullopt;
    return "uri:" + std::string(uris[0].begin(), uris[0].end());
  }
  const auto names = context.FindPropertyValues(GRPC_PEER_DNS_PROPERTY_NAME);
  if (names.empty() || !Usable(names[0])) return std::nullopt;
  return "dns:" + std::string(names[0].begin(), names[0].end());
}

std::optional<CertificateClock::SystemTime> CertificateClock::EndOf(const std::string& pem) {
  const CertificatePtr certificate = Read(pem);
  if (!certificate) return std::nullopt;
  return TimeOf(X509_get0_notAfter(certificate.get()));
}

bool CertificateClock::Ended(const grpc::AuthContext& context, SystemTime now) {
  constexpr size_t kKept = 1000;
  const auto pems = context.FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (pems.size() != 1) return true;
  std::string pem(pems[0].data(), pems[0].size());
  auto found = known_.find(pem);
  if (found == known_.end()) {
    if (known_.size() >= kKept) known_.clear();  // callers with short certificates leave theirs behind
    const SystemTime end = EndOf(pem).value_or(SystemTime::min());
    found = known_.emplace(std::move(pem), Known{end}).first;
  }
  Known& known = found->second;
  if (const uint64_t generation = authorities_ ? authorities_->generation() : 0; known.generation != generation) {
    const CertificatePtr certificate = Read(found->first);
    known.revoked = certificate && authorities_->Snapshot()->Revoked(*certificate);
    known.generation = generation;
  }
  // The last second still counts (RFC 5280: "inclusive").
  return known.revoked || now >= known.end + std::chrono::seconds(1);
}

}  // namespace userintent::rpc
