#include "server/http/curl_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/base/crash_point.h"
#include "server/base/text.h"
#include "server/http/ca_file.h"
#include "server/http/connection_limits.h"
#include "server/http/exchange_text.h"
#include "server/http/wiping_memory.h"
#include "server/net/address.h"

namespace userintent::http {
namespace {

constexpr long kUploadBufferBytes = 16 * 1024;  // libcurl's minimum; our bodies are far smaller
constexpr size_t kPooledHandles = 256;
constexpr int kEventsPerTurn = 256;
constexpr std::chrono::milliseconds kNudgeInterval{100};  // see CurlClient::Nudge

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

// What is remembered with a TLS connection for as long as it lives.
struct Connection {
  int fd = -1;        // its socket; -1 when it could not be found, then the connection is never used twice
  bool used = false;  // a request has been sent on it
};

void FreeConnection(void*, void* p, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<Connection*>(p); }

int ConnectionIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, &FreeConnection);
  return index;
}

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

class CurlClient;

// One exchange, from Start() until its outcome is ready.
struct Exchange {
  CurlClient* client = nullptr;
  Client::ExchangeId id = 0;
  Client::Done done;
  CURL* easy = nullptr;

  // The request. libcurl points into these, so they stay put until the handle has left the multi.
  std::string url;
  std::shared_ptr<const Certificates> authorities;
  std::vector<std::string> header_lines;
  std::vector<curl_slist> header_nodes;
  std::string body;
  Method method = Method::kPost;
  size_t offset = 0;   // how much of the body libcurl has taken
  uint64_t reads = 0;  // how often it took some: see MayHaveLeft()

  // What happened.
  Outcome outcome;
  size_t header_bytes = 0;
  bool headers_done = false;  // of the final answer; what follows are trailers
  bool headers_cut = false;   // over the limit
  bool body_cut = false;      // over the limit
  int content_length_count = 0;
  uint64_t content_length = 0;
  bool content_length_ok = false;
  bool transfer_encoding = false;
  bool offered = false;         // libcurl had a connection and was told to go ahead
  bool resend_refused = false;  // libcurl wanted to send it again
  bool stale = false;           // the pooled connection was not quiet when it was to be used
  bool spoke_early = false;     // it was, but then spoke before the body was sent
  bool restarted = false;       // on a connection of its own, after `stale`
  int forbidden_addresses = 0;
  int allowed_addresses = 0;
  bool internal = false;
  bool needs_http1_alpn = false;
  bool no_http1_alpn = false;  // and it was not there

  // The connection that it is on; valid from the pre-request callback until the handle is removed.
  SSL* ssl = nullptr;
  int fd = -1;
  bool reused_http1 = false;

  SteadyTime start;
  SteadyTime waiting_since;
  SteadyTime connecting_since;
  bool waiting = false;     // in CurlClient::waiting_
  bool connecting = false;  // in CurlClient::connecting_
  std::list<Exchange*>::iterator in_all;
  std::list<Exchange*>::iterator in_waiting;
  std::list<Exchange*>::iterator in_connecting;

  // False is the proof that the request was not sent. A POST cannot be carried out without its body, which libcurl has
  // by the read callback only. A GET is whole with its head, which libcurl writes once the pre-request callback allows.
  bool MayHaveLeft() const { return method == Method::kPost ? reads > 0 : offered; }

  void WipeRequest() {
    for (std::string& line : header_lines) Wipe(line);
    header_lines.clear();
    header_nodes.clear();
    Wipe(body);
  }
};

class CurlClient final : public Client {
 public:
  explicit CurlClient(Options options) : options_(std::move(options)) {}
  ~CurlClient() override;
  CurlClient(const CurlClient&) = delete;
  CurlClient& operator=(const CurlClient&) = delete;

  bool Init();

  ExchangeId Start(Request request, Done done) override;
  bool CancelUnsent(ExchangeId id) override;
  int PollFd() const override { return epoll_; }
  std::optional<SteadyTime> NextTimer() const override;
  void Turn() noexcept override;
  size_t InFlight() const override { return exchanges_.size() + finished_.size(); }
  const Stats& stats() const override { return stats_; }

