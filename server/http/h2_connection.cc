#include "server/http/h2_connection.h"

#include <algorithm>
#include <utility>

#include "server/base/wipe.h"
#include "server/http/exchange_text.h"

// In this file: connecting; reading and writing; time; the end; exchanges.

namespace userintent::http {
namespace {

using std::chrono::milliseconds;

constexpr size_t kReadBytes = 16 * 1024;     // one TLS record
constexpr std::chrono::seconds kBriefly{1};  // how long an unwilling socket counts as merely busy

}  // namespace

H2Connection::H2Connection(const H2Settings& settings, TlsContext& tls, int epoll, H2Session::Owner& owner, Pace& pace,
                           std::string& scratch)
    : settings_(settings),
      tls_(tls),
      scratch_(scratch),
      wire_(epoll, this, now_),
      connector_(settings.tuning, tls, epoll, this, wire_),
      session_(settings, owner, pace, scratch, now_) {}

H2Connection::~H2Connection() {
  if (state_ == State::kReady && session_.streams() == 0) SayGoodbye();
  if (ever_ready()) wire_.KeepSession();
}

void H2Connection::Connect(std::vector<net::Address> addresses, SteadyTime now, SteadyTime deadline) {
  now_ = now;
  deadline_ = deadline;
  OnConnector(connector_.Begin(std::move(addresses), now));
}

void H2Connection::OnConnector(H2Connector::State state) {
  switch (state) {
    case H2Connector::State::kRacing:
    case H2Connector::State::kHandshaking:
      return;
    case H2Connector::State::kFailed:
      failure_.no_http2 = connector_.failure().no_http2;
      return Fail(connector_.failure().cause, connector_.failure().detail);
    case H2Connector::State::kConnected:
      break;
  }
  if (!session_.Begin()) return Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  state_ = State::kSettling;
  heard_ = now_;
  Flush(now_);
  if (state_ != State::kDead) Receive();
}

void H2Connection::OnEvent(SteadyTime now) {
  now_ = now;
  wire_.BeginTurn();
  if (state_ == State::kConnecting) return OnConnector(connector_.OnEvent(now));
  if (!Open()) return;
  if (!wire_.idle() && !SendWire() && state_ == State::kDead) return;
  Receive();
}

// ---- reading and writing

void H2Connection::Receive() {
  uint8_t buffer[kReadBytes];
  while (state_ != State::kDead) {
    size_t size = sizeof(buffer);
    const H2Wire::Heard heard = wire_.Read(buffer, &size);
    if (heard == H2Wire::Heard::kNothing) {
      // nghttp2 says nothing of frames of an unknown type, and TLS nothing of its own messages, so bytes are counted.
      if (wire_.received() - received_at_move_ > settings_.tuning.max_idle_bytes) {
        return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
      }
      // TLS itself may have something to say, a key update for one.
      if (!wire_.idle()) SendWire();
      return;
    }
    if (heard != H2Wire::Heard::kBytes) {
      // Before the first request an alert is still about the handshake: in TLS 1.3 the peer checks it after us.
      const bool tls = heard == H2Wire::Heard::kAlert && state_ == State::kSettling;
      return Fail(tls ? NotSentCause::kTls : NotSentCause::kConnect, "connection lost");
    }
    heard_ = now_;
    pinged_.reset();
    const bool fine = session_.Receive(buffer, size);
    WipeBytes(buffer, size);
    if (session_.TakeMoved()) received_at_move_ = wire_.received();
    if (state_ == State::kSettling && session_.settled()) {
      state_ = State::kReady;
      ready_since_ = now_;
      news_ = true;
    }
    if (!fine) return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
  }
}

// True if everything has left.
bool H2Connection::SendWire() {
  switch (wire_.Send()) {
    case H2Wire::Sent::kAll:
      return true;
    case H2Wire::Sent::kPart:
      return false;
    case H2Wire::Sent::kFailed:
      Fail(NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
      return false;
    case H2Wire::Sent::kLost:
      break;
  }
  if (!std::exchange(lost_, true)) {
    // What came before the break counts: answers, or which streams were refused.
    wire_.Drop();
    Receive();
  }
  Fail(NotSentCause::kConnect, "connection lost");
  return false;
}

// True if all of the scratch has left.
bool H2Connection::WriteScratch() {
  const bool whole = wire_.Write(scratch_);
  WipeUsed(scratch_);
  if (whole) return SendWire();
  Fail(NotSentCause::kConnect, "connection lost");
  return false;
}

void H2Connection::Flush(SteadyTime now) {
  now_ = now;
  if (!Open()) return;
  while (wire_.idle()) {  // else the socket must take what it was given first
    if (!session_.Collect()) {
      WipeUsed(scratch_);
      return Fail(NotSentCause::kConnect, "HTTP/2 protocol broken by the peer");
    }
    if (scratch_.empty()) break;
    if (!WriteScratch()) return;
  }
  // nghttp2 sends HEADERS before DATA, so every request that was submitted in this turn has been offered by now.
  // It wants neither after a GOAWAY of its own: the peer broke the protocol, and now it has been told.
  if (session_.Over()) {
    Fail(NotSentCause::kConnect,
         session_.told_to_go() ? "connection closed by the peer" : "HTTP/2 protocol broken by the peer");
  }
}

// ---- time

std::optional<SteadyTime> H2Connection::NextTimer() const {
  const H2Tuning& tuning = settings_.tuning;
  switch (state_) {
    case State::kConnecting:
      return connector_.NextTimer(deadline_);
    case State::kSettling:
      return deadline_;
    case State::kReady: {
      if (session_.retired() && session_.streams() == 0) return heard_;
      SteadyTime next =
          session_.streams() == 0 ? session_.idle_since() + tuning.idle_limit : heard_ + tuning.ping_after;
      if (pinged_) next = *pinged_ + tuning.ping_timeout;
      if (!wire_.idle() && now_ <= wire_.unsent_since() + kBriefly) {
        next = std::min(next, wire_.unsent_since() + kBriefly + milliseconds(1));
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
  if (state_ == State::kReady) return OnReadyTimer();
  if (state_ == State::kDead) return;
  if (now >= deadline_) return Fail(NotSentCause::kTimeout, DetailOf(NotSentCause::kTimeout));
  if (state_ == State::kConnecting) OnConnector(connector_.OnTimer(now));
}

void H2Connection::OnReadyTimer() {
  const H2Tuning& tuning = settings_.tuning;
  if (pinged_ && now_ >= *pinged_ + tuning.ping_timeout) {  // also when those who made us ask have given up
    return Fail(NotSentCause::kConnect, "connection fell silent");
  }
  if (session_.streams() == 0) {
    if (session_.retired() || now_ >= session_.idle_since() + tuning.idle_limit) {
      SayGoodbye();
      Fail(NotSentCause::kConnect, "connection closed");
    }
  } else if (!pinged_ && now_ >= heard_ + tuning.ping_after) {
    pinged_ = now_;
    session_.Ping();  // leaves with the turn's flush
  }
}

// ---- the end

void H2Connection::SayGoodbye() {
  if (!wire_.idle()) return;
  session_.SayGoodbye();
  if (!scratch_.empty()) wire_.Write(scratch_);
  WipeUsed(scratch_);
  wire_.Shutdown();
}

void H2Connection::Fail(NotSentCause cause, std::string_view detail) {
  if (state_ == State::kDead) return;
  state_ = State::kDead;
  failure_.cause = cause;
  failure_.detail = detail;
  // At once: it must not wake the client any more.
  connector_.Close();
  wire_.Close();
  // It may be the resumption that the peer does not bear.
  if (wire_.has_tls() && !ever_ready()) tls_.ForgetSessions();
}

bool H2Connection::Failed() const {
  return !ever_ready() || (session_.submitted() == 0 && now_ < *ready_since_ + settings_.tuning.reconnect_after);
}

// ---- exchanges

size_t H2Connection::Capacity(SteadyTime now) const {
  if (state_ != State::kReady || (!wire_.idle() && now_ > wire_.unsent_since() + kBriefly)) return 0;
  return session_.Capacity(now);
}

bool H2Connection::Submit(H2Exchange& exchange, SteadyTime now) {
  now_ = now;
  const bool was_idle = session_.streams() == 0;
  if (!session_.Submit(exchange)) return false;
  exchange.connection = this;
  if (was_idle) heard_ = std::max(heard_, now);  // silence is counted from the first request on
  return true;
}

}  // namespace userintent::http
