#include "server/http/h2_connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "server/base/crash_point.h"
#include "server/http/connection_limits.h"
#include "server/http/exchange_text.h"
#include "server/http/wiping_memory.h"

namespace userintent::http {
namespace {

using std::chrono::milliseconds;

constexpr size_t kReadBytes = 16 * 1024;        // one TLS record
constexpr size_t kReadPerTurn = 256 * 1024;     // then the other connections have their turn
constexpr size_t kMostWireBytes = 1 << 20;      // the write of a turn is far smaller; only a hostile TLS peer gets here
constexpr std::chrono::seconds kBriefly{1};     // how long an unwilling socket counts as merely busy
constexpr int32_t kConnectionWindow = 1 << 20;  // answers are read at once, so this bounds nothing but round trips
constexpr size_t kMostStreamWindow = 1 << 20;

// nghttp2's allocator.
void* Allocate(size_t size, void*) { return std::malloc(size); }
void* AllocateCleared(size_t count, size_t size, void*) { return std::calloc(count, size); }
void Free(void* p, void*) { WipingFree(p); }
void* Reallocate(void* p, size_t size, void*) { return WipingRealloc(p, size); }
nghttp2_mem wiping_memory{nullptr, &Allocate, &Free, &AllocateCleared, &Reallocate};

std::string_view View(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// nghttp2 takes no const pointers, but does not write through them.
nghttp2_nv Field(std::string_view name, std::string_view value, uint8_t flags) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), flags};
}

int OpenSocket(const net::Address& address) {
  const int fd = socket(address.get()->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1;
  // Best effort, all of them.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepaliveIdleSeconds, sizeof(kKeepaliveIdleSeconds));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepaliveIntervalSeconds, sizeof(kKeepaliveIntervalSeconds));
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMs, sizeof(kUnacknowledgedMs));
  if (connect(fd, address.get(), address.size) != 0 && errno != EINPROGRESS) {
    close(fd);
    return -1;
  }
  return fd;
}

enum class TcpState { kWaiting, kConnected, kFailed };
TcpState StateOf(int fd) {
  int error = 0;
  socklen_t size = sizeof(error);
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return TcpState::kFailed;
  sockaddr_storage peer{};
  socklen_t peer_size = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0 ? TcpState::kConnected
                                                                              : TcpState::kWaiting;
}

}  // namespace

H2Connection::H2Connection(const H2Settings& settings, TlsContext& tls, int epoll, Owner& owner, Pace& pace,
                           std::string& scratch)
    : settings_(settings), tls_(tls), epoll_(epoll), owner_(owner), pace_(pace), scratch_(scratch) {}

H2Connection::~H2Connection() {
  if (state_ == State::kReady && streams_ == 0) SayGoodbye();
  nghttp2_session_del(session_);
  if (ssl_ != nullptr) {
    // OpenSSL forgets the session of a connection that was not shut down in its view. That a peer went away says
    // nothing against resuming: how an answer ends is HTTP/2's business.
    if (ever_ready_) SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl_);
  }
  CloseSockets();
}

void H2Connection::CloseSockets() {
  for (const int fd : racing_) close(fd);  // which also takes them out of the epoll set
  racing_.clear();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

// ---- connecting

void H2Connection::Connect(std::vector<net::Address> addresses, SteadyTime now, SteadyTime deadline) {
  addresses_ = std::move(addresses);
  deadline_ = deadline;
  next_race_ = now;
  Race(now);
}

// True if one more address is being tried.
bool H2Connection::StartNext(SteadyTime now) {
  while (next_address_ < addresses_.size()) {
    const int fd = OpenSocket(addresses_[next_address_++]);
    if (fd < 0) continue;
    epoll_event event{};
    event.events = EPOLLOUT;
    event.data.ptr = this;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      close(fd);
      continue;
    }
    racing_.push_back(fd);
    next_race_ = now + settings_.tuning.race_after;
    return true;
  }
  return false;
}