 private:
  // libcurl's callbacks. It is C and knows no exceptions: what throws in here ends the process.
  static int OnSocket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept;
  static int OnTimer(CURLM*, long timeout_ms, void* self) noexcept;
  static int OnResolverStart(void*, void*, void* exchange) noexcept;
  static curl_socket_t OnOpenSocket(void* exchange, curlsocktype purpose, curl_sockaddr* address) noexcept;
  static int OnCloseSocket(void* self, curl_socket_t fd) noexcept;
  static int OnPrereq(void* exchange, char* ip, char* local_ip, int port, int local_port) noexcept;
  static size_t OnRead(char* buffer, size_t size, size_t count, void* exchange) noexcept;
  static int OnSeek(void* exchange, curl_off_t offset, int origin) noexcept;
  static size_t OnHeader(char* data, size_t size, size_t count, void* exchange) noexcept;
  static size_t OnBody(char* data, size_t size, size_t count, void* exchange) noexcept;

  bool MakeMulti();
  void DropMulti();
  bool SetOptions(Exchange& exchange);
  bool Submit(Exchange& exchange);
  void BeginConnecting(Exchange& exchange);
  void StopConnecting(Exchange& exchange);
  bool Nudge(SteadyTime now);
  void RelaxPending();
  int FindSocket(const char* ip, int port, const char* local_ip, int local_port) const;
  void StopWaiting(Exchange& exchange);
  void Wait(Exchange& exchange, SteadyTime since);
  std::optional<SteadyTime> WaitDeadline() const;
  void CollectEnded();
  void ApplyDeadlines(SteadyTime now);
  void End(Exchange& exchange, CURLcode code, bool cancelled);
  void FailAll();

  const Options options_;
  int epoll_ = -1;
  CURLM* multi_ = nullptr;
  CURLSH* share_ = nullptr;
  std::vector<CURL*> pool_;                    // handles without an exchange, already reset
  std::unordered_map<int, uint32_t> watched_;  // sockets in the epoll set and their events
  std::vector<int> sockets_;                   // open sockets of connections, watched or idle
  std::optional<SteadyTime> timer_;            // libcurl's
  bool timer_told_ = false;                    // it spoke since the flag was cleared

  ExchangeId last_id_ = 0;
  std::unordered_map<ExchangeId, std::unique_ptr<Exchange>> exchanges_;
  std::list<Exchange*> all_;         // in order of `start`
  std::list<Exchange*> waiting_;     // nothing sent yet, in order of `waiting_since`
  std::list<Exchange*> connecting_;  // looking up, connecting or shaking hands, in order of `connecting_since`
  SteadyTime next_nudge_{};
  std::vector<ExchangeId> submitted_;  // given to libcurl since the last turn
  SteadyTime idle_since_{};            // when the last exchange that had been sent ended
  std::vector<std::pair<Done, Outcome>> finished_;
  Stats stats_;
};

CurlClient::~CurlClient() {
  for (auto& [id, exchange] : exchanges_) {
    if (exchange->easy != nullptr) {
      curl_multi_remove_handle(multi_, exchange->easy);
      curl_easy_cleanup(exchange->easy);
    }
    exchange->WipeRequest();
  }
  for (CURL* easy : pool_) curl_easy_cleanup(easy);
  DropMulti();
  if (epoll_ >= 0) close(epoll_);
}

bool CurlClient::Init() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  return epoll_ >= 0 && MakeMulti();
}

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

void CurlClient::DropMulti() {
  if (multi_ != nullptr) curl_multi_cleanup(multi_);
  multi_ = nullptr;
  if (share_ != nullptr) curl_share_cleanup(share_);
  share_ = nullptr;
  timer_.reset();
}

