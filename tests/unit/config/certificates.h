// Keys and self-signed certificates for tests, in PEM form. Pure but for the random keys; any thread.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace userintent::test {

using KeyPtr = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

inline KeyPtr NewKey() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

inline std::string BioText(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);  // NOLINT: OpenSSL's type
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

inline std::string KeyText(EVP_PKEY* key, bool with_passphrase = false) {
  BIO* bio = BIO_new(BIO_s_mem());
  char passphrase[] = "passphrase";
  PEM_write_bio_PrivateKey(bio, key, with_passphrase ? EVP_aes_128_cbc() : nullptr, nullptr, 0, nullptr,
                           with_passphrase ? passphrase : nullptr);
  return BioText(bio);
}

// Self-signed; the times are seconds from now.
inline std::string CertificateText(EVP_PKEY* key, int from = -3600, int to = 3600) {
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), from);
  X509_gmtime_adj(X509_getm_notAfter(certificate), to);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("gateway.example.test"), -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509_sign(certificate, key, EVP_sha256());
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  X509_free(certificate);
  return BioText(bio);
}

}  // namespace userintent::test