void H2Connection::Race(SteadyTime now) {
  for (auto at = racing_.begin(); at != racing_.end();) {
    switch (StateOf(*at)) {
      case TcpState::kWaiting:
        ++at;
        break;
      case TcpState::kConnected: {
        const int fd = *at;
        racing_.erase(at);
        return TakeSocket(fd, now);
      }
      case TcpState::kFailed:
        close(*at);
        at = racing_.erase(at);
        next_race_ = now;  // why wait
        break;
    }
  }
  if (now >= next_race_) StartNext(now);
  if (racing_.empty()) Fail(NotSentCause::kConnect, DetailOf(NotSentCause::kConnect));
}

void H2Connection::TakeSocket(int fd, SteadyTime now) {
  for (const int loser : racing_) close(loser);
  racing_.clear();
  addresses_.clear();
  fd_ = fd;
  watching_writable_ = true;
  state_ = State::kHandshaking;
  ssl_ = tls_.NewConnection();
  BIO* const bio = ssl_ == nullptr ? nullptr : BIO_new(Wire());
  if (bio == nullptr) return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  Handshake(now);
}

void H2Connection::Handshake(SteadyTime now) {
  ERR_clear_error();
  const int rc = SSL_do_handshake(ssl_);
  if (rc != 1) {
    const int error = SSL_get_error(ssl_, rc);
    if (error == SSL_ERROR_WANT_READ) {
      SendWire();
      return;
    }
    // The alert that tells the peer why.
    (void)!send(fd_, wire_.data() + wire_sent_, wire_.size() - wire_sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    return FailHandshake();
  }
  const unsigned char* protocol = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_, &protocol, &size);
  if (View(protocol, size) != "h2") {
    failure_.no_http2 = true;
    return Fail(NotSentCause::kTls, "peer does not offer HTTP/2");
  }
  if (!BeginSession()) return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  state_ = State::kSettling;
  heard_ = now;
  Flush(now);
  if (state_ != State::kDead) Receive(now);
}

void H2Connection::FailHandshake() {
  const unsigned long error = ERR_peek_error();
  if (SSL_get_verify_result(ssl_) != X509_V_OK) {
    return Fail(NotSentCause::kUntrusted, DetailOf(NotSentCause::kUntrusted));
  }
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) {
    return Fail(NotSentCause::kTls, "peer does not offer HTTP/2");
  }
  Fail(NotSentCause::kTls, DetailOf(NotSentCause::kTls));
}

bool H2Connection::BeginSession() {
  nghttp2_option* option = nullptr;
  if (nghttp2_option_new(&option) != 0) return false;
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_no_http_messaging(option, 1);  // AnswerHead knows more than yes and no
  nghttp2_option_set_max_continuations(option, 8);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_option_set_max_settings(option, 32);
  const int rc = nghttp2_session_client_new3(&session_, Callbacks(), this, option, &wiping_memory);
  nghttp2_option_del(option);
  if (rc != 0) return false;
  const Options& options = settings_.options;
  const auto window = static_cast<uint32_t>(
      std::max<size_t>(NGHTTP2_INITIAL_WINDOW_SIZE, std::min(options.max_answer_bytes + 1, kMostStreamWindow)));
  const nghttp2_settings_entry entries[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
       static_cast<uint32_t>(std::min<size_t>(options.max_header_bytes, UINT32_MAX))},
  };
  if (nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries, std::size(entries)) != 0 ||
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow) != 0) {
    return false;
  }
  const int32_t first = settings_.tuning.first_stream;
  return first == 0 || nghttp2_session_set_next_stream_id(session_, first) == 0;
}

// ---- the wire

BIO_METHOD* H2Connection::Wire() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "h2 wire");
    if (made == nullptr) return made;
    BIO_meth_set_write(made, &WireWrite);
    BIO_meth_set_read(made, &WireRead);
    BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
    return made;
  }();
  return method;
}

// Records gather here, so that one system call takes all of them.
int H2Connection::WireWrite(BIO* bio, const char* data, int size) noexcept {
  auto& self = *static_cast<H2Connection*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self.wire_.size() + static_cast<size_t>(size) > kMostWireBytes) return -1;
  if (self.wire_.empty()) self.wire_since_ = self.now_;
  self.wire_.append(data, static_cast<size_t>(size));
  return size;
}

