#include "server/base/wipe.h"

#include <openssl/crypto.h>

#include <cstdlib>

namespace userintent {

void WipeBytes(void* bytes, size_t size) { OPENSSL_cleanse(bytes, size); }

void Wipe(std::string& text) {
  text.resize(text.capacity());
  WipeUsed(text);
}

void WipeUsed(std::string& text) {
  WipeBytes(text.data(), text.size());
  text.clear();
}

void WipedBuffer::Overflow() { std::abort(); }

}  // namespace userintent
