// H2Connector: gets one connection to the origin: TCP, by a race between its addresses, then the TLS handshake.
//
// Belongs to an H2Connection and its thread; what it gets is the connection's wire. Its owner watches the deadline.
#pragma once

#include <string_view>
#include <vector>

#include "server/base/loop.h"
#include "server/http/h2_settings.h"
#include "server/http/h2_wire.h"
#include "server/http/tls_context.h"
#include "server/net/resolver.h"

namespace userintent::http {

class H2Connector {
 public:
  enum class State {
    kRacing,       // TCP
    kHandshaking,  // TLS
    kConnected,    // the wire speaks TLS, and the peer took HTTP/2
    kFailed,       // see failure()
  };

  // `event` is what epoll returns for its sockets. All must outlive the connector.
  H2Connector(const H2Tuning& tuning, TlsContext& tls, int epoll, void* event, H2Wire& wire)
      : tuning_(tuning), tls_(tls), epoll_(epoll), event_(event), wire_(wire) {}
  ~H2Connector() { Close(); }
  H2Connector(const H2Connector&) = delete;
  H2Connector& operator=(const H2Connector&) = delete;

  // Each returns what it has come to. The first address that accepts is taken.
  State Begin(std::vector<net::Address> addresses, SteadyTime now);
  State OnEvent(SteadyTime now);
  State OnTimer(SteadyTime now);

  // When OnTimer() is due, or `deadline` if that is earlier.
  SteadyTime NextTimer(SteadyTime deadline) const;

  void Close();  // what is still racing
  const H2Failure& failure() const { return failure_; }

 private:
  State Race(SteadyTime now);
  void StartNext(SteadyTime now);
  State TakeSocket(int fd);
  State Send();
  State Handshake();
  State FailHandshake();
  State Fail(NotSentCause cause, std::string_view detail);

  const H2Tuning& tuning_;
  TlsContext& tls_;
  const int epoll_;
  void* const event_;
  H2Wire& wire_;
  State state_ = State::kRacing;
  H2Failure failure_;
  std::vector<net::Address> addresses_;
  size_t next_address_ = 0;
  std::vector<int> racing_;
  SteadyTime next_race_{};
};

}  // namespace userintent::http
