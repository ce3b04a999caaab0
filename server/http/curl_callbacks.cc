// What libcurl says, in the order of an exchange: sockets and time, the connection, the request, the answer.
#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "server/base/crash_point.h"
#include "server/base/text.h"
#include "server/http/connection_limits.h"
#include "server/http/curl_client.h"
#include "server/http/exchange_text.h"
#include "server/http/tls_context.h"
#include "server/net/address.h"

// In this file: libcurl's callbacks, in the order in which it calls them: sockets and time, the connection, the
// request, the answer.

namespace userintent::http {

struct CurlClient::Connection {
  int fd = -1;        // its socket; -1 when it could not be found, then the connection is never used twice
  bool used = false;  // a request has been sent on it

  static void Free(void*, void* p, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Connection*>(p); }
  static int Index() {
    static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, &Free);
    return index;
  }
};

namespace {

// True if an idle connection holds nothing: no decrypted and no raw byte, no end of stream. Only such a connection
// may carry another HTTP/1.1 request, because whatever is there would be taken for the answer to it.
bool Quiet(SSL* ssl, int fd) {
  if (ssl == nullptr || fd < 0) return false;
  if (SSL_pending(ssl) > 0 || SSL_has_pending(ssl) == 1) return false;
  if ((SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN) != 0) return false;
  char byte;
  const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

// Whether a socket name is the address and port that libcurl gave as text.
bool NameMatches(const sockaddr_storage& name, const char* ip, int port) {
  char text[INET6_ADDRSTRLEN] = {};
  int actual = 0;
  if (name.ss_family == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&name);
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    actual = ntohs(in->sin_port);
  } else if (name.ss_family == AF_INET6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&name);
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    actual = ntohs(in6->sin6_port);
  }
  return actual == port && ip != nullptr && std::strcmp(text, ip) == 0;
}

// libcurl's TLS state of the connection that a handle is on; null: it is not OpenSSL's.
SSL* TlsOf(CURL* easy) {
  curl_tlssessioninfo* tls = nullptr;
  if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &tls) != CURLE_OK || tls == nullptr ||
      tls->backend != CURLSSLBACKEND_OPENSSL) {
    return nullptr;
  }
  return static_cast<SSL*>(tls->internals);
}

std::string_view Alpn(const SSL* ssl) {
  const unsigned char* protocol = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &size);
  return {reinterpret_cast<const char*>(protocol), size};
}

// The status of a status line; 0: it has none.
int StatusOf(std::string_view line) {
  const size_t space = line.find(' ');
  int status = 0;
  if (space == line.npos) return 0;
  for (const char c : line.substr(space + 1, 3)) {
    if (!IsDigit(c)) break;
    status = status * 10 + (c - '0');
  }
  return status;
}

}  // namespace

// ---- sockets and time

int CurlClient::OnSocket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept {
  auto& client = *static_cast<CurlClient*>(self);
  const auto found = client.watched_.find(fd);
  if (what == CURL_POLL_REMOVE) {
    if (found != client.watched_.end()) {
      epoll_ctl(client.epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // may be closed already, then it has left by itself
      client.watched_.erase(found);
    }
    return 0;
  }
  epoll_event event{};
  event.data.fd = fd;
  if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) event.events |= EPOLLIN;
  if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) event.events |= EPOLLOUT;
  if (found != client.watched_.end() && found->second == event.events) return 0;
  // The number may have been closed and given out again behind our back, so what we remember is a hint only.
  int rc = epoll_ctl(client.epoll_.get(), found == client.watched_.end() ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
  if (rc != 0 && errno == EEXIST) rc = epoll_ctl(client.epoll_.get(), EPOLL_CTL_MOD, fd, &event);
  if (rc != 0 && errno == ENOENT) rc = epoll_ctl(client.epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  if (rc != 0) return -1;  // makes the multi handle fail: better than an exchange that nothing wakes
  client.watched_[fd] = event.events;
  return 0;
}

int CurlClient::OnTimer(CURLM*, long timeout_ms, void* self) noexcept {
  auto& client = *static_cast<CurlClient*>(self);
  client.timer_told_ = true;
  if (timeout_ms < 0) {
    client.timer_.reset();
  } else {
    client.timer_ = SteadyClock::now() + std::chrono::milliseconds(timeout_ms);
  }
  return 0;
}

int CurlClient::OnResolverStart(void*, void*, void* data) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(data);
  exchange.client->BeginConnecting(exchange);
  return 0;
}

