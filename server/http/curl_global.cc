#include "server/http/curl_global.h"

#include <curl/curl.h>
#include <signal.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string_view>

#include "server/http/wiping_memory.h"

namespace userintent::http {
namespace {

// libcurl's allocator for the whole process: what is freed is wiped first, because request heads and bodies pass
// through libcurl's own buffers.
void* CurlMalloc(size_t size) { return std::malloc(size); }
void* CurlCalloc(size_t count, size_t size) { return std::calloc(count, size); }
char* CurlStrdup(const char* text) {
  const size_t size = std::strlen(text) + 1;
  char* copy = static_cast<char*>(std::malloc(size));
  if (copy != nullptr) std::memcpy(copy, text, size);
  return copy;
}

}  // namespace

absl::Status CurlGlobalInit() {
  static std::once_flag once;
  static absl::Status result;
  std::call_once(once, [] {
    // OpenSSL writes to sockets whose peer may have gone; libcurl, told not to touch signals, does not shield us.
    signal(SIGPIPE, SIG_IGN);
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, &CurlMalloc, &WipingFree, &WipingRealloc, &CurlStrdup, &CurlCalloc) !=
        CURLE_OK) {
      result = absl::InternalError("libcurl cannot be initialised");
      return;
    }
    const curl_version_info_data* info = curl_version_info(CURLVERSION_NOW);
    const int needed = CURL_VERSION_HTTP2 | CURL_VERSION_ASYNCHDNS | CURL_VERSION_SSL;
    if ((info->features & needed) != needed || info->ssl_version == nullptr ||
        !std::string_view(info->ssl_version).starts_with("OpenSSL/") || info->version_num < 0x075801) {
      result = absl::FailedPreconditionError(
          "libcurl 7.88.1 or later with OpenSSL, HTTP/2 and a threaded resolver is needed");
    }
  });
  return result;
}

}  // namespace userintent::http