int H2Connection::WireRead(BIO* bio, char* out, int size) noexcept {
  auto& self = *static_cast<H2Connection*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self.drained_) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t n;
  do {
    n = recv(self.fd_, out, static_cast<size_t>(size), MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    self.drained_ = true;
    BIO_set_retry_read(bio);
    return -1;
  }
  if (n > 0) {
    self.read_ += static_cast<size_t>(n);
    self.idle_bytes_ += static_cast<size_t>(n);
    // A short read emptied the socket; epoll tells when there is more, the end included. It also tells after a long
    // one, so this is where a turn ends: TLS could go on for ever with messages of its own.
    if (n < size || self.read_ >= kReadPerTurn) self.drained_ = true;
  }
  return static_cast<int>(n);
}

// True if everything has left.
bool H2Connection::SendWire() {
  while (wire_sent_ < wire_.size()) {
    const ssize_t n = send(fd_, wire_.data() + wire_sent_, wire_.size() - wire_sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      wire_sent_ += static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      Watch(true);
      return false;
    } else if (errno != EINTR) {
      if (!std::exchange(lost_, true) && session_ != nullptr) {
        // What came before the break counts: answers, or which streams were refused.
        wire_.clear();
        wire_sent_ = read_ = 0;
        drained_ = false;
        Receive(now_);
      }
      Fail(state_ == State::kHandshaking ? NotSentCause::kTls : NotSentCause::kConnect, "connection lost");
      return false;
    }
  }
  wire_.clear();
  wire_sent_ = 0;
  Watch(false);
  return true;
}

void H2Connection::Watch(bool writable) {
  if (writable == watching_writable_ || fd_ < 0) return;
  epoll_event event{};
  event.events = writable ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.ptr = this;
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_, &event) != 0) {
    return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  }
  watching_writable_ = writable;
}

void H2Connection::OnEvent(SteadyTime now) {
  now_ = now;
  drained_ = false;
  read_ = 0;
  switch (state_) {
    case State::kConnecting:
      return Race(now);
    case State::kHandshaking:
      if (!wire_.empty() && !SendWire() && state_ == State::kDead) return;
      return Handshake(now);
    case State::kSettling:
    case State::kReady:
      if (!wire_.empty() && !SendWire() && state_ == State::kDead) return;
      return Receive(now);
    case State::kDead:
      return;
  }
}

void H2Connection::Receive(SteadyTime now) {
  now_ = now;
  uint8_t buffer[kReadBytes];
  while (state_ != State::kDead) {
    ERR_clear_error();
    const int n = SSL_read(ssl_, buffer, sizeof(buffer));
    if (n <= 0) {
      const int error = SSL_get_error(ssl_, n);
      if (error == SSL_ERROR_WANT_READ) {
        // nghttp2 says nothing of frames of an unknown type, and TLS nothing of its own messages, so bytes are counted.
        if (idle_bytes_ > settings_.tuning.max_idle_bytes) {
          return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
        }
        // TLS itself may have something to say, a key update for one.
        if (!wire_.empty()) SendWire();
        return;
      }
      // Before the first request an alert is still about the handshake: in TLS 1.3 the peer checks it after us.
      const bool tls = error == SSL_ERROR_SSL && state_ == State::kSettling &&
                       ERR_GET_REASON(ERR_peek_error()) >= SSL_AD_REASON_OFFSET;
      return Fail(tls ? NotSentCause::kTls : NotSentCause::kConnect, "connection lost");
    }
    heard_ = now;
    pinged_.reset();
    const ssize_t rc = nghttp2_session_mem_recv(session_, buffer, static_cast<size_t>(n));
    WipeBytes(buffer, static_cast<size_t>(n));
    if (rc < 0) return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
  }
}