curl_socket_t CurlClient::OnOpenSocket(void* data, curlsocktype purpose, curl_sockaddr* address) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(data);
  CurlClient& client = *exchange.client;
  const net::AddressKind kind = net::ClassifyAddress(&address->addr, address->addrlen);
  if (purpose != CURLSOCKTYPE_IPCXN ||
      !net::AddressAllowed(kind, client.options_.allow_private_address, client.options_.loopback_ok)) {
    ++exchange.forbidden_addresses;
    return CURL_SOCKET_BAD;
  }
  ++exchange.allowed_addresses;
  const int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  if (fd < 0) return CURL_SOCKET_BAD;
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMs, sizeof(kUnacknowledgedMs));  // best effort
  client.sockets_.push_back(fd);
  client.BeginConnecting(exchange);
  return fd;
}

int CurlClient::OnCloseSocket(void* self, curl_socket_t fd) noexcept {
  auto& client = *static_cast<CurlClient*>(self);
  std::erase(client.sockets_, fd);
  if (client.watched_.erase(fd) > 0) epoll_ctl(client.epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  return close(fd);
}

// ---- the connection

int CurlClient::FindSocket(const char* ip, int port, const char* local_ip, int local_port) const {
  for (const int fd : sockets_) {
    sockaddr_storage local{};
    sockaddr_storage peer{};
    socklen_t local_size = sizeof(local);
    socklen_t peer_size = sizeof(peer);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&local), &local_size) == 0 &&
        getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0 &&
        NameMatches(local, local_ip, local_port) && NameMatches(peer, ip, port)) {
      return fd;
    }
  }
  return -1;
}

// The record of a connection, made when the connection is first seen; null: out of memory.
CurlClient::Connection* CurlClient::ConnectionOf(SSL* ssl, const char* ip, int port, const char* local_ip,
                                                 int local_port) {
  if (auto* known = static_cast<Connection*>(SSL_get_ex_data(ssl, Connection::Index()))) return known;
  auto made = std::make_unique<Connection>();
  made->fd = FindSocket(ip, port, local_ip, local_port);
  if (SSL_set_ex_data(ssl, Connection::Index(), made.get()) != 1) return nullptr;
  ++stats_.connections_opened;
  stats_.peer_end = PeerEnd(ssl);
  return made.release();
}

// libcurl has a connection and is about to send. The last point at which nothing has left.
int CurlClient::OnPrereq(void* data, char* ip, char* local_ip, int port, int local_port) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(data);
  CurlClient& client = *exchange.client;
  if (exchange.sending != Exchange::Sending::kUnsent || exchange.outcome.status != 0) {
    // libcurl means to send it again: a lost connection, REFUSED_STREAM, HTTP_1_1_REQUIRED. Never, not even when only
    // the head had left: the caller decides on tries.
    exchange.stop = CurlExchange::Stop::kSecondSending;
    ++client.stats_.resend_refused;
    return CURL_PREREQFUNC_ABORT;
  }
  client.connecting_.Leave(exchange);
  client.pending_.Leave(exchange);
  exchange.head_bytes = 0;
  SSL* const ssl = TlsOf(exchange.easy);
  if (ssl != nullptr && exchange.request.needs_http1_alpn && Alpn(ssl) != "http/1.1") {
    exchange.stop = CurlExchange::Stop::kNoHttp1Alpn;
    return CURL_PREREQFUNC_ABORT;
  }
  Connection* const connection = ssl == nullptr ? nullptr : client.ConnectionOf(ssl, ip, port, local_ip, local_port);
  if (connection == nullptr) {
    exchange.stop = CurlExchange::Stop::kInternal;
    return CURL_PREREQFUNC_ABORT;
  }
  return client.Release(exchange, ssl, *connection) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

// Lets libcurl send the request on this connection, unless that could bring it another one's answer.
bool CurlClient::Release(CurlExchange& exchange, SSL* ssl, Connection& connection) {
  const bool http2 = Alpn(ssl) == "h2";
  exchange.on = {ssl, connection.fd, !http2 && connection.used};
  connection.used = true;
  if (exchange.on.reused_http1 && !Quiet(ssl, connection.fd)) {
    exchange.stop = CurlExchange::Stop::kNotQuiet;
    ++stats_.reuse_refused;
    return false;
  }
  // An HTTP/1.1 connection goes back to the pool only if the answer turns out to have an unmistakable end.
  if (curl_easy_setopt(exchange.easy, CURLOPT_FORBID_REUSE, http2 ? 0L : 1L) != CURLE_OK) {
    exchange.stop = CurlExchange::Stop::kInternal;
    return false;
  }
  if (exchange.LeaseOver()) {
    exchange.stop = CurlExchange::Stop::kLeaseOver;
    return false;
  }
  if (exchange.request.method == Method::kPost) {
    exchange.sending = Exchange::Sending::kReleased;  // OnRead() has the body
  } else {
    MaybeSent(exchange);  // its head is all there is of it
  }
  CrashPoint("after-connect");
  return true;
}

