#include "server/base/uuid.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace userintent {
namespace {

int Nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool DashBefore(size_t byte) { return byte == 4 || byte == 6 || byte == 8 || byte == 10; }

}  // namespace

std::optional<Uuid> ParseUuid(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  Uuid uuid;
  size_t at = 0;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (DashBefore(i) && text[at++] != '-') return std::nullopt;
    const int high = Nibble(text[at++]);
    const int low = Nibble(text[at++]);
    if (high < 0 || low < 0) return std::nullopt;
    uuid[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return uuid;
}

std::string UuidText(const Uuid& uuid) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text(36, '-');
  size_t at = 0;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (DashBefore(i)) ++at;
    text[at++] = kHex[uuid[i] >> 4];
    text[at++] = kHex[uuid[i] & 15];
  }
  return text;
}

Uuid RandomUuid() {
  // OpenSSL asks the kernel several questions for each request of random bytes, so they are taken by the page.
  thread_local std::array<uint8_t, 4096> pool;
  thread_local size_t used = pool.size();
  Uuid uuid;
  if (used == pool.size()) {
    // A machine without randomness cannot make ids that are unique; going on would break the promise.
    if (RAND_bytes(pool.data(), static_cast<int>(pool.size())) != 1) std::abort();
    used = 0;
  }
  std::copy_n(pool.data() + used, uuid.size(), uuid.data());
  used += uuid.size();
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x40);
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

}  // namespace userintent
