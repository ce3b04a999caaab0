#include "server/intent/keyed_hash.h"

#include <openssl/core_names.h>
#include <openssl/params.h>

#include <cstddef>
#include <cstdlib>

namespace userintent::intent {
namespace {

struct MacFree {
  void operator()(EVP_MAC* mac) const { EVP_MAC_free(mac); }
};

// HMAC of bytes in memory fails only when memory runs out or OpenSSL has no SHA-256. Going on without a fingerprint
// would break the promise, so neither is survivable.
void Must(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

KeyedHash::KeyedHash(const Secret& key) {
  const std::unique_ptr<EVP_MAC, MacFree> mac(EVP_MAC_fetch(nullptr, "HMAC", nullptr));
  Must(mac != nullptr);
  context_.reset(EVP_MAC_CTX_new(mac.get()));
  Must(context_ != nullptr);
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                               OSSL_PARAM_construct_end()};
  const std::string_view bytes = key.Reveal();
  Must(EVP_MAC_init(context_.get(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), params) == 1);
}

KeyedHash::KeyedHash(const KeyedHash& other) : context_(EVP_MAC_CTX_dup(other.context_.get())) {
  Must(context_ != nullptr);
}

void KeyedHash::Absorb(std::string_view bytes) {
  Must(EVP_MAC_update(context_.get(), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()) == 1);
}

ledger::Digest KeyedHash::End() {
  ledger::Digest digest;
  size_t size = 0;
  Must(EVP_MAC_final(context_.get(), digest.data(), &size, digest.size()) == 1 && size == digest.size());
  Must(EVP_MAC_init(context_.get(), nullptr, 0, nullptr) == 1);  // from the start, under the same key
  return digest;
}

}  // namespace userintent::intent
