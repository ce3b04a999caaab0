#include <dlfcn.h>
#include <netdb.h>

#include <string_view>

#include "tests/unit/http/client_harness.h"

namespace userintent::http {

std::atomic<Event*> slow_lookup{nullptr};
std::atomic<int> lookups_begun{0}, lookups_ended{0};
std::atomic<const char*> turning_address{nullptr};
std::atomic<int> turning_lookups{0};

}  // namespace userintent::http

extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** result) {
  using Real = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const Real real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "getaddrinfo"));
  if (node != nullptr && std::string_view(node) == "slow.example.test") {
    userintent::http::Event* const event = userintent::http::slow_lookup;
    ++userintent::http::lookups_begun;
    if (event != nullptr) event->Wait();
    ++userintent::http::lookups_ended;
    node = "127.0.0.1";
  }
  if (node != nullptr && std::string_view(node) == "two.example.test") {
    addrinfo* second = nullptr;
    int rc = real("127.0.0.2", service, hints, result);
    if (rc == 0) rc = real("127.0.0.1", service, hints, &second);
    if (rc == 0) (*result)->ai_next = second;
    return rc;
  }
  if (node != nullptr && std::string_view(node) == "turning.example.test") {
    node = userintent::http::turning_address;
    ++userintent::http::turning_lookups;
  }
  if (node != nullptr && std::string_view(node) == "nowhere.example.test") return EAI_NONAME;
  return real(node, service, hints, result);
}
