#include "src/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace userintent {
namespace {

struct Free {
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

// An encrypted key fails instead of asking at the terminal.
int NoPassword(char*, int, int, void*) { return -1; }

Owned<BIO> Bio(const std::string& pem) { return Owned<BIO>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()))); }

Owned<X509> FirstCertificate(const std::string& pem) {
  return Owned<X509>(PEM_read_bio_X509(Bio(pem).get(), nullptr, &NoPassword, nullptr));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string data{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  return data;
}

absl::Status CheckPair(const TlsFiles& files, const std::string& certificate, const std::string& key) {
  const Owned<X509> leaf = FirstCertificate(certificate);
  if (leaf == nullptr) return absl::InvalidArgumentError(absl::StrCat(files.cert_file, " holds no certificate"));
  const Owned<EVP_PKEY> parsed(PEM_read_bio_PrivateKey(Bio(key).get(), nullptr, &NoPassword, nullptr));
  if (parsed == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(files.key_file, " holds no private key that is not encrypted"));
  }
  if (X509_check_private_key(leaf.get(), parsed.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(files.key_file, " is not the key of ", files.cert_file));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Load(const TlsFiles& files) {
  grpc::SslCredentialsOptions options;
  if (!files.ca_file.empty()) {
    absl::StatusOr<std::string> roots = ReadFile(files.ca_file);
    if (!roots.ok()) return roots.status();
    if (FirstCertificate(*roots) == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(files.ca_file, " holds no certificate"));
    }
    options.pem_root_certs = *std::move(roots);
  }
  if (files.cert_file.empty() != files.key_file.empty()) {
    return absl::InvalidArgumentError("cert_file and key_file go together");
  }
  if (!files.cert_file.empty()) {
    absl::StatusOr<std::string> certificate = ReadFile(files.cert_file);
    if (!certificate.ok()) return certificate.status();
    absl::StatusOr<std::string> key = ReadFile(files.key_file);
    if (!key.ok()) return key.status();
    if (absl::Status good = CheckPair(files, *certificate, *key); !good.ok()) return good;
    options.pem_cert_chain = *std::move(certificate);
    options.pem_private_key = *std::move(key);
  }
  return grpc::SslCredentials(options);
}

}  // namespace

TlsStamp StampOf(const TlsFiles& files) {
  TlsStamp stamp;
  for (const std::string* path : {&files.ca_file, &files.cert_file, &files.key_file}) {
    struct stat now = {};
    if (!path->empty()) (void)stat(path->c_str(), &now);
    stamp.emplace_back(now.st_ino, now.st_size, int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec);
  }
  return stamp;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> LoadCredentials(const TlsFiles& files) {
  auto credentials = Load(files);
  ERR_clear_error();  // what OpenSSL left for this thread is nobody's business
  return credentials;
}

}  // namespace userintent
