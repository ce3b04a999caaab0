// ClientAuthorities: who may vouch for callers, from files that may change while the server runs.
//
// Any thread may call anything. Refresh() blocks for as long as reading some small local files takes; Snapshot() never
// waits for it.
#pragma once

#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"
#include "server/tls/server_certificate.h"

namespace userintent::tls {

class ClientAuthorities {
 public:
  // Never changes once it is made.
  struct Trust {
    struct FreeNames {
      void operator()(STACK_OF(X509_NAME) * names) const { sk_X509_NAME_pop_free(names, X509_NAME_free); }
    };

    Certificates certificates;
    std::unique_ptr<X509_STORE, decltype(&X509_STORE_free)> store{nullptr, X509_STORE_free};
    std::unique_ptr<STACK_OF(X509_NAME), FreeNames> names;  // told to callers, who choose a certificate by them
    SystemTime not_after;                                   // of the authority that ends first
  };

  // Refuses what ReadCertificateFile refuses. Error texts begin with the flag and hold no content.
  static absl::StatusOr<std::unique_ptr<ClientAuthorities>> Load(std::string file);

  ClientAuthorities(const ClientAuthorities&) = delete;
  ClientAuthorities& operator=(const ClientAuthorities&) = delete;

  // Reads the files again. Whether anything changed; on an error the last good ones stay.
  absl::StatusOr<bool> Refresh();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // What a handshake that begins now is judged by. Never null.
  std::shared_ptr<const Trust> Snapshot() const;

 private:
  ClientAuthorities(std::string file, std::shared_ptr<const Trust> trust);

  const std::string file_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<FileMark> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the files
  std::shared_ptr<const Trust> trust_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace userintent::tls