void H2Connection::Flush(SteadyTime now) {
  now_ = now;
  if (state_ != State::kSettling && state_ != State::kReady) return;
  while (wire_.empty()) {  // else the socket must take what it was given first
    for (;;) {
      const uint8_t* data = nullptr;
      const ssize_t n = nghttp2_session_mem_send(session_, &data);
      if (n < 0) {
        WipeUsed(scratch_);
        return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
      }
      if (n == 0) break;
      scratch_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
      if (scratch_.size() >= settings_.tuning.max_unsent && unoffered_ == 0) break;
    }
    if (scratch_.empty()) break;
    ERR_clear_error();
    const int written = SSL_write(ssl_, scratch_.data(), static_cast<int>(scratch_.size()));
    const bool whole = written == static_cast<int>(scratch_.size());
    WipeUsed(scratch_);
    if (!whole) return Fail(NotSentCause::kConnect, "connection lost");
    if (!SendWire()) return;
  }
  // nghttp2 sends HEADERS before DATA, so every request that was submitted in this turn has been offered by now.
  // It wants neither after a GOAWAY of its own: the peer broke the protocol, and now it has been told.
  if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
    return Fail(NotSentCause::kConnect,
                last_processed_ == INT32_MAX ? "HTTP/2 protocol broken by the peer" : "connection closed by the peer");
  }
}

// ---- time

std::optional<SteadyTime> H2Connection::NextTimer() const {
  const H2Tuning& tuning = settings_.tuning;
  switch (state_) {
    case State::kConnecting:
      return next_address_ < addresses_.size() ? std::min(next_race_, deadline_) : deadline_;
    case State::kHandshaking:
    case State::kSettling:
      return deadline_;
    case State::kReady: {
      if (retired_ && streams_ == 0) return heard_;
      SteadyTime next = streams_ == 0 ? idle_since_ + tuning.idle_limit : heard_ + tuning.ping_after;
      if (pinged_) next = *pinged_ + tuning.ping_timeout;
      if (!wire_.empty() && now_ <= wire_since_ + kBriefly) {
        next = std::min(next, wire_since_ + kBriefly + milliseconds(1));
      }
      return next;
    }
    case State::kDead:
      return std::nullopt;
  }
  return std::nullopt;
}

void H2Connection::OnTimer(SteadyTime now) {
  now_ = now;
  const H2Tuning& tuning = settings_.tuning;
  if (state_ == State::kDead) return;
  if (state_ != State::kReady) {
    if (now >= deadline_) return Fail(NotSentCause::kTimeout, DetailOf(NotSentCause::kTimeout));
    if (state_ == State::kConnecting && now >= next_race_) Race(now);
    return;
  }
  if (pinged_ && now >= *pinged_ + tuning.ping_timeout) {  // also when those who made us ask have given up
    return Fail(NotSentCause::kConnect, "connection fell silent");
  }
  if (streams_ == 0) {
    if (retired_ || now >= idle_since_ + tuning.idle_limit) {
      SayGoodbye();
      Fail(NotSentCause::kConnect, "connection closed");
    }
  } else if (!pinged_ && now >= heard_ + tuning.ping_after) {
    pinged_ = now;
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);  // leaves with the turn's flush
  }
}

