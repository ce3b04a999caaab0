// Authorities, certificates and lists of revoked ones for tests, in PEM form. Pure but for the random keys; any thread.
#pragma once

#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/config/certificates.h"

namespace userintent::test {

using CertificatePtr = std::unique_ptr<X509, decltype(&X509_free)>;

inline std::string PemOf(X509* certificate) {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  return BioText(bio);
}

inline std::string SelfSigned(EVP_PKEY* key, int from = -3600, int to = 3600) { return CertificateText(key, from, to); }

// The times are seconds from now. `extensions`: as openssl's configuration files name them.
struct CertificateOptions {
  std::string name = "leaf";
  long serial = 1;  // NOLINT: OpenSSL's type
  int from = -3600;
  int to = 3600;
  std::vector<std::pair<std::string, std::string>> extensions;
};

// One that vouches for others: a root, or one that another root signed.
class Authority {
 public:
  explicit Authority(const std::string& name = "test CA", const Authority* parent = nullptr)
      : key_(NewKey()), certificate_(nullptr, X509_free) {
    CertificateOptions options;
    options.name = name;
    options.serial = parent == nullptr ? 1000 : 2000;
    options.extensions = {{"basicConstraints", "critical,CA:TRUE"}, {"keyUsage", "critical,keyCertSign,cRLSign"}};
    certificate_ = (parent != nullptr ? *parent : *this).Sign(key_.get(), options, parent == nullptr);
  }

  CertificatePtr Issue(EVP_PKEY* key, const CertificateOptions& options) const { return Sign(key, options, false); }

  // A list of these serial numbers; the times are seconds from now.
  std::string Revoked(const std::vector<long>& serials, int from = -3600, int to = 3600) const {  // NOLINT: the same
    X509_CRL* crl = X509_CRL_new();
    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(certificate_.get()));
    ASN1_TIME* time = X509_gmtime_adj(nullptr, from);
    X509_CRL_set1_lastUpdate(crl, time);
    X509_gmtime_adj(time, to);
    X509_CRL_set1_nextUpdate(crl, time);
    for (const long serial : serials) {  // NOLINT: the same
      X509_REVOKED* revoked = X509_REVOKED_new();
      ASN1_INTEGER* number = ASN1_INTEGER_new();
      ASN1_INTEGER_set(number, serial);
      X509_REVOKED_set_serialNumber(revoked, number);
      X509_gmtime_adj(time, -1800);
      X509_REVOKED_set_revocationDate(revoked, time);
      X509_CRL_add0_revoked(crl, revoked);
      ASN1_INTEGER_free(number);
    }
    ASN1_TIME_free(time);
    X509_CRL_sort(crl);
    X509_CRL_sign(crl, key_.get(), EVP_sha256());
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509_CRL(bio, crl);
    X509_CRL_free(crl);
    return BioText(bio);
  }

  X509* certificate() const { return certificate_.get(); }
  std::string pem() const { return PemOf(certificate_.get()); }

 private:
  CertificatePtr Sign(EVP_PKEY* key, const CertificateOptions& options, bool self) const {
    CertificatePtr made(X509_new(), X509_free);
    X509_set_version(made.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), options.serial);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), options.from);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), options.to);
    X509_set_pubkey(made.get(), key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(options.name.c_str()), -1, -1, 0);
    X509_set_issuer_name(made.get(), X509_get_subject_name(self ? made.get() : certificate_.get()));
    X509V3_CTX context;
    X509V3_set_ctx(&context, self ? made.get() : certificate_.get(), made.get(), nullptr, nullptr, 0);
    for (const auto& [name, value] : options.extensions) {
      X509_EXTENSION* extension = X509V3_EXT_nconf(nullptr, &context, name.c_str(), value.c_str());
      X509_add_ext(made.get(), extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(made.get(), key_.get(), EVP_sha256());
    return made;
  }

  KeyPtr key_;
  CertificatePtr certificate_;
};

}  // namespace userintent::test
