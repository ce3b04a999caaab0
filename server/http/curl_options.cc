// What libcurl is told: of all exchanges together, and of each. One table each, so it may be long.
#include <curl/curl.h>

#include "server/http/connection_limits.h"
#include "server/http/curl_client.h"

namespace userintent::http {
namespace {

constexpr long kUploadBufferBytes = 16 * 1024;  // libcurl's minimum; our bodies are far smaller
constexpr std::chrono::seconds kMargin{1};

}  // namespace

bool CurlClient::MakeMulti() {
  multi_ = curl_multi_init();
  share_ = curl_share_init();
  if (multi_ == nullptr || share_ == nullptr) return false;
  // The TLS session cache belongs to the easy handle in libcurl 7.88; without sharing, no connection ever resumes.
  // One thread, so no lock functions.
  if (curl_share_setopt(share_, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK) return false;
  bool ok = true;
  const auto set = [&](CURLMoption option, auto value) {
    ok = curl_multi_setopt(multi_, option, value) == CURLM_OK && ok;
  };
  set(CURLMOPT_SOCKETFUNCTION, &OnSocket);
  set(CURLMOPT_SOCKETDATA, this);
  set(CURLMOPT_TIMERFUNCTION, &OnTimer);
  set(CURLMOPT_TIMERDATA, this);
  set(CURLMOPT_PIPELINING, static_cast<long>(options_.http2 ? CURLPIPE_MULTIPLEX : CURLPIPE_NOTHING));
  // Without a cap libcurl 7.88 opens a connection for nearly every exchange of a burst.
  set(CURLMOPT_MAX_HOST_CONNECTIONS, static_cast<long>(options_.max_connections));
  set(CURLMOPT_MAXCONNECTS, static_cast<long>(options_.max_connections));
  return ok;
}

// Every option that an exchange depends on, in one place, on a handle that was reset: a recycled handle cannot differ
// from a fresh one. An option that this libcurl does not take fails the exchange rather than weaken it.
bool CurlClient::SetOptions(CurlExchange& exchange) {
  CURL* const easy = exchange.easy;
  bool ok = true;
  const auto set = [&](CURLoption option, auto value) { ok = curl_easy_setopt(easy, option, value) == CURLE_OK && ok; };

  set(CURLOPT_PRIVATE, &exchange);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_SHARE, share_);

  // Where to, and nowhere else.
  set(CURLOPT_PROTOCOLS_STR, "https");
  set(CURLOPT_URL, exchange.url.c_str());
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_PROXY, "");  // the empty string also shuts out the proxy variables of the environment
  set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  set(CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  set(CURLOPT_OPENSOCKETDATA, &exchange);
  set(CURLOPT_CLOSESOCKETFUNCTION, &OnCloseSocket);
  set(CURLOPT_CLOSESOCKETDATA, this);  // outlives the exchange, as the connection does

  // Connections.
  set(CURLOPT_HTTP_VERSION, static_cast<long>(options_.http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1));
  set(CURLOPT_PIPEWAIT, options_.http2 ? 1L : 0L);
  set(CURLOPT_MAXAGE_CONN, static_cast<long>(kIdleLimit.count()));
  set(CURLOPT_MAXLIFETIME_CONN, static_cast<long>(kAgeLimit.count()));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_TCP_KEEPIDLE, static_cast<long>(kKeepaliveIdleSeconds));
  set(CURLOPT_TCP_KEEPINTVL, static_cast<long>(kKeepaliveIntervalSeconds));
  set(CURLOPT_FRESH_CONNECT, exchange.fresh_connection ? 1L : 0L);
  // Makes libcurl share the time out among the addresses of a name; it is ApplyDeadlines() that enforces it.
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
  set(CURLOPT_RESOLVER_START_FUNCTION, &OnResolverStart);
  set(CURLOPT_RESOLVER_START_DATA, &exchange);
  // The same for the whole exchange; libcurl must not end one that is listened to.
  const auto longest =
      exchange.request.on_late ? options_.exchange_timeout + options_.late_window + kMargin : options_.exchange_timeout;
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(longest.count()));
  set(CURLOPT_QUICK_EXIT, 1L);  // else taking a handle out during a name look-up waits for the resolver's thread

  // TLS.
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  if (options_.authorities != nullptr) {
    // libcurl tells connections apart by this blob too, so none that other authorities vouched for is used again.
    exchange.authorities = options_.authorities->Snapshot();
    curl_blob blob{};
    blob.data = const_cast<char*>(exchange.authorities->pem.data());
    blob.len = exchange.authorities->pem.size();
    blob.flags = CURL_BLOB_NOCOPY;
    set(CURLOPT_CAINFO_BLOB, &blob);
    set(CURLOPT_CAINFO, static_cast<const char*>(nullptr));
    set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  } else if (!options_.ca_file.empty()) {
    set(CURLOPT_CAINFO, options_.ca_file.c_str());
    set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));  // else Debian's default adds the system's authorities
  }

  // The request. The body goes by callback: its calls are the proof of what was sent, and a seek that refuses keeps
  // libcurl from sending it again by itself. A request without a body is kept from it by the pre-request callback.
  if (exchange.request.method == Method::kPost) {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(exchange.request.body.size()));
  } else {
    set(CURLOPT_HTTPGET, 1L);
  }
  set(CURLOPT_HTTPHEADER, exchange.header_nodes.data());
  set(CURLOPT_READFUNCTION, &OnRead);
  set(CURLOPT_READDATA, &exchange);
  set(CURLOPT_SEEKFUNCTION, &OnSeek);
  set(CURLOPT_SEEKDATA, &exchange);
  set(CURLOPT_PREREQFUNCTION, &OnPrereq);
  set(CURLOPT_PREREQDATA, &exchange);
  set(CURLOPT_UPLOAD_BUFFERSIZE, kUploadBufferBytes);

  // The answer.
  set(CURLOPT_HTTP09_ALLOWED, 0L);
  set(CURLOPT_HEADERFUNCTION, &OnHeader);
  set(CURLOPT_HEADERDATA, &exchange);
  set(CURLOPT_WRITEFUNCTION, &OnBody);
  set(CURLOPT_WRITEDATA, &exchange);
  return ok;
}

}  // namespace userintent::http
