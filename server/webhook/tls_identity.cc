#include "server/webhook/tls_identity.h"

#include <gnutls/x509.h>

#include <array>
#include <string_view>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "server/base/certificates.h"
#include "server/base/secret_file.h"
#include "server/webhook/tls_material.h"

namespace userintent::webhook {
namespace {

constexpr std::string_view kCertificateFlag = "--webhook_tls_cert_file";
constexpr std::string_view kKeyFlag = "--webhook_tls_key_file";

absl::Status Refused(std::string_view flag, std::string_view reason) {
  return absl::InvalidArgumentError(std::string(flag).append(": ").append(reason));
}

// GnuTLS only reads what a datum points at.
gnutls_datum_t Datum(std::string_view text) {
  return {reinterpret_cast<unsigned char*>(const_cast<char*>(text.data())), static_cast<unsigned int>(text.size())};
}

absl::Status ImportChain(TlsIdentity::Material& material) {
  constexpr unsigned int kMost = 16;
  const gnutls_datum_t pem = Datum(material.pem);
  unsigned int count = kMost;
  material.chain.resize(kMost);
  if (gnutls_pcert_list_import_x509_raw(material.chain.data(), &count, &pem, GNUTLS_X509_FMT_PEM, 0) < 0) {
    material.chain.clear();
    return Refused(kCertificateFlag, "holds a damaged certificate, or more than 16");
  }
  material.chain.resize(count);
  return absl::OkStatus();
}

absl::Status ImportKey(const Secret& pem, TlsIdentity::Material& material) {
  const gnutls_datum_t datum = Datum(pem.Reveal());
  if (gnutls_privkey_init(&material.key) < 0 ||
      gnutls_privkey_import_x509_raw(material.key, &datum, GNUTLS_X509_FMT_PEM, nullptr, 0) < 0) {
    return Refused(kKeyFlag, "holds no private key in PEM form without a passphrase");
  }
  return absl::OkStatus();
}

// Of a public key: what tells it from others.
std::string KeyId(gnutls_pubkey_t key) {
  std::array<unsigned char, 64> id;
  size_t size = id.size();
  if (gnutls_pubkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, id.data(), &size) < 0) return "";
  return {id.begin(), id.begin() + static_cast<std::ptrdiff_t>(size)};
}

bool Fits(const TlsIdentity::Material& material) {
  gnutls_pubkey_t own = nullptr;
  if (gnutls_pubkey_init(&own) < 0) return false;
  const absl::Cleanup free = [own] { gnutls_pubkey_deinit(own); };
  if (gnutls_pubkey_import_privkey(own, material.key, 0, 0) < 0) return false;
  const std::string id = KeyId(own);
  return !id.empty() && id == KeyId(material.chain.front().pubkey);
}

absl::StatusOr<std::unique_ptr<TlsIdentity::Material>> ReadPair(const std::string& certificate_file,
                                                                const std::string& key_file) {
  absl::StatusOr<Certificates> chain = ReadCertificateFile(certificate_file, kCertificateFlag);
  if (!chain.ok()) return chain.status();
  const absl::StatusOr<Secret> key = ReadSecretFile(key_file, kKeyFlag);
  if (!key.ok()) return key.status();
  auto material = std::make_unique<TlsIdentity::Material>();
  material->pem = std::move(chain->pem);
  material->not_after = TimeOf(X509_get0_notAfter(chain->parsed.front().get()));
  if (absl::Status status = ImportChain(*material); !status.ok()) return status;
  if (absl::Status status = ImportKey(*key, *material); !status.ok()) return status;
  if (!Fits(*material)) {
    return Refused(kKeyFlag, "is not the key of the first certificate in --webhook_tls_cert_file");
  }
  return material;
}

}  // namespace

TlsIdentity::TlsIdentity(std::string certificate_file, std::string key_file, std::unique_ptr<Material> material)
    : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)) {
  materials_.push_back(std::move(material));
}

TlsIdentity::~TlsIdentity() = default;

absl::StatusOr<std::unique_ptr<TlsIdentity>> TlsIdentity::Load(std::string certificate_file, std::string key_file) {
  absl::StatusOr<std::unique_ptr<Material>> material = ReadPair(certificate_file, key_file);
  if (!material.ok()) return material.status();
  return std::unique_ptr<TlsIdentity>(
      new TlsIdentity(std::move(certificate_file), std::move(key_file), *std::move(material)));
}

absl::StatusOr<bool> TlsIdentity::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  // Before the reading: what changes in between is then news once too often rather than never.
  const std::pair marks(MarkOf(certificate_file_), MarkOf(key_file_));
  absl::StatusOr<std::unique_ptr<Material>> fresh = ReadPair(certificate_file_, key_file_);
  if (!fresh.ok()) {
    refused_.Refuse(marks);
    return fresh.status();
  }
  refused_.Accept();
  const MutexLock lock(mutex_);
  if ((*fresh)->pem == materials_.back()->pem) return false;
  materials_.push_back(*std::move(fresh));
  return true;
}

bool TlsIdentity::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

SystemTime TlsIdentity::not_after() const { return Current().not_after; }

const TlsIdentity::Material& TlsIdentity::Current() const {
  const MutexLock lock(mutex_);
  return *materials_.back();
}

}  // namespace userintent::webhook
