// Files: what a listener with mutual TLS needs. Copies share what they point at; any thread.
#pragma once

#include <memory>

#include "server/tls/client_authorities.h"
#include "server/tls/server_certificate.h"

namespace userintent::tls {

// Both or neither is there. Shared, because libgrpc lets go of its connections in its own time.
struct Files {
  std::shared_ptr<ServerCertificate> certificate;
  std::shared_ptr<ClientAuthorities> authorities;

  explicit operator bool() const { return certificate != nullptr; }  // false: in plaintext
};

}  // namespace userintent::tls
