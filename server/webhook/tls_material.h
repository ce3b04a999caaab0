// TlsIdentity::Material: a certificate chain and its key, as GnuTLS wants them. For tls_identity.cc and door.cc only.
//
// Immutable after it is made; any thread may look at it.
#pragma once

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include <string>
#include <vector>

#include "server/base/certificates.h"
#include "server/webhook/tls_identity.h"

namespace userintent::webhook {

struct TlsIdentity::Material {
  Material() = default;
  ~Material() {
    for (gnutls_pcert_st& certificate : chain) gnutls_pcert_deinit(&certificate);
    if (key != nullptr) gnutls_privkey_deinit(key);
  }
  Material(const Material&) = delete;
  Material& operator=(const Material&) = delete;

  std::string pem;       // of the chain, to tell one from another
  SystemTime not_after;  // of the first certificate
  std::vector<gnutls_pcert_st> chain;
  gnutls_privkey_t key = nullptr;
};

}  // namespace userintent::webhook