// Every option that an exchange depends on, in one place, on a handle that was reset: a recycled handle cannot differ
// from a fresh one. An option that this libcurl does not take fails the exchange rather than weaken it.
bool CurlClient::SetOptions(Exchange& exchange) {
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
  set(CURLOPT_FRESH_CONNECT, exchange.restarted ? 1L : 0L);
  // Makes libcurl share the time out among the addresses of a name; it is ApplyDeadlines() that enforces it.
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
  set(CURLOPT_RESOLVER_START_FUNCTION, &OnResolverStart);
  set(CURLOPT_RESOLVER_START_DATA, &exchange);
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(options_.exchange_timeout.count()));
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
  if (exchange.method == Method::kPost) {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(exchange.body.size()));
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

bool CurlClient::Submit(Exchange& exchange) {
  if (!SetOptions(exchange) || curl_multi_add_handle(multi_, exchange.easy) != CURLM_OK) return false;
  submitted_.push_back(exchange.id);
  return true;
}

Client::ExchangeId CurlClient::Start(Request request, Done done) {
  const ExchangeId id = ++last_id_;
  ++stats_.exchanges;
  auto owned = std::make_unique<Exchange>();
  Exchange& exchange = *owned;
  exchange.client = this;
  exchange.id = id;
  exchange.done = std::move(done);
  exchange.start = SteadyClock::now();
  exchange.url = options_.origin + request.path;
  exchange.method = request.method;
  exchange.needs_http1_alpn = request.needs_http1_alpn;
  bool valid = BodyFits(request) && !HasControl(exchange.url);
  exchange.body = std::move(request.body);
  Wipe(request.body);  // a short body was copied rather than moved
  exchange.header_lines.reserve(request.headers.size() + 1);
  for (auto& [name, value] : request.headers) {
    valid = valid && !name.empty() && !HasControl(name) && !HasControl(value);
    std::string& line = exchange.header_lines.emplace_back();
    line.reserve(name.size() + 2 + value.size());  // one allocation, so that no copy of a secret is left behind
    line.append(name).append(": ").append(value);
    Wipe(value);
  }
  exchange.header_lines.emplace_back("Expect:");  // never wait for 100-continue
  exchange.header_nodes.resize(exchange.header_lines.size());
  for (size_t i = 0; i < exchange.header_lines.size(); ++i) {
    exchange.header_nodes[i].data = exchange.header_lines[i].data();
    exchange.header_nodes[i].next = i + 1 < exchange.header_nodes.size() ? &exchange.header_nodes[i + 1] : nullptr;
  }

  exchanges_.emplace(id, std::move(owned));
  exchange.in_all = all_.insert(all_.end(), &exchange);
  Wait(exchange, exchange.start);
  if (valid && multi_ != nullptr) {
    if (pool_.empty()) {
      exchange.easy = curl_easy_init();
    } else {
      exchange.easy = pool_.back();
      pool_.pop_back();
    }
  }
  if (exchange.easy == nullptr || !Submit(exchange)) {
    exchange.internal = true;
    End(exchange, CURLE_FAILED_INIT, false);
  }
  CrashPoint("before-connect");
  return id;
}

bool CurlClient::CancelUnsent(ExchangeId id) {
  const auto found = exchanges_.find(id);
  if (found == exchanges_.end()) return false;
  Exchange& exchange = *found->second;
  if (exchange.MayHaveLeft() || exchange.outcome.status != 0) return false;
  End(exchange, CURLE_ABORTED_BY_CALLBACK, true);
  return true;
}

void CurlClient::Wait(Exchange& exchange, SteadyTime since) {
  exchange.waiting_since = since;
  exchange.in_waiting = waiting_.insert(waiting_.end(), &exchange);
  exchange.waiting = true;
}

void CurlClient::StopWaiting(Exchange& exchange) {
  if (!exchange.waiting) return;
  waiting_.erase(exchange.in_waiting);
  exchange.waiting = false;
}

