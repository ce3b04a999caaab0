// KeyedHash: HMAC-SHA256 under one key, for one purpose at a time. The purpose is named by a domain, which keeps a hash
// that was made for one from meaning anything for another.
//
// One thread may use an object at a time; copying one costs about as much as a hash.
#pragma once

#include <openssl/evp.h>

#include <memory>
#include <string_view>

#include "server/base/secret.h"
#include "server/ledger/ledger.h"

namespace userintent::intent {

class KeyedHash {
 public:
  // The key is used in full.
  explicit KeyedHash(const Secret& key);
  KeyedHash(const KeyedHash& other);
  KeyedHash& operator=(const KeyedHash&) = delete;

  // Of domain NUL bytes... May be called again and again.
  template <typename... Bytes>
  ledger::Digest Of(std::string_view domain, Bytes... bytes) {
    Absorb(domain);
    Absorb(std::string_view("\0", 1));
    (Absorb(bytes), ...);
    return End();
  }

 private:
  struct Free {
    void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
  };

  void Absorb(std::string_view bytes);
  ledger::Digest End();

  std::unique_ptr<EVP_MAC_CTX, Free> context_;
};

}  // namespace userintent::intent