void H2Connection::SayGoodbye() {
  if (!wire_.empty()) return;
  nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  const uint8_t* data = nullptr;
  ssize_t n;
  while ((n = nghttp2_session_mem_send(session_, &data)) > 0) {
    scratch_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
  }
  ERR_clear_error();
  if (!scratch_.empty()) SSL_write(ssl_, scratch_.data(), static_cast<int>(scratch_.size()));
  WipeUsed(scratch_);
  SSL_shutdown(ssl_);
  (void)!send(fd_, wire_.data(), wire_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void H2Connection::Fail(NotSentCause cause, std::string_view detail) {
  if (state_ == State::kDead) return;
  state_ = State::kDead;
  failure_.cause = cause;
  failure_.detail = detail;
  CloseSockets();  // at once: it must not wake anybody any more
  // It may be the resumption that the peer does not bear.
  if (ssl_ != nullptr && !ever_ready_) tls_.ForgetSessions();
}

// ---- exchanges

bool H2Connection::Failed() const {
  return !ever_ready_ || (submitted_ == 0 && now_ < ready_since_ + settings_.tuning.reconnect_after);
}

size_t H2Connection::Limit() const { return std::min(peer_streams_, settings_.tuning.max_streams); }

size_t H2Connection::Capacity(SteadyTime now) const {
  if (!Usable() || (!wire_.empty() && now_ > wire_since_ + kBriefly)) return 0;
  const size_t at_once = std::min(Limit(), pace_.AtOnce(now));
  const size_t in_all = pace_.InAll(now);
  if (at_once <= streams_ || in_all <= submitted_) return 0;
  return std::min(at_once - streams_, in_all - submitted_);
}

bool H2Connection::Submit(H2Exchange& exchange, SteadyTime now) {
  constexpr uint8_t kNoCopy = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  const std::string length = std::to_string(exchange.request.body.size());
  fields_.clear();
  const bool has_body = exchange.request.method == Method::kPost;
  fields_.push_back(Field(":method", has_body ? "POST" : "GET", kNoCopy));
  fields_.push_back(Field(":scheme", "https", kNoCopy));
  fields_.push_back(Field(":authority", settings_.authority, kNoCopy));
  fields_.push_back(Field(":path", exchange.request.path, kNoCopy));
  for (const auto& [name, value] : exchange.request.headers) {
    // A secret stays out of the compression table (RFC 7541 section 7.1.3).
    const uint8_t secret = name == "authorization" ? NGHTTP2_NV_FLAG_NO_INDEX : 0;
    fields_.push_back(Field(name, value, kNoCopy | secret));
  }
  if (has_body) fields_.push_back(Field("content-length", length, NGHTTP2_NV_FLAG_NO_COPY_NAME));
  nghttp2_data_provider body{};
  body.source.ptr = &exchange;
  body.read_callback = &OnReadBody;
  CrashPoint("after-connect");
  const int32_t stream =
      nghttp2_submit_request(session_, nullptr, fields_.data(), fields_.size(), has_body ? &body : nullptr, &exchange);
  if (stream < 0) {
    retired_ = true;
    return false;
  }
  exchange.connection = this;
  exchange.stream = stream;
  exchange.sent = now;
  if (streams_ == 0) heard_ = std::max(heard_, now);  // silence is counted from the first request on
  ++submitted_;
  ++streams_;
  ++unoffered_;
  return true;
}

void H2Connection::Abandon(H2Exchange& exchange) {
  // No exchange has moved since this one was sent: whatever the peer is busy with, no more of it.
  if (exchange.offered && moved_ <= exchange.sent) retired_ = true;
  const int32_t stream = exchange.stream;
  LetGo(exchange);
  // Of a request that waits in nghttp2 this takes the HEADERS back.
  if (session_ != nullptr) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
}

// nghttp2 ends the streams that were left out once this has returned.
void H2Connection::OnGoAway(int32_t last_stream, uint32_t error) {
  retired_ = true;
  last_processed_ = std::min(last_processed_, last_stream);
  const int32_t first = settings_.tuning.first_stream == 0 ? 1 : settings_.tuning.first_stream;
  const auto taken = last_processed_ < first ? 0 : static_cast<size_t>((last_processed_ - first) / 2 + 1);
  if (taken < submitted_) pace_.OnGoAway(taken, now_);
  if (error == NGHTTP2_HTTP_1_1_REQUIRED) owner_.OnHttp1Required();
}

void H2Connection::Moved() {
  moved_ = now_;
  idle_frames_ = 0;
  idle_bytes_ = 0;
}

void H2Connection::LetGo(H2Exchange& exchange) {
  if (session_ != nullptr) nghttp2_session_set_stream_user_data(session_, exchange.stream, nullptr);
}

// The answer came to its end. A peer need not have read the request for it.
void H2Connection::Complete(H2Exchange& exchange) {
  const int32_t stream = exchange.stream;
  const bool request_left = exchange.request.body.empty();
  LetGo(exchange);
  if (!request_left) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  owner_.OnEnded(exchange, true, "answered");
}

// The answer is malformed. The status of a head that was whole still holds.
void H2Connection::Reject(H2Exchange& exchange) {
  const int32_t stream = exchange.stream;
  LetGo(exchange);
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_PROTOCOL_ERROR);
  owner_.OnEnded(exchange, false, exchange.head.fault());
}

H2Exchange* H2Connection::Find(int32_t stream) const {
  return stream == 0 ? nullptr : static_cast<H2Exchange*>(nghttp2_session_get_stream_user_data(session_, stream));
}

// ---- nghttp2's callbacks

nghttp2_session_callbacks* H2Connection::Callbacks() {
  static nghttp2_session_callbacks* const callbacks = [] {
    nghttp2_session_callbacks* made = nullptr;
    if (nghttp2_session_callbacks_new(&made) != 0) std::abort();
    nghttp2_session_callbacks_set_on_begin_frame_callback(made, &OnBeginFrame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(made, &OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnStreamClose);
    nghttp2_session_callbacks_set_before_frame_send_callback(made, &BeforeFrameSend);
    nghttp2_session_callbacks_set_on_frame_send_callback(made, &OnFrameSend);
    nghttp2_session_callbacks_set_send_data_callback(made, &OnSendBody);
    return made;
  }();
  return callbacks;
}

int H2Connection::OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  // Switched off by our SETTINGS, whether or not the peer has read them.
  if (head->type == NGHTTP2_PUSH_PROMISE) return NGHTTP2_ERR_CALLBACK_FAILURE;
  return ++self.idle_frames_ > self.settings_.tuning.max_idle_frames ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int H2Connection::OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  if (H2Exchange* exchange = self.Find(frame->hd.stream_id)) {
    exchange->heard = true;
    exchange->head.Begin();
    self.Moved();
  }
  return 0;
}

int H2Connection::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                           const uint8_t* value, size_t value_size, uint8_t, void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  H2Exchange* const exchange = self.Find(frame->hd.stream_id);
  if (exchange == nullptr) return 0;
  exchange->header_bytes += name_size + value_size + 32;  // as RFC 9113 section 6.5.2 counts
  const std::string_view field = View(name, name_size);
  std::string_view text = View(value, value_size);
  switch (exchange->head.Read(field, &text)) {
    case AnswerHead::Field::kTake:
      if (field == "request-id" && exchange->outcome.request_id.empty()) exchange->outcome.request_id = text;
      if (field == "retry-after" && exchange->outcome.retry_after.empty()) exchange->outcome.retry_after = text;
      if (field == "date" && exchange->head.status() >= 300 && exchange->outcome.date.empty()) {
        exchange->outcome.date = text;
      }
      break;
    case AnswerHead::Field::kSkip:
      break;
    case AnswerHead::Field::kIgnore:
      self.owner_.OnFieldIgnored();
      break;
    case AnswerHead::Field::kMalformed:
      self.Reject(*exchange);
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // nghttp2 reads the rest for its tables, and says no more of it
  }
  if (exchange->header_bytes <= self.settings_.options.max_header_bytes) return 0;
  // What came so far is well-formed, and it begins with the status.
  if (!exchange->head.done() && exchange->head.status() >= 200) exchange->outcome.status = exchange->head.status();
  exchange->headers_cut = true;
  self.LetGo(*exchange);
  self.owner_.OnEnded(*exchange, false, "answer head over the limit");
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // nghttp2 resets the stream and keeps its tables right
}

