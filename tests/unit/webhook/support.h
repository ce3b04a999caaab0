// What the tests of the webhook door share. All data is invented.
#pragma once

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"

namespace userintent::webhook {

inline std::string Sign(std::string_view text, std::string_view key) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()),
       text.size(), digest, &size);
  return absl::Base64Escape(std::string(reinterpret_cast<const char*>(digest), size));
}

}  // namespace userintent::webhook