// libcurl has begun to make a connection for this exchange.
void CurlClient::BeginConnecting(Exchange& exchange) {
  if (exchange.connecting) return;
  exchange.connecting_since = SteadyClock::now();
  exchange.in_connecting = connecting_.insert(connecting_.end(), &exchange);
  exchange.connecting = true;
  if (connecting_.size() == 1) next_nudge_ = exchange.connecting_since + kNudgeInterval;
  // libcurl 8 counts from when it got the exchange, 7.88 from now.
  const auto waited = std::chrono::ceil<std::chrono::milliseconds>(exchange.connecting_since - exchange.waiting_since);
  curl_easy_setopt(exchange.easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>((options_.connect_timeout + waited).count()));
}

// libcurl 7.88 gives an address up when its share of the time is over and closes the socket, but opens the next one
// only when something else wakes the transfer, and nothing does before the whole time is over. Fixed in libcurl 8.
bool CurlClient::Nudge(SteadyTime now) {
  if (connecting_.empty() || now < next_nudge_) return true;
  next_nudge_ = now + kNudgeInterval;
  static const bool needed = curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
  if (!needed) return true;
  int running = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // deprecated for its cost; nothing else reaches them
  return curl_multi_socket_all(multi_, &running) == CURLM_OK;
#pragma GCC diagnostic pop
}

void CurlClient::StopConnecting(Exchange& exchange) {
  if (!exchange.connecting) return;
  connecting_.erase(exchange.in_connecting);
  exchange.connecting = false;
}

// libcurl has seen every exchange that was submitted. One that neither got a connection nor began to make one is in
// its pending list, where libcurl 8 would end it with the connect timeout, however busy and healthy the connections.
void CurlClient::RelaxPending() {
  for (const ExchangeId id : submitted_) {
    const auto found = exchanges_.find(id);
    if (found == exchanges_.end() || found->second->connecting || found->second->offered) continue;
    curl_easy_setopt(found->second->easy, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(options_.exchange_timeout.count()));
  }
  submitted_.clear();
}

// When the first of those who wait to be sent has waited too long. While other exchanges are under way the connections
// are healthy and merely busy, so it may wait until its exchange timeout; with none under way, what it waits for is
// somebody's handshake or look-up that gets nowhere.
std::optional<SteadyTime> CurlClient::WaitDeadline() const {
  if (waiting_.empty() || waiting_.size() < exchanges_.size()) return std::nullopt;
  return std::max(waiting_.front()->waiting_since, idle_since_) + options_.connect_timeout;
}

std::optional<SteadyTime> CurlClient::NextTimer() const {
  if (!finished_.empty()) return SteadyClock::now();
  std::optional<SteadyTime> next = timer_;
  const auto consider = [&next](SteadyTime when) {
    if (!next || when < *next) next = when;
  };
  if (!all_.empty()) consider(all_.front()->start + options_.exchange_timeout);
  if (const auto wait = WaitDeadline()) consider(*wait);
  if (!connecting_.empty()) {
    consider(connecting_.front()->connecting_since + options_.connect_timeout);
    consider(next_nudge_);
  }
  return next;
}

void CurlClient::Turn() noexcept {
  bool broken = multi_ == nullptr;
  int running = 0;
  epoll_event events[kEventsPerTurn];
  const int n = broken ? 0 : epoll_wait(epoll_, events, kEventsPerTurn, 0);
  for (int i = 0; i < n && !broken; ++i) {
    int mask = 0;
    if ((events[i].events & EPOLLIN) != 0) mask |= CURL_CSELECT_IN;
    if ((events[i].events & EPOLLOUT) != 0) mask |= CURL_CSELECT_OUT;
    if ((events[i].events & (EPOLLERR | EPOLLHUP)) != 0) mask |= CURL_CSELECT_ERR;
    broken = curl_multi_socket_action(multi_, events[i].data.fd, mask, &running) != CURLM_OK;
  }
  if (!broken && timer_ && *timer_ <= SteadyClock::now()) {
    timer_told_ = false;
    broken = curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running) != CURLM_OK;
    // libcurl speaks only when its earliest timeout has changed. Silence means that it found us early: its clock is
    // not quite ours.
    if (!timer_told_ && timer_) timer_ = SteadyClock::now() + std::chrono::milliseconds(1);
  }
  if (!broken) broken = !Nudge(SteadyClock::now());
  if (!broken) CollectEnded();
  if (broken) FailAll();
  RelaxPending();
  ApplyDeadlines(SteadyClock::now());

  // What these start or cancel ends in a later turn.
  std::vector<std::pair<Done, Outcome>> finished;
  finished.swap(finished_);
  for (auto& [done, outcome] : finished) done(std::move(outcome));
}

