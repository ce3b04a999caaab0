#include "server/intent/keyed_hash.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace userintent::intent {
namespace {

// RFC 2104 (https://www.rfc-editor.org/rfc/rfc2104) with SHA-256.
constexpr size_t kBlock = 64;
constexpr uint8_t kInnerPad = 0x36, kOuterPad = 0x5c;

// A hash of bytes in memory fails only when memory runs out or OpenSSL has no SHA-256. Going on without a fingerprint
// would break the promise, so neither is survivable.
void Must(bool ok) {
  if (!ok) std::abort();
}

void Absorb(EVP_MD_CTX* context, const void* bytes, size_t size) { Must(EVP_DigestUpdate(context, bytes, size) == 1); }

ledger::Digest End(EVP_MD_CTX* context) {
  ledger::Digest digest;
  unsigned size = 0;
  Must(EVP_DigestFinal_ex(context, digest.data(), &size) == 1 && size == digest.size());
  return digest;
}

}  // namespace

KeyedHash::KeyedHash(const Secret& key) : inner_(EVP_MD_CTX_new()), outer_(EVP_MD_CTX_new()) {
  Must(inner_ != nullptr && outer_ != nullptr);
  const auto begin = [](EVP_MD_CTX* context) { Must(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1); };
  std::array<uint8_t, kBlock> block{};
  const std::string_view bytes = key.Reveal();
  if (bytes.size() > kBlock) {
    begin(inner_.get());
    Absorb(inner_.get(), bytes.data(), bytes.size());
    ledger::Digest shorter = End(inner_.get());
    std::copy(shorter.begin(), shorter.end(), block.begin());
    OPENSSL_cleanse(shorter.data(), shorter.size());  // as good as the key
  } else {
    std::copy(bytes.begin(), bytes.end(), block.begin());
  }
  for (uint8_t& byte : block) byte ^= kInnerPad;
  begin(inner_.get());
  Absorb(inner_.get(), block.data(), block.size());
  for (uint8_t& byte : block) byte ^= kInnerPad ^ kOuterPad;
  begin(outer_.get());
  Absorb(outer_.get(), block.data(), block.size());
  OPENSSL_cleanse(block.data(), block.size());
}

ledger::Digest KeyedHash::OfParts(const std::string_view* parts, size_t count) const {
  thread_local const Context work(EVP_MD_CTX_new());
  Must(work != nullptr && EVP_MD_CTX_copy_ex(work.get(), inner_.get()) == 1);
  for (size_t i = 0; i < count; ++i) Absorb(work.get(), parts[i].data(), parts[i].size());
  const ledger::Digest inner = End(work.get());
  Must(EVP_MD_CTX_copy_ex(work.get(), outer_.get()) == 1);
  Absorb(work.get(), inner.data(), inner.size());
  return End(work.get());
}

}  // namespace userintent::intent
