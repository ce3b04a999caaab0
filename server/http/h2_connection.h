// H2Connection: one connection to the origin, from the TCP connect to the last frame. It turns the connector, the wire
// and the session, and keeps the time for them.
//
// Belongs to one thread, like the H2Client that owns it and every exchange. A connection that failed is kDead and does
// nothing any more: its owner asks why, ends the exchanges that it still carried and deletes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/base/loop.h"
#include "server/http/h2_connector.h"
#include "server/http/h2_exchange.h"
#include "server/http/h2_session.h"
#include "server/http/h2_settings.h"
#include "server/http/h2_wire.h"
#include "server/http/pace.h"
#include "server/http/tls_context.h"
#include "server/net/resolver.h"

namespace userintent::http {

class H2Connection {
 public:
  enum class State {
    kConnecting,  // TCP and TLS
    kSettling,    // waits for the peer's SETTINGS: no request leaves before its limits are known
    kReady,
    kDead,
  };

  // `scratch` is the client's: empty between calls. All must outlive the connection.
  H2Connection(const H2Settings& settings, TlsContext& tls, int epoll, H2Session::Owner& owner, Pace& pace,
               std::string& scratch);
  ~H2Connection();
  H2Connection(const H2Connection&) = delete;
  H2Connection& operator=(const H2Connection&) = delete;

  // Begins. Gives up at `deadline`.
  void Connect(std::vector<net::Address> addresses, SteadyTime now, SteadyTime deadline);

  void OnEvent(SteadyTime now);  // its descriptor is ready
  void OnTimer(SteadyTime now);
  std::optional<SteadyTime> NextTimer() const;  // nullopt: none. Always in the future after OnTimer()

  State state() const { return state_; }
  bool ever_ready() const { return ready_since_.has_value(); }
  // It died, and as an attempt to connect it had failed: it never was ready, or went at once, before any use.
  bool Failed() const;
  bool TakeNews() { return std::exchange(news_, false); }   // true once, after it became ready
  SystemTime peer_end() const { return wire_.peer_end(); }  // once it was ready
  const H2Failure& failure() const { return failure_; }

  // Exchanges that it can accept now (Room: none while a write is pending), and once the pending write is done
  // (Capacity).
  size_t Room(SteadyTime now) const { return wire_.idle() ? Capacity(now) : 0; }
  size_t Capacity(SteadyTime now) const;
  // How many it would take at once, 0 before the peer has said.
  size_t Limit() const { return session_.Limit(); }
  bool Usable() const { return state_ == State::kReady && !session_.retired(); }
  bool Aged(SteadyTime now) const { return now >= *ready_since_ + settings_.tuning.age_limit; }  // once it was ready
  void Retire() { session_.Retire(); }  // no new exchanges; it closes when the last one has ended

  // Takes the exchange and prepares its frames; Flush() must follow before anything else happens. False: it takes none
  // any more, and the exchange is as it was.
  bool Submit(H2Exchange& exchange, SteadyTime now);

  // The exchange has had its time: is this connection still good for others?
  void Suspect(const H2Exchange& exchange) { session_.Suspect(exchange); }
  // Lets go of an exchange that shall end.
  void Abandon(H2Exchange& exchange) { session_.Abandon(exchange); }

  // Late exchanges on it.
  void CountLate(int change) { late_ += change; }
  // It takes no more exchanges, and stays only for late ones.
  bool OnlyListens() const { return late_ > 0 && !Usable() && session_.streams() <= static_cast<size_t>(late_); }
  // It would take one more exchange, if one of its streams ended now.
  bool Full(SteadyTime now) const { return Usable() && wire_.idle() && session_.Full(now); }

  // Writes all that is to be written, as far as the socket takes it.
  void Flush(SteadyTime now);

 private:
  void OnConnector(H2Connector::State state);
  bool SendWire();
  void Receive();
  bool WriteScratch();
  void OnReadyTimer();
  void SayGoodbye();
  void Fail(NotSentCause cause, std::string_view detail);
  bool Open() const { return state_ == State::kSettling || state_ == State::kReady; }

  const H2Settings& settings_;
  TlsContext& tls_;
  std::string& scratch_;
  SteadyTime now_{};  // of the turn; the wire and the session look at it

  State state_ = State::kConnecting;
  H2Failure failure_;
  bool news_ = false;
  bool lost_ = false;  // the socket takes no more; what the peer had said before is being read
  SteadyTime deadline_{};
  std::optional<SteadyTime> ready_since_;
  SteadyTime heard_{};  // when the last byte came, or the first request left
  std::optional<SteadyTime> pinged_;
  int late_ = 0;
  uint64_t received_at_move_ = 0;  // bytes of TLS that had come when an exchange last moved

  H2Wire wire_;
  H2Connector connector_;
  H2Session session_;
};

}  // namespace userintent::http