void CurlClient::CollectEnded() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    char* pointer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
    Exchange& exchange = *reinterpret_cast<Exchange*>(pointer);
    if (exchange.stale && !exchange.restarted && !exchange.MayHaveLeft()) {
      // Nothing was sent: once more, on a connection of its own. Such a one cannot be stale, so this ends.
      curl_multi_remove_handle(multi_, exchange.easy);
      StopConnecting(exchange);
      StopWaiting(exchange);
      Wait(exchange, SteadyClock::now());
      exchange.restarted = true;
      exchange.stale = false;
      exchange.outcome = Outcome{};
      exchange.header_bytes = 0;
      exchange.ssl = nullptr;
      if (Submit(exchange)) continue;
      exchange.internal = true;
    }
    End(exchange, code, false);
  }
}

void CurlClient::ApplyDeadlines(SteadyTime now) {
  while (!all_.empty() && all_.front()->start + options_.exchange_timeout <= now) {
    End(*all_.front(), CURLE_OPERATION_TIMEDOUT, false);
  }
  while (!connecting_.empty() && connecting_.front()->connecting_since + options_.connect_timeout <= now) {
    End(*connecting_.front(), CURLE_OPERATION_TIMEDOUT, false);
  }
  for (auto deadline = WaitDeadline(); deadline && *deadline <= now; deadline = WaitDeadline()) {
    End(*waiting_.front(), CURLE_OPERATION_TIMEDOUT, false);
  }
}

// The multi handle is of no further use (out of memory or descriptors, or a bug): what was not sent is known not to
// have been, the rest is unknown, and the next exchange gets a new one.
void CurlClient::FailAll() {
  while (!all_.empty()) {
    all_.front()->internal = true;
    End(*all_.front(), CURLE_FAILED_INIT, false);
  }
  for (CURL* easy : pool_) curl_easy_cleanup(easy);  // they refer to the share
  pool_.clear();
  DropMulti();
  for (const auto& [fd, events] : watched_) epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  watched_.clear();
  if (!MakeMulti()) DropMulti();
}

NotSentCause CauseOf(const Exchange& exchange, CURLcode code) {
  if (exchange.internal) return NotSentCause::kInternal;
  if (exchange.no_http1_alpn) return NotSentCause::kTls;
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return NotSentCause::kResolve;
    case CURLE_OPERATION_TIMEDOUT:
      return NotSentCause::kTimeout;
    case CURLE_COULDNT_CONNECT:
      return exchange.forbidden_addresses > 0 && exchange.allowed_addresses == 0 ? NotSentCause::kForbiddenAddress
                                                                                 : NotSentCause::kConnect;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CACERT_BADFILE:
      return NotSentCause::kUntrusted;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_SHUTDOWN_FAILED:
      return NotSentCause::kTls;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:  // bytes that are not HTTP, before the body was sent
      return NotSentCause::kConnect;
    default:
      return exchange.stale || exchange.spoke_early || exchange.resend_refused ? NotSentCause::kConnect
                                                                               : NotSentCause::kInternal;
  }
}

std::string_view UnansweredDetail(const Exchange& exchange, CURLcode code) {
  if (exchange.internal) return "HTTP client failed after the request was sent";
  if (exchange.resend_refused) return "connection lost after the request; a second sending was refused";
  if (exchange.headers_cut) return "answer head over the limit";
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return "no answer in time";
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
      return "HTTP/2 stream or connection ended without an answer";
    case CURLE_OK:
      return "no final answer";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
      return "answer is not HTTP";
    default:
      return "connection lost after the request";
  }
}

