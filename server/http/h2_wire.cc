#include "server/http/h2_wire.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace userintent::http {
namespace {

constexpr size_t kReadPerTurn = 256 * 1024;  // then the other connections have their turn
constexpr size_t kMostUnsent = 1 << 20;      // the write of a turn is far smaller; only a hostile TLS peer gets here

}  // namespace

H2Wire::~H2Wire() {
  if (ssl_ != nullptr) {
    // OpenSSL forgets the session of a connection that was not shut down in its view. That a peer went away says
    // nothing against resuming: how an answer ends is HTTP/2's business.
    if (keep_session_) SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl_);
  }
  Close();
}

bool H2Wire::Begin(int fd, SSL* ssl) {
  fd_ = fd;
  watching_writable_ = true;
  ssl_ = ssl;
  BIO* const bio = ssl_ == nullptr ? nullptr : BIO_new(Method());
  if (bio == nullptr) return false;
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  return true;
}

void H2Wire::Close() {
  if (fd_ >= 0) close(fd_);  // which also takes it out of the epoll set
  fd_ = -1;
}

void H2Wire::BeginTurn() {
  drained_ = false;
  read_ = 0;
}

void H2Wire::Drop() {
  unsent_.clear();
  sent_ = 0;
  BeginTurn();
}

// ---- TLS

BIO_METHOD* H2Wire::Method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "h2 wire");
    if (made == nullptr) return made;
    BIO_meth_set_write(made, &OnWrite);
    BIO_meth_set_read(made, &OnRead);
    BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
    return made;
  }();
  return method;
}

int H2Wire::OnWrite(BIO* bio, const char* data, int size) noexcept {
  auto& self = *static_cast<H2Wire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (self.unsent_.size() + static_cast<size_t>(size) > kMostUnsent) return -1;
  if (self.unsent_.empty()) self.since_ = self.now_;
  self.unsent_.append(data, static_cast<size_t>(size));
  return size;
}

int H2Wire::OnRead(BIO* bio, char* out, int size) noexcept {
  auto& self = *static_cast<H2Wire*>(BIO_get_data(bio));
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
    self.received_ += static_cast<uint64_t>(n);
    // A short read emptied the socket; epoll tells when there is more, the end included. It also tells after a long
    // one, so this is where a turn ends: TLS could go on endlessly with messages of its own.
    if (n < size || self.read_ >= kReadPerTurn) self.drained_ = true;
  }
  return static_cast<int>(n);
}

H2Wire::Shaken H2Wire::Handshake() {
  ERR_clear_error();
  const int rc = SSL_do_handshake(ssl_);
  if (rc == 1) return Shaken::kDone;
  return SSL_get_error(ssl_, rc) == SSL_ERROR_WANT_READ ? Shaken::kGoingOn : Shaken::kFailed;
}

std::string_view H2Wire::alpn() const {
  const unsigned char* protocol = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_, &protocol, &size);
  return {reinterpret_cast<const char*>(protocol), size};
}

H2Wire::Heard H2Wire::Read(uint8_t* buffer, size_t* size) {
  ERR_clear_error();
  const int n = SSL_read(ssl_, buffer, static_cast<int>(*size));
  if (n > 0) {
    *size = static_cast<size_t>(n);
    return Heard::kBytes;
  }
  const int error = SSL_get_error(ssl_, n);
  if (error == SSL_ERROR_WANT_READ) return Heard::kNothing;
  const bool alert = error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) >= SSL_AD_REASON_OFFSET;
  return alert ? Heard::kAlert : Heard::kEnd;
}

bool H2Wire::Write(std::string_view plain) {
  ERR_clear_error();
  return SSL_write(ssl_, plain.data(), static_cast<int>(plain.size())) == static_cast<int>(plain.size());
}

void H2Wire::Shutdown() {
  SSL_shutdown(ssl_);
  SendOnce();
}

// ---- the socket

H2Wire::Sent H2Wire::Send() {
  while (sent_ < unsent_.size()) {
    const ssize_t n = send(fd_, unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      sent_ += static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Watch(true) ? Sent::kPart : Sent::kFailed;
    } else if (errno != EINTR) {
      return Sent::kLost;
    }
  }
  unsent_.clear();
  sent_ = 0;
  return Watch(false) ? Sent::kAll : Sent::kFailed;
}

void H2Wire::SendOnce() {
  (void)!send(fd_, unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
}

bool H2Wire::Watch(bool writable) {
  if (writable == watching_writable_ || fd_ < 0) return true;
  epoll_event event{};
  event.events = writable ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.ptr = event_;
  if (epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_, &event) != 0) return false;
  watching_writable_ = writable;
  return true;
}

}  // namespace userintent::http
