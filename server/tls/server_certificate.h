// ServerCertificate: the certificate and key that the callers' port shows, from two files that may change while it
// runs (--tls_cert_file, --tls_key_file).
//
// Any thread may call anything. Refresh() blocks for as long as reading two small local files takes; Snapshot() never
// waits for it. The files may be swapped one after the other, or both at once by a symbolic link, as Kubernetes does:
// what does not fit together is refused, and read again at the next Refresh().
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"
#include "server/base/secret.h"

namespace userintent::tls {

class ServerCertificate {
 public:
  // Never changes once it is made.
  struct Pair {
    struct FreeStack {  // of the stack alone; what is in it belongs to `certificates`
      void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
    };
    X509* own() const { return certificates.parsed.front().get(); }

    Certificates certificates;  // the server's own, then those that lead to its authority
    Secret key_pem;
    std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{nullptr, EVP_PKEY_free};
    std::unique_ptr<STACK_OF(X509), FreeStack> chain;  // without the server's own
    SystemTime not_after;
  };

  // Refuses what ReadCertificateFile and ReadSecretFile refuse, a key with a passphrase, a key that is not the first
  // certificate's, and what OpenSSL would not use at its level of security. A certificate that has ended is taken at a
  // start: nothing better is there, and callers refuse it. Error texts begin with the flag and hold no content.
  static absl::StatusOr<std::unique_ptr<ServerCertificate>> Load(std::string certificate_file, std::string key_file);

  ServerCertificate(const ServerCertificate&) = delete;
  ServerCertificate& operator=(const ServerCertificate&) = delete;

  // Reads the files again. Whether the certificate changed; on an error the last good pair stays. One that has ended
  // never replaces one that holds.
  absl::StatusOr<bool> Refresh();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // What a handshake that begins now shows. Never null.
  std::shared_ptr<const Pair> Snapshot() const;

 private:
  ServerCertificate(std::string certificate_file, std::string key_file, std::shared_ptr<const Pair> pair);

  const std::string certificate_file_;
  const std::string key_file_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<std::pair<FileMark, FileMark>> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the files
  std::shared_ptr<const Pair> pair_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::tls
