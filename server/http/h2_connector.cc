#include "server/http/h2_connector.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "server/http/connection_limits.h"
#include "server/http/exchange_text.h"

namespace userintent::http {
namespace {

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

void H2Connector::Close() {
  for (const int fd : racing_) close(fd);  // which also takes them out of the epoll set
  racing_.clear();
}

H2Connector::State H2Connector::Begin(std::vector<net::Address> addresses, SteadyTime now) {
  addresses_ = std::move(addresses);
  next_race_ = now;
  return Race(now);
}

H2Connector::State H2Connector::OnEvent(SteadyTime now) {
  if (state_ == State::kRacing) return Race(now);
  if (state_ != State::kHandshaking) return state_;
  if (!wire_.idle() && Send() == State::kFailed) return state_;
  return Handshake();
}

H2Connector::State H2Connector::OnTimer(SteadyTime now) {
  return state_ == State::kRacing && now >= next_race_ ? Race(now) : state_;
}

SteadyTime H2Connector::NextTimer(SteadyTime deadline) const {
  return next_address_ < addresses_.size() ? std::min(next_race_, deadline) : deadline;
}

H2Connector::State H2Connector::Fail(NotSentCause cause, std::string_view detail) {
  failure_.cause = cause;
  failure_.detail = detail;
  return state_ = State::kFailed;
}

// ---- TCP

// Tries one more address, if there is one.
void H2Connector::StartNext(SteadyTime now) {
  while (next_address_ < addresses_.size()) {
    const int fd = OpenSocket(addresses_[next_address_++]);
    if (fd < 0) continue;
    epoll_event event{};
    event.events = EPOLLOUT;
    event.data.ptr = event_;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      close(fd);
      continue;
    }
    racing_.push_back(fd);
    next_race_ = now + tuning_.race_after;
    return;
  }
}

H2Connector::State H2Connector::Race(SteadyTime now) {
  for (auto at = racing_.begin(); at != racing_.end();) {
    switch (StateOf(*at)) {
      case TcpState::kWaiting:
        ++at;
        break;
      case TcpState::kConnected: {
        const int fd = *at;
        racing_.erase(at);
        return TakeSocket(fd);
      }
      case TcpState::kFailed:
        close(*at);
        at = racing_.erase(at);
        next_race_ = now;  // why wait
        break;
    }
  }
  if (now >= next_race_) StartNext(now);
  return racing_.empty() ? Fail(NotSentCause::kConnect, DetailOf(NotSentCause::kConnect)) : state_;
}

H2Connector::State H2Connector::TakeSocket(int fd) {
  Close();  // those that lost
  addresses_.clear();
  state_ = State::kHandshaking;
  if (!wire_.Begin(fd, tls_.NewConnection())) {
    return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  }
  return Handshake();
}

// ---- TLS

H2Connector::State H2Connector::Send() {
  switch (wire_.Send()) {
    case H2Wire::Sent::kAll:
    case H2Wire::Sent::kPart:
      break;
    case H2Wire::Sent::kLost:
      return Fail(NotSentCause::kTls, "connection lost");
    case H2Wire::Sent::kFailed:
      return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  }
  return state_;
}

H2Connector::State H2Connector::Handshake() {
  switch (wire_.Handshake()) {
    case H2Wire::Shaken::kGoingOn:
      return Send();
    case H2Wire::Shaken::kFailed:
      return FailHandshake();
    case H2Wire::Shaken::kDone:
      break;
  }
  if (wire_.alpn() != "h2") {
    failure_.no_http2 = true;
    return Fail(NotSentCause::kTls, "peer does not offer HTTP/2");
  }
  return state_ = State::kConnected;
}

H2Connector::State H2Connector::FailHandshake() {
  wire_.SendOnce();  // the alert that tells the peer why
  const unsigned long error = ERR_peek_error();
  if (!wire_.trusted()) return Fail(NotSentCause::kUntrusted, DetailOf(NotSentCause::kUntrusted));
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) {
    return Fail(NotSentCause::kTls, "peer does not offer HTTP/2");
  }
  return Fail(NotSentCause::kTls, DetailOf(NotSentCause::kTls));
}

}  // namespace userintent::http
