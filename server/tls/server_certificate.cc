#include "server/tls/server_certificate.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <time.h>

#include <algorithm>
#include <string_view>

#include "absl/status/status.h"
#include "server/base/secret_file.h"
#include "server/tls/pem.h"

namespace userintent::tls {
namespace {

constexpr std::string_view kCertificateFlag = "--tls_cert_file";
constexpr std::string_view kKeyFlag = "--tls_key_file";

using Pair = ServerCertificate::Pair;

absl::Status ReadKey(Pair& pair) {
  const std::string_view bytes = pair.key_pem.Reveal();
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())),
                                                      BIO_free);
  pair.key.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  if (!pair.key) return Refused(kKeyFlag, "holds no private key in PEM form without a passphrase");
  if (X509_check_private_key(pair.own(), pair.key.get()) != 1) {
    return Refused(kKeyFlag, "is not the key of the first certificate in --tls_cert_file");
  }
  ERR_clear_error();
  return absl::OkStatus();
}

// What a handshake will do with the pair is tried out, so that it cannot fail there.
absl::Status TryOut(const Pair& pair) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context && SSL_CTX_use_cert_and_key(context.get(), pair.own(), pair.key.get(), pair.chain.get(), 1) == 1) {
    return absl::OkStatus();
  }
  const char* const why = ERR_reason_error_string(ERR_peek_last_error());
  return Refused(kCertificateFlag,
                 std::string("OpenSSL does not use it: ").append(why != nullptr ? why : "out of memory"));
}

absl::StatusOr<std::shared_ptr<const Pair>> ReadPair(const std::string& certificate_file, const std::string& key_file) {
  absl::StatusOr<Certificates> chain = ReadCertificateFile(certificate_file, kCertificateFlag);
  absl::StatusOr<Secret> key = ReadSecretFile(key_file, kKeyFlag);
  if (!chain.ok()) return chain.status();
  if (!key.ok()) return key.status();
  auto pair = std::make_shared<Pair>();
  pair->certificates = *std::move(chain);
  pair->key_pem = *std::move(key);
  pair->chain.reset(sk_X509_new_null());
  for (size_t i = 1; i < pair->certificates.parsed.size(); ++i) {
    sk_X509_push(pair->chain.get(), pair->certificates.parsed[i].get());
  }
  pair->not_after = TimeOf(X509_get0_notAfter(pair->own()));
  if (absl::Status status = ReadKey(*pair); !status.ok()) return status;
  if (absl::Status status = TryOut(*pair); !status.ok()) return status;
  return pair;
}

}  // namespace

ServerCertificate::ServerCertificate(std::string certificate_file, std::string key_file,
                                     std::shared_ptr<const Pair> pair)
    : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)), pair_(std::move(pair)) {}

absl::StatusOr<std::unique_ptr<ServerCertificate>> ServerCertificate::Load(std::string certificate_file,
                                                                           std::string key_file) {
  absl::StatusOr<std::shared_ptr<const Pair>> pair = ReadPair(certificate_file, key_file);
  if (!pair.ok()) return pair.status();
  return std::unique_ptr<ServerCertificate>(
      new ServerCertificate(std::move(certificate_file), std::move(key_file), *std::move(pair)));
}

absl::StatusOr<bool> ServerCertificate::Refresh() {
  const MutexLock one_at_a_time(refresh_mutex_);
  // Before the reading: what changes in between is then news once too often rather than never.
  const std::pair marks(MarkOf(certificate_file_), MarkOf(key_file_));
  absl::StatusOr<std::shared_ptr<const Pair>> fresh = ReadPair(certificate_file_, key_file_);
  const std::shared_ptr<const Pair> current = Snapshot();
  const SystemTime now = std::chrono::system_clock::now();
  if (fresh.ok() && (*fresh)->not_after < now && current->not_after >= now) {
    fresh = Refused(kCertificateFlag, "the certificate has expired");
  }
  if (!fresh.ok()) {
    refused_.Refuse(marks);
    return fresh.status();
  }
  refused_.Accept();
  if ((*fresh)->certificates.pem == current->certificates.pem) return false;  // then the key is the same one, too
  const MutexLock lock(mutex_);
  pair_ = *std::move(fresh);
  return true;
}

bool ServerCertificate::RefusalIsNews() const {
  const MutexLock lock(refresh_mutex_);
  return refused_.IsNews();
}

std::shared_ptr<const Pair> ServerCertificate::Snapshot() const {
  const MutexLock lock(mutex_);
  return pair_;
}

}  // namespace userintent::tls