int H2Connection::OnData(nghttp2_session* session, uint8_t, int32_t stream, const uint8_t* data, size_t size,
                         void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  H2Exchange* const exchange = self.Find(stream);
  if (exchange == nullptr) return 0;
  self.Moved();
  if (!exchange->head.ReadBody(size)) {
    self.Reject(*exchange);
    return 0;
  }
  std::string& body = exchange->outcome.body;
  const size_t room = self.settings_.options.max_answer_bytes - body.size();
  body.append(reinterpret_cast<const char*>(data), std::min(size, room));
  if (size <= room) return 0;
  exchange->body_cut = true;
  self.LetGo(*exchange);
  self.owner_.OnEnded(*exchange, false, "answer body over the limit");
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL) == 0
             ? 0
             : NGHTTP2_ERR_CALLBACK_FAILURE;
}

int H2Connection::OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        self.peer_streams_ = nghttp2_session_get_remote_settings(session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
        if (self.state_ == State::kSettling) {
          self.state_ = State::kReady;
          self.ever_ready_ = self.news_ = true;
          self.ready_since_ = self.idle_since_ = self.now_;
        }
      }
      return 0;
    case NGHTTP2_GOAWAY:
      self.OnGoAway(frame->goaway.last_stream_id, frame->goaway.error_code);
      return 0;
    case NGHTTP2_RST_STREAM:
      if (frame->rst_stream.error_code == NGHTTP2_HTTP_1_1_REQUIRED) self.owner_.OnHttp1Required();
      if (H2Exchange* exchange = self.Find(frame->hd.stream_id)) {
        exchange->refused = frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM;
      }
      return 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
      H2Exchange* const exchange = self.Find(frame->hd.stream_id);
      if (exchange == nullptr) return 0;
      const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
      AnswerHead& head = exchange->head;
      bool fine = frame->hd.type == NGHTTP2_DATA || head.EndHead(end);
      if (fine && head.done() && exchange->outcome.status == 0) {
        exchange->outcome.status = head.status();
        CrashPoint("after-status");
      }
      if (fine && end) fine = head.EndBody();
      if (!fine) {
        self.Reject(*exchange);
      } else if (end) {
        self.Complete(*exchange);
      }
      return 0;
    }
    default:
      return 0;
  }
}

