// TlsContext: how connections to one origin speak TLS, and the sessions that later ones may resume.
//
// Belongs to one thread, like the client that owns it; the SSL objects that it makes must be freed before it.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/certificates.h"
#include "server/http/ca_file.h"

namespace userintent::http {

// When the certificate that the peer of a connection has shown ends; the epoch: it showed none.
SystemTime PeerEnd(const SSL* ssl);

class TlsContext {
 public:
  // TLS 1.2 or later, no renegotiation; the peer's chain must lead to a certificate in `ca_file` (empty: the system's
  // authorities) and its alternative names must have `host`, a DNS name or an address literal. Offers "h2" by ALPN, and
  // "http/1.1" behind it if told so. Fails when OpenSSL is out of memory. `authorities`, if there are any, count
  // instead of `ca_file`: a change of theirs is heeded by HasTrust(), and nothing from before it is resumed.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(std::string host, bool host_is_literal, std::string ca_file,
                                                            bool offer_http1, const CaFile* authorities = nullptr);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // Whether there are authorities to trust; to be asked before each new connection. Tries again to read a file that
  // could not be read.
  bool HasTrust();

  // A connection's state, with everything set but its BIO; resumes the newest session there is. Null: out of memory.
  SSL* NewConnection();

  // The next connections resume nothing.
  void ForgetSessions();

 private:
  TlsContext(std::string host, bool host_is_literal, std::string ca_file, const CaFile* authorities)
      : host_(std::move(host)),
        host_is_literal_(host_is_literal),
        ca_file_(std::move(ca_file)),
        authorities_(authorities) {}

  bool TakeAuthorities();

  static int OnNewSession(SSL* ssl, SSL_SESSION* session) noexcept;

  const std::string host_;
  const bool host_is_literal_;
  const std::string ca_file_;
  const CaFile* const authorities_;
  std::shared_ptr<const Certificates> trusted_;  // what the context holds of authorities_
  SSL_CTX* context_ = nullptr;
  bool has_trust_ = false;
  std::vector<SSL_SESSION*> sessions_;  // oldest first
};

}  // namespace userintent::http
