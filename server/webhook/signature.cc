#include "server/webhook/signature.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/escaping.h"

namespace userintent::webhook {
namespace {

using Digest = std::array<unsigned char, 32>;

std::optional<Digest> Decode(std::string_view header) {
  std::string bytes;
  // Base64Unescape is lenient about padding and spare bits, so the text must be the one that its bytes are written as.
  if (!absl::Base64Unescape({header.data(), header.size()}, &bytes) || bytes.size() != Digest().size())
    return std::nullopt;
  if (absl::Base64Escape(bytes) != header) return std::nullopt;
  Digest digest;
  for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<unsigned char>(bytes[i]);
  return digest;
}

// 1 where the text has this digest under the key, else 0.
size_t Equals(const Digest& digest, std::string_view text, const Secret& key) {
  Digest made{};
  unsigned int size = 0;
  const std::string_view bytes = key.Reveal();
  const auto* const result = HMAC(EVP_sha256(), bytes.data(), static_cast<int>(bytes.size()),
                                  reinterpret_cast<const unsigned char*>(text.data()), text.size(), made.data(), &size);
  const bool usable = result != nullptr && size == made.size() && !key.empty();
  return static_cast<size_t>(CRYPTO_memcmp(made.data(), digest.data(), made.size()) == 0) & static_cast<size_t>(usable);
}

}  // namespace

std::optional<Match> FindMatch(std::string_view header, std::string_view body,
                               std::optional<std::string_view> python_form, absl::Span<const Secret> keys) {
  const std::optional<Digest> digest = Decode(header);
  if (!digest) return std::nullopt;
  constexpr size_t kForms = 2;
  size_t found = 0;  // one more than the number of the first match
  size_t number = 0;
  // No branch depends on what matched.
  for (const Secret& key : keys) {
    for (const std::string_view text : {body, python_form.value_or(body)}) {
      ++number;
      found += Equals(*digest, text, key) * number * static_cast<size_t>(found == 0);
    }
  }
  if (found == 0) return std::nullopt;
  return Match{(found - 1) / kForms, static_cast<Form>((found - 1) % kForms)};
}

}  // namespace userintent::webhook
