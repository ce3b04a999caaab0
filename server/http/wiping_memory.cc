#include "server/http/wiping_memory.h"

#include <malloc.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace userintent::http {

void WipingFree(void* p) {
  if (p == nullptr) return;
  OPENSSL_cleanse(p, malloc_usable_size(p));
  std::free(p);
}

void* WipingRealloc(void* p, size_t size) {
  if (p == nullptr) return std::malloc(size);
  const size_t old = malloc_usable_size(p);
  if (size <= old && size >= old / 2) return p;
  void* fresh = std::malloc(size);
  if (fresh == nullptr) return nullptr;
  std::memcpy(fresh, p, std::min(old, size));
  WipingFree(p);
  return fresh;
}

}  // namespace userintent::http