int H2Connection::OnStreamClose(nghttp2_session*, int32_t stream, uint32_t, void* user) noexcept {
  auto& self = *static_cast<H2Connection*>(user);
  if (self.streams_ > 0) --self.streams_;
  if (self.streams_ == 0) self.idle_since_ = self.now_;
  H2Exchange* const exchange = self.Find(stream);
  if (exchange == nullptr) return 0;
  // Either way in which a peer refuses counts only while it has answered nothing (RFC 9113 section 8.7).
  if (exchange->refused) self.pace_.OnRefused(self.streams_, self.now_);
  exchange->refused = (exchange->refused || stream > self.last_processed_) && !exchange->heard;
  self.LetGo(*exchange);
  self.owner_.OnEnded(*exchange, false, "HTTP/2 stream ended without an answer");
  return 0;
}

// The frame is about to be given to TLS.
int H2Connection::BeforeFrameSend(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  auto& self = *static_cast<H2Connection*>(user);
  if (self.unoffered_ > 0) --self.unoffered_;
  H2Exchange* const exchange = self.Find(frame->hd.stream_id);
  // Cannot be, because nghttp2 drops what was given up earlier. Dropping it here would put its compression out of step.
  if (exchange == nullptr) return NGHTTP2_ERR_CALLBACK_FAILURE;
  exchange->offered = true;
  return 0;
}

int H2Connection::OnFrameSend(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (H2Exchange* exchange = static_cast<H2Connection*>(user)->Find(frame->hd.stream_id)) {
    for (auto& [name, value] : exchange->request.headers) Wipe(value);  // they are compressed now
  }
  return 0;
}

// Only says how much; OnSendBody() copies, so that nghttp2's buffers never hold a body.
ssize_t H2Connection::OnReadBody(nghttp2_session*, int32_t stream, uint8_t*, size_t size, uint32_t* flags,
                                 nghttp2_data_source* source, void* user) noexcept {
  if (static_cast<H2Connection*>(user)->Find(stream) == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const auto& exchange = *static_cast<H2Exchange*>(source->ptr);
  const size_t left = exchange.request.body.size() - exchange.body_offset;
  const size_t n = std::min(size, left);
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (n == left) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(n);
}

int H2Connection::OnSendBody(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                             nghttp2_data_source* source, void* user) noexcept {
  constexpr size_t kFrameHead = 9;
  auto& self = *static_cast<H2Connection*>(user);
  if (self.Find(frame->hd.stream_id) == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (self.scratch_.size() >= self.settings_.tuning.max_unsent) return NGHTTP2_ERR_WOULDBLOCK;  // after the next write
  auto& exchange = *static_cast<H2Exchange*>(source->ptr);
  std::string& body = exchange.request.body;
  self.scratch_.append(reinterpret_cast<const char*>(head), kFrameHead);
  self.scratch_.append(body, exchange.body_offset, size);
  exchange.body_offset += size;
  CrashPoint(exchange.body_offset < body.size() ? "after-first-body-byte" : "after-body");
  if (exchange.body_offset == body.size()) {
    Wipe(body);
    exchange.body_offset = 0;
  }
  return 0;
}

}  // namespace userintent::http