// Takes the exchange out of everything and puts its outcome where the end of the turn finds it.
void CurlClient::End(Exchange& exchange, CURLcode code, bool cancelled) {
  if (exchange.easy != nullptr) {
    curl_multi_remove_handle(multi_, exchange.easy);
    // After a failure the handle goes: in libcurl 8 a rewind that was refused outlives curl_easy_reset().
    if (code == CURLE_OK && pool_.size() < kPooledHandles) {
      curl_easy_reset(exchange.easy);  // keeps nothing that points into the exchange, and frees what it heard
      pool_.push_back(exchange.easy);
    } else {
      curl_easy_cleanup(exchange.easy);
    }
    exchange.easy = nullptr;
  }
  exchange.WipeRequest();
  StopConnecting(exchange);
  StopWaiting(exchange);
  all_.erase(exchange.in_all);

  Outcome& outcome = exchange.outcome;
  if (outcome.status != 0) {
    outcome.fate = Fate::kAnswered;
    const bool no_body = outcome.status == 204 || outcome.status == 304;
    outcome.body_complete = code == CURLE_OK && exchange.headers_done && !exchange.headers_cut && !exchange.body_cut &&
                            (exchange.content_length_count == 0 || no_body ||
                             (exchange.content_length_ok && exchange.content_length == outcome.body.size()));
    outcome.detail = outcome.body_complete ? "answered"
                     : exchange.body_cut   ? "answer body over the limit"
                                           : "answer cut short";
  } else if (!exchange.MayHaveLeft()) {
    outcome.fate = Fate::kNotSent;
    outcome.cause = cancelled ? NotSentCause::kCancelled : CauseOf(exchange, code);
    outcome.detail = exchange.no_http1_alpn ? "peer does not offer HTTP/1.1" : DetailOf(outcome.cause);
  } else {
    outcome.fate = Fate::kMaybeSent;
    outcome.detail = UnansweredDetail(exchange, code);
  }
  const bool was_sent = exchange.MayHaveLeft();
  finished_.emplace_back(std::move(exchange.done), std::move(outcome));
  exchanges_.erase(exchange.id);
  if (was_sent && waiting_.size() == exchanges_.size()) idle_since_ = SteadyClock::now();
}