// ---- the request

size_t CurlClient::OnRead(char* buffer, size_t size, size_t count, void* data) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(data);
  const std::string& body = exchange.request.body;
  const size_t n = std::min(size * count, body.size() - exchange.body_offset);
  if (n == 0) return 0;
  if (exchange.sending != Exchange::Sending::kMaybeSent) {
    if (exchange.on.reused_http1 && !Quiet(exchange.on.ssl, exchange.on.fd)) {
      // Something arrived between the look at the connection and now. The head may have left, the body has not.
      exchange.stop = CurlExchange::Stop::kSpokeEarly;
      ++exchange.client->stats_.reuse_refused;
      return CURL_READFUNC_ABORT;
    }
    if (exchange.LeaseOver()) {  // it ended since the head left
      exchange.stop = CurlExchange::Stop::kLeaseOver;
      return CURL_READFUNC_ABORT;
    }
    exchange.client->MaybeSent(exchange);
  }
  std::copy_n(body.data() + exchange.body_offset, n, buffer);
  exchange.body_offset += n;
  CrashPoint(exchange.body_offset < body.size() ? "after-first-body-byte" : "after-body");
  return n;
}

int CurlClient::OnSeek(void* data, curl_off_t, int) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(data);
  exchange.stop = CurlExchange::Stop::kSecondSending;
  ++exchange.client->stats_.resend_refused;
  return CURL_SEEKFUNC_FAIL;
}

// ---- the answer

// A line before the final status is known: a status line, or a field of an interim answer. False: it is not for this
// exchange.
bool CurlClient::TakeStatusLine(CurlExchange& exchange, std::string_view line) {
  if (!line.starts_with("HTTP/")) return true;
  const int status = StatusOf(line);
  if (status < 200) return true;
  if (exchange.SpeaksEarly()) {
    exchange.stop = CurlExchange::Stop::kSpokeEarly;
    ++stats_.reuse_refused;
    return false;
  }
  exchange.TakeStatus(status);
  CrashPoint("after-status");
  exchanges_.LeaveWaiting(exchange);
  return true;
}

void CurlClient::TakeHeadEnd(CurlExchange& exchange) {
  exchange.answer = Exchange::Answer::kHead;
  if (options_.reuse_http1 && exchange.body_length.ClearEnd() && !exchange.NoBodyAllowed()) {
    curl_easy_setopt(exchange.easy, CURLOPT_FORBID_REUSE, 0L);
  }
}

size_t CurlClient::OnHeader(char* data, size_t size, size_t count, void* user) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(user);
  CurlClient& client = *exchange.client;
  const std::string_view line(data, size * count);
  switch (exchange.answer) {
    case Exchange::Answer::kNone:
    case Exchange::Answer::kBegun:
      if (!client.TakeStatusLine(exchange, line)) return 0;
      break;
    case Exchange::Answer::kStatus:
      if (TrimBlanks(line).empty()) {
        client.TakeHeadEnd(exchange);
      } else if (const size_t colon = line.find(':'); colon != line.npos && line[0] != ' ' && line[0] != '\t') {
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = TrimBlanks(line.substr(colon + 1));
        exchange.TakeField(exchange.outcome.status, name, value);
        exchange.body_length.TakeField(name, value);
      }
      break;
    case Exchange::Answer::kHead:
      break;  // trailers say nothing that we want
  }
  return exchange.TakeHeadBytes(line.size(), client.options_.max_header_bytes) ? line.size() : 0;
}

size_t CurlClient::OnBody(char* data, size_t size, size_t count, void* user) noexcept {
  auto& exchange = *static_cast<CurlExchange*>(user);
  const size_t n = size * count;
  return exchange.TakeBody({data, n}, exchange.client->options_.max_answer_bytes) ? n : 0;
}

}  // namespace userintent::http
