// The function of OpenSSL's shared library that one of this program's own stands in front of (connection_watch.cc,
// hand_over.cc). Any thread.
#pragma once

#include <dlfcn.h>

#include <cstdlib>

namespace userintent::rpc {

template <typename Function>
Function OfOpenSsl(const char* name) {
  auto* const found = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  if (found == nullptr) std::abort();  // the library that we are linked to always has it
  return found;
}

}  // namespace userintent::rpc