int CurlClient::OnSocket(CURL*, curl_socket_t fd, int what, void* self, void*) noexcept {
  auto& client = *static_cast<CurlClient*>(self);
  const auto found = client.watched_.find(fd);
  if (what == CURL_POLL_REMOVE) {
    if (found != client.watched_.end()) {
      epoll_ctl(client.epoll_, EPOLL_CTL_DEL, fd, nullptr);  // may be closed already, then it has left by itself
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
  int rc = epoll_ctl(client.epoll_, found == client.watched_.end() ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
  if (rc != 0 && errno == EEXIST) rc = epoll_ctl(client.epoll_, EPOLL_CTL_MOD, fd, &event);
  if (rc != 0 && errno == ENOENT) rc = epoll_ctl(client.epoll_, EPOLL_CTL_ADD, fd, &event);
  if (rc != 0) return -1;  // makes the multi handle fail: better than an exchange that nobody wakes
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
  auto& exchange = *static_cast<Exchange*>(data);
  exchange.client->BeginConnecting(exchange);
  return 0;
}

curl_socket_t CurlClient::OnOpenSocket(void* data, curlsocktype purpose, curl_sockaddr* address) noexcept {
  auto& exchange = *static_cast<Exchange*>(data);
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
  if (client.watched_.erase(fd) > 0) epoll_ctl(client.epoll_, EPOLL_CTL_DEL, fd, nullptr);
  return close(fd);
}

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

// libcurl has a connection and is about to send. The last point at which nothing has left.
int CurlClient::OnPrereq(void* data, char* ip, char* local_ip, int port, int local_port) noexcept {
  auto& exchange = *static_cast<Exchange*>(data);
  CurlClient& client = *exchange.client;
  if (exchange.offered || exchange.reads > 0 || exchange.outcome.status != 0) {
    // libcurl means to send it again: a lost connection, REFUSED_STREAM, HTTP_1_1_REQUIRED. Never, not even when only
    // the head had left: whoever is above decides on tries.
    exchange.resend_refused = true;
    ++client.stats_.resend_refused;
    return CURL_PREREQFUNC_ABORT;
  }
  client.StopConnecting(exchange);
  exchange.header_bytes = 0;
  curl_tlssessioninfo* tls = nullptr;
  if (curl_easy_getinfo(exchange.easy, CURLINFO_TLS_SSL_PTR, &tls) != CURLE_OK || tls == nullptr ||
      tls->backend != CURLSSLBACKEND_OPENSSL || tls->internals == nullptr) {
    exchange.internal = true;
    return CURL_PREREQFUNC_ABORT;
  }
  auto* ssl = static_cast<SSL*>(tls->internals);
  const unsigned char* protocol = nullptr;
  unsigned int protocol_size = 0;
  SSL_get0_alpn_selected(ssl, &protocol, &protocol_size);
  const std::string_view picked(reinterpret_cast<const char*>(protocol), protocol_size);
  const bool http2 = picked == "h2";
  if (exchange.needs_http1_alpn && picked != "http/1.1") {
    exchange.no_http1_alpn = true;
    return CURL_PREREQFUNC_ABORT;
  }

  auto* connection = static_cast<Connection*>(SSL_get_ex_data(ssl, ConnectionIndex()));
  if (connection == nullptr) {
    connection = new Connection;
    connection->fd = client.FindSocket(ip, port, local_ip, local_port);
    if (SSL_set_ex_data(ssl, ConnectionIndex(), connection) != 1) {
      delete connection;
      exchange.internal = true;
      return CURL_PREREQFUNC_ABORT;
    }
    ++client.stats_.connections_opened;
  }
  exchange.ssl = ssl;
  exchange.fd = connection->fd;
  exchange.reused_http1 = !http2 && connection->used;
  connection->used = true;
  if (exchange.reused_http1 && !Quiet(ssl, connection->fd)) {
    exchange.stale = true;
    ++client.stats_.reuse_refused;
    return CURL_PREREQFUNC_ABORT;
  }
  // An HTTP/1.1 connection goes back to the pool only if the answer turns out to have an unmistakable end.
  if (curl_easy_setopt(exchange.easy, CURLOPT_FORBID_REUSE, http2 ? 0L : 1L) != CURLE_OK) {
    exchange.internal = true;
    return CURL_PREREQFUNC_ABORT;
  }
  exchange.offered = true;
  if (exchange.MayHaveLeft()) client.StopWaiting(exchange);
  CrashPoint("after-connect");
  return CURL_PREREQFUNC_OK;
}

size_t CurlClient::OnRead(char* buffer, size_t size, size_t count, void* data) noexcept {
  auto& exchange = *static_cast<Exchange*>(data);
  const size_t left = exchange.body.size() - exchange.offset;
  const size_t n = std::min(size * count, left);
  if (n == 0) return 0;
  if (exchange.reads == 0) {
    if (exchange.reused_http1 && !Quiet(exchange.ssl, exchange.fd)) {
      // Something arrived between the look at the connection and now. The head may have left, the body has not.
      exchange.spoke_early = true;
      ++exchange.client->stats_.reuse_refused;
      return CURL_READFUNC_ABORT;
    }
    exchange.client->StopWaiting(exchange);
  }
  ++exchange.reads;
  std::memcpy(buffer, exchange.body.data() + exchange.offset, n);
  exchange.offset += n;
  CrashPoint(exchange.offset < exchange.body.size() ? "after-first-body-byte" : "after-body");
  return n;
}

int CurlClient::OnSeek(void* data, curl_off_t, int) noexcept {
  auto& exchange = *static_cast<Exchange*>(data);
  exchange.resend_refused = true;
  ++exchange.client->stats_.resend_refused;
  return CURL_SEEKFUNC_FAIL;
}

size_t CurlClient::OnHeader(char* data, size_t size, size_t count, void* user) noexcept {
  auto& exchange = *static_cast<Exchange*>(user);
  const size_t n = size * count;
  const std::string_view line(data, n);
  exchange.header_bytes += n;
  Outcome& outcome = exchange.outcome;

  if (exchange.headers_done) {
    // Trailers say nothing that we want.
  } else if (outcome.status == 0) {
    if (line.starts_with("HTTP/")) {
      const size_t space = line.find(' ');
      int code = 0;
      if (space != line.npos) {
        for (size_t i = space + 1; i < line.size() && i < space + 4 && IsDigit(line[i]); ++i) {
          code = code * 10 + (line[i] - '0');
        }
      }
      if (code >= 200) {
        if (exchange.reused_http1 && !exchange.MayHaveLeft()) {
          // It came before the body was sent: it answers something else.
          exchange.spoke_early = true;
          ++exchange.client->stats_.reuse_refused;
          return 0;
        }
        outcome.status = code;
        CrashPoint("after-status");
        exchange.client->StopWaiting(exchange);
      }
    }  // else a header of an interim answer
  } else if (TrimBlanks(line).empty()) {
    exchange.headers_done = true;
    // libcurl notices bytes beyond the answer only behind a body of known size; beyond a chunked or an empty one it
    // drops them and keeps the connection. So only the former kind may be used again.
    const bool clear_end = exchange.client->options_.reuse_http1 && exchange.content_length_count == 1 &&
                           exchange.content_length_ok && exchange.content_length > 0 && !exchange.transfer_encoding &&
                           outcome.status != 204 && outcome.status != 304;
    if (clear_end) curl_easy_setopt(exchange.easy, CURLOPT_FORBID_REUSE, 0L);
  } else if (const size_t colon = line.find(':'); colon != line.npos && line[0] != ' ' && line[0] != '\t') {
    const std::string_view name = line.substr(0, colon);
    const std::string_view value = TrimBlanks(line.substr(colon + 1));
    if (EqualsLower(name, "request-id")) {
      if (outcome.request_id.empty()) outcome.request_id = value;
    } else if (EqualsLower(name, "retry-after")) {
      if (outcome.retry_after.empty()) outcome.retry_after = value;
    } else if (EqualsLower(name, "date")) {
      if (outcome.status >= 300 && outcome.date.empty()) outcome.date = value;
    } else if (EqualsLower(name, "transfer-encoding")) {
      exchange.transfer_encoding = true;
    } else if (EqualsLower(name, "content-length")) {
      ++exchange.content_length_count;
      exchange.content_length = 0;
      exchange.content_length_ok = !value.empty() && value.size() <= 18;
      for (const char c : value) {
        exchange.content_length_ok = exchange.content_length_ok && IsDigit(c);
        if (exchange.content_length_ok) {
          exchange.content_length = exchange.content_length * 10 + static_cast<uint64_t>(c - '0');
        }
      }
    }
  }
  if (exchange.header_bytes > exchange.client->options_.max_header_bytes) {
    exchange.headers_cut = true;
    return 0;
  }
  return n;
}

size_t CurlClient::OnBody(char* data, size_t size, size_t count, void* user) noexcept {
  auto& exchange = *static_cast<Exchange*>(user);
  const size_t n = size * count;
  const size_t room = exchange.client->options_.max_answer_bytes - exchange.outcome.body.size();
  exchange.outcome.body.append(data, std::min(n, room));
  if (n <= room) return n;
  exchange.body_cut = true;
  return 0;
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

std::unique_ptr<Client> NewCurlClient(Options options) {
  if (!CurlGlobalInit().ok()) return nullptr;
  auto client = std::make_unique<CurlClient>(std::move(options));
  if (!client->Init()) return nullptr;
  return client;
}

}  // namespace userintent::http
