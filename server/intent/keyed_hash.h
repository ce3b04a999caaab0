// KeyedHash: HMAC-SHA256 under one key, for one purpose at a time. The purpose is named by a domain, which keeps a hash
// that was made for one from meaning anything for another.
//
// The two states that depend on the key alone are made once; a hash begins from copies of them, where OpenSSL's own
// HMAC needs a context of its own for each. Any number of threads may use an object at once.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <string_view>

#include "server/base/secret.h"
#include "server/ledger/ledger.h"

namespace userintent::intent {

class KeyedHash {
 public:
  // The key is used in full.
  explicit KeyedHash(const Secret& key);

  // Of domain NUL bytes...
  template <typename... Bytes>
  ledger::Digest Of(std::string_view domain, Bytes... bytes) const {
    const std::array<std::string_view, sizeof...(Bytes) + 2> parts = {domain, std::string_view("\0", 1), bytes...};
    return OfParts(parts.data(), parts.size());
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  using Context = std::unique_ptr<EVP_MD_CTX, Free>;

  ledger::Digest OfParts(const std::string_view* parts, size_t count) const;

  Context inner_, outer_;  // after the key's pad
};

}  // namespace userintent::intent
