// ClientAuthorities: who may vouch for callers, for which names, and what was revoked, from files that may change while
// the server runs (--tls_client_ca_file, --tls_client_crl_file, the files of --trust_domain).
//
// Any thread may call anything. Refresh() blocks for as long as reading some local files takes; the rest never waits
// for it. The files count together: what does not fit together is refused as a whole, and read again at the next
// Refresh().
#pragma once

#include <openssl/x509.h>
#include <openssl/x509_vfy.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/base/file_mark.h"
#include "server/base/mutex.h"
#include "server/tls/server_certificate.h"
#include "server/tls/trust_domains.h"

namespace userintent::tls {

struct ClientFiles {
  std::string authorities;
  std::string lists;  // of revoked certificates; empty: none
  TrustDomains domains;
};

// Reasons of our own not to believe a certificate, beside OpenSSL's X509_V_ERR_...: its name is of no trust domain that
// --trust_domain lists, or its authorities may not give out names of that one.
inline constexpr int kWrongTrustDomain = 0x7501;
inline constexpr int kWrongAuthority = 0x7502;

// In words, also for OpenSSL's numbers. Lives as long as the process.
const char* VerifyErrorText(long error);  // NOLINT: OpenSSL's type

class ClientAuthorities {
 public:
  // Never changes once it is made.
  struct Trust {
    struct FreeNames {
      void operator()(STACK_OF(X509_NAME) * stack) const { sk_X509_NAME_pop_free(stack, X509_NAME_free); }
    };
    // Of revoked certificates; with the authority of `certificates` that signed it.
    struct List {
      std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)> list;
      X509* signer;
    };

    // Whether a list names the certificate. As the handshake does, but for this one certificate only: not for those
    // between it and the authority.
    bool Revoked(X509& certificate) const;

    std::string texts;  // of all files
    Certificates certificates;
    std::vector<List> lists;
    std::unique_ptr<X509_STORE, decltype(&X509_STORE_free)> store{nullptr, X509_STORE_free};  // judges callers
    std::unique_ptr<STACK_OF(X509_NAME), FreeNames> names;  // told to callers, who choose a certificate by them
    SystemTime not_after;                                   // of the authority that ends first
    std::optional<SystemTime> lists_end;                    // when the first list must have been renewed
  };

  // Refuses what ReadCertificateFile refuses; lists that are damaged, that no authority of the file signed, that are
  // not of now, or that change another list only; an authority without a list where there are lists, because nobody
  // that it vouches for would get in. Error texts begin with the flag and hold no content.
  static absl::StatusOr<std::unique_ptr<ClientAuthorities>> Load(ClientFiles files);

  ClientAuthorities(const ClientAuthorities&) = delete;
  ClientAuthorities& operator=(const ClientAuthorities&) = delete;

  // Reads the files again. Whether anything changed; on an error the last good ones stay.
  absl::StatusOr<bool> Refresh();

  // Whether the files that the last Refresh() refused were other ones than those of the refusal before it: worth a log
  // line of its own.
  bool RefusalIsNews() const;

  // What a handshake that begins now is judged by. Never null.
  std::shared_ptr<const Trust> Snapshot() const;

  // Grows with each change, before Snapshot() shows it or right after: who remembers what followed from a snapshot
  // reads this first.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  ClientAuthorities(ClientFiles files, std::shared_ptr<const Trust> trust);

  const ClientFiles files_;
  mutable Mutex refresh_mutex_;  // one Refresh at a time, so that an older reading cannot replace a newer one
  RefusedFiles<std::vector<FileMark>> refused_ ABSL_GUARDED_BY(refresh_mutex_);
  mutable Mutex mutex_;  // never held while reading the files
  std::shared_ptr<const Trust> trust_ ABSL_GUARDED_BY(mutex_);
  std::atomic<uint64_t> generation_{1};
};

}  // namespace userintent::tls
