#include "server/http/h2_client.h"

#include <sys/epoll.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "server/base/crash_point.h"
#include "server/base/text.h"
#include "server/http/exchange_text.h"
#include "server/net/address.h"
#include "server/net/origin.h"

// In this file: how exchanges begin and end; time; the turn; when one more connection is opened. Late exchanges are in
// h2_late.cc.

namespace userintent::http {
namespace {

constexpr int kEventsPerTurn = 64;
constexpr int kRefusedRounds = 7;  // one after the other: more than one call has tries, so "it keeps refusing"
constexpr size_t kScratchSlack = 64 * 1024;

std::vector<net::Address> Allowed(const std::vector<net::Address>& addresses, const Options& options) {
  std::vector<net::Address> allowed;
  for (const net::Address& address : addresses) {
    const net::AddressKind kind = net::ClassifyAddress(address.get(), address.size);
    if (net::AddressAllowed(kind, options.allow_private_address, options.loopback_ok)) allowed.push_back(address);
  }
  return allowed;
}

H2Failure FailureOf(NotSentCause cause) { return {cause, DetailOf(cause)}; }

}  // namespace

absl::StatusOr<std::unique_ptr<H2Client>> H2Client::Create(Options options, OnNoHttp2 on_no_http2, H2Tuning tuning) {
  std::unique_ptr<H2Client> client(new H2Client(H2Settings{std::move(options), tuning, {}}, std::move(on_no_http2)));
  if (absl::Status status = client->Init(); !status.ok()) return status;
  return client;
}

absl::Status H2Client::Init() {
  if (epoll_.get() < 0) return absl::ResourceExhaustedError("HTTP/2 client: no descriptor left for epoll");
  // Never grows, so that no copy of what passes through is left behind.
  scratch_.reserve(settings_.tuning.max_unsent + kScratchSlack);
  net::Origin origin;
  valid_origin_ = net::ParseOrigin(settings_.options.origin, &origin);
  if (!valid_origin_) return absl::OkStatus();  // every exchange ends as kInternal
  settings_.authority = origin.Authority();
  resolver_ = std::make_unique<net::Resolver>(origin.host, origin.port);
  auto tls = TlsContext::Create(origin.host, resolver_->literal(), settings_.options.ca_file, on_no_http2_ != nullptr,
                                settings_.options.authorities);
  if (!tls.ok()) return tls.status();
  tls_ = *std::move(tls);
  return absl::OkStatus();
}

bool H2Client::Watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // Turn() does nothing for it: it only ends the wait
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

Client::ExchangeId H2Client::Start(Request request, Done done) {
  ++stats_.exchanges;
  H2Exchange& exchange = exchanges_.Add(std::move(done));
  const ExchangeId id = exchange.id;
  const bool valid = exchange.Take(std::move(request)) && valid_origin_;
  for (auto& [name, value] : exchange.request.headers) MakeLower(&name);
  if (!valid) {
    End(exchange, Exchange::End::kBroken, NotSentCause::kInternal);
  } else if (exchange.LeaseOver()) {
    End(exchange, Exchange::End::kBroken, NotSentCause::kLeaseOver);
  } else {
    fresh_ = true;
  }
  CrashPoint("before-connect");
  return id;
}

bool H2Client::CancelUnsent(ExchangeId id) {
  H2Exchange* const exchange = exchanges_.Find(id);
  // What is on a connection was offered to it in the turn that put it there.
  if (exchange == nullptr || exchange->connection != nullptr) return false;
  End(*exchange, Exchange::End::kBroken, NotSentCause::kCancelled);
  return true;
}

// ---- how exchanges end

// Takes the exchange out of everything and puts its outcome where the end of the turn finds it. `cause` counts if
// nothing was sent, `detail` unless there is an answer.
void H2Client::End(H2Exchange& exchange, Exchange::End end, NotSentCause cause, std::string_view detail) {
  exchange.Finish(end, cause, detail);
  if (exchange.outcome.fate == Fate::kAnswered) refused_rounds_ = 0;
  if (exchange.outcome.fate == Fate::kRefused) CountRefusal(exchange);
  if (exchange.late != Exchange::Late::kNo) exchange.connection->CountLate(-1);
  exchanges_.MoveToEnded(exchange);
}

void H2Client::End(H2Exchange& exchange, Exchange::End end, NotSentCause cause) {
  End(exchange, end, cause, DetailOf(cause));
}

void H2Client::OnEnded(H2Exchange& exchange, Exchange::End end, std::string_view detail) {
  End(exchange, end, NotSentCause::kConnect, detail);
}

void H2Client::OnLeaseOver(H2Exchange& exchange) { End(exchange, Exchange::End::kBroken, NotSentCause::kLeaseOver); }

void H2Client::FailWaiting(const H2Failure& failure) {
  while (H2Exchange* exchange = exchanges_.FirstWaiting()) {
    End(*exchange, Exchange::End::kBroken, failure.cause, failure.detail);
  }
}

// Refusals of exchanges that were under way together are one round.
void H2Client::CountRefusal(const H2Exchange& exchange) {
  if (exchange.start <= last_round_) return;
  last_round_ = SteadyClock::now();
  ++refused_rounds_;
}

Http1Reason H2Client::TakeHttp1Reason() {
  const bool required = std::exchange(http1_required_, false);
  const bool refused = refused_rounds_ >= kRefusedRounds;
  if (required || refused) refused_rounds_ = 0;
  return required ? Http1Reason::kRequired : refused ? Http1Reason::kKeepsRefusing : Http1Reason::kNone;
}

void H2Client::HandOver() {
  while (H2Exchange* exchange = exchanges_.FirstWaiting()) {
    --stats_.exchanges;
    on_no_http2_(exchange->id, std::move(exchange->request), std::move(exchange->done));
    exchange->WipeRequest();
    exchanges_.Remove(*exchange);
  }
}

// ---- time

std::optional<SteadyTime> H2Client::NextTimer() const {
  if (exchanges_.HasEnded() || fresh_) return SteadyClock::now();
  std::optional<SteadyTime> next = exchanges_.NextDeadline();
  const auto consider = [&next](SteadyTime when) {
    if (!next || when < *next) next = when;
  };
  if (resolving_) consider(*resolving_ + settings_.options.connect_timeout);
  if (exchanges_.waiting() > 0) {
    if (next_attempt_ > SteadyTime{} && CountConnecting() == 0 && next_attempt_ > SteadyClock::now()) {
      consider(next_attempt_);
    }
    if (const auto lift = pace_.NextLift()) consider(*lift);
  }
  for (const auto& connection : connections_) {
    if (const auto timer = connection->NextTimer()) consider(*timer);
  }
  return next;
}

void H2Client::ApplyDeadlines(SteadyTime now) {
  exchanges_.EndTimedOut(now, [this](H2Exchange& exchange) {
    if (exchange.connection == nullptr) return End(exchange, Exchange::End::kBroken, NotSentCause::kTimeout);
    exchange.connection->Suspect(exchange);
    if (exchanges_.MayListen(exchange)) return ListenOn(exchange);
    exchange.connection->Abandon(exchange);  // its RST_STREAM leaves at the end of this turn
    End(exchange, Exchange::End::kBroken, NotSentCause::kTimeout, kNoAnswer);
  });
  exchanges_.EndOldLate(now, [this](H2Exchange& exchange) { EndLate(exchange); });
  LimitListening();
  if (resolving_ && *resolving_ + settings_.options.connect_timeout <= now) {
    resolving_.reset();  // the look-up itself cannot be stopped; its result will do for the next attempt
    OnAttemptFailed(FailureOf(NotSentCause::kTimeout), now);
  }
  exchanges_.EndTiredOfWaiting(
      now, [this](H2Exchange& exchange) { End(exchange, Exchange::End::kBroken, NotSentCause::kTimeout); });
}

// ---- the turn

void H2Client::Turn() noexcept {
  const SteadyTime now = SteadyClock::now();
  fresh_ = false;
  epoll_event events[kEventsPerTurn];
  const int n = epoll_wait(epoll_.get(), events, kEventsPerTurn, 0);
  for (int i = 0; i < n; ++i) {
    void* const who = events[i].data.ptr;
    if (who == resolver_.get()) {
      if (who != nullptr) TakeLookup(now);
    } else if (who != nullptr) {
      static_cast<H2Connection*>(who)->OnEvent(now);
    }
  }
  for (const auto& connection : connections_) connection->OnTimer(now);
  Settle(now);
  ApplyDeadlines(now);

  exchanges_.Deliver();  // what these start leaves with this turn's write; what they cancel ends in a later turn
  fresh_ = false;

  Dispatch(now);
  for (const auto& connection : connections_) connection->Flush(now);
  Settle(now);
}

void H2Client::TakeLookup(SteadyTime now) {
  const net::Resolver::Result result = resolver_->Take(now);
  if (result == net::Resolver::Result::kRunning || !resolving_) return;
  if (result == net::Resolver::Result::kFailed) {
    resolving_.reset();
    OnAttemptFailed(FailureOf(NotSentCause::kResolve), now);
  }  // else Dispatch() goes on from here
}

// Buries the dead, and takes note of what became ready.
void H2Client::Settle(SteadyTime now) {
  for (size_t i = 0; i < connections_.size();) {
    if (connections_[i]->state() != H2Connection::State::kDead) {
      ++i;
      continue;
    }
    const std::unique_ptr<H2Connection> dead = std::move(connections_[i]);
    connections_.erase(connections_.begin() + static_cast<std::ptrdiff_t>(i));
    exchanges_.ForEach([&](H2Exchange& exchange) {
      if (exchange.connection != dead.get()) return;
      End(exchange, Exchange::End::kBroken, dead->failure().cause, dead->failure().detail);
    });
    if (dead->TakeNews()) TellOpened(*dead);
    if (dead->Failed()) OnAttemptFailed(dead->failure(), now);
    if (exchanges_.waiting() > 0) fresh_ = true;  // it may be one more connection that they wait for now
  }
  for (const auto& connection : connections_) {
    if (connection->TakeNews()) TellOpened(*connection);
    if (connection->Usable()) usual_limit_ = connection->Limit();
  }
}

void H2Client::TellOpened(const H2Connection& connection) {
  ++stats_.connections_opened;
  stats_.peer_end = connection.peer_end();
}

// While a connection is in use or on its way, those that wait go on waiting. Without one, all of them end alike.
void H2Client::OnAttemptFailed(const H2Failure& failure, SteadyTime now) {
  resolver_->Forget();
  next_attempt_ = now + settings_.tuning.reconnect_after;
  if (failure.no_http2 && on_no_http2_ != nullptr) return HandOver();
  if (AnyUsable() || CountConnecting() > 0) return;
  FailWaiting(failure);
}

bool H2Client::AnyUsable() const {
  return std::any_of(connections_.begin(), connections_.end(), [](const auto& c) { return c->Usable(); });
}

size_t H2Client::CountConnecting() const {
  const auto connecting = std::count_if(connections_.begin(), connections_.end(), [](const auto& connection) {
    return connection->state() != H2Connection::State::kReady && connection->state() != H2Connection::State::kDead;
  });
  return static_cast<size_t>(connecting) + (resolving_ ? 1 : 0);
}

void H2Client::Dispatch(SteadyTime now) {
  if (http1_required_ && on_no_http2_ != nullptr && exchanges_.waiting() > 0) {
    fresh_ = true;  // the caller of TakeHttp1Reason() decides about these, then the next turn sends the rest
    return;
  }
  const bool any_young = std::any_of(connections_.begin(), connections_.end(),
                                     [now](const auto& c) { return c->Usable() && !c->Aged(now); });
  for (const auto& connection : connections_) {
    if (any_young && connection->Usable() && connection->Aged(now)) connection->Retire();
    // The first with room takes all that it can: the fuller the write, the cheaper, and the rest may close as idle.
    for (size_t room = connection->Room(now); room > 0 && exchanges_.waiting() > 0; --room) {
      H2Exchange& exchange = *exchanges_.FirstWaiting();
      if (!connection->Submit(exchange, now)) break;
      exchanges_.LeaveWaiting(exchange);
    }
  }
  OpenConnections(now);
  MakeWay(now);
}

// ---- one more connection

H2Client::Need H2Client::CountNeed(SteadyTime now) {
  Need need;
  size_t young = 0;
  size_t capacity = 0;
  for (const auto& connection : connections_) {
    capacity += connection->Capacity(now);
    if (!connection->OnlyListens()) ++need.open;
    if (connection->Usable() && !connection->Aged(now)) ++young;
    if (!connection->Usable() && connection->ever_ready()) continue;  // on its way out
    ++need.kept;
  }
  // One to replace what has grown old, or as many as it takes for those that wait. Before the first connection it
  // is not known how many streams the peer takes, so that one goes ahead.
  if (exchanges_.waiting() > capacity) {
    need.unplaced = exchanges_.waiting() - capacity;
    need.each = std::min({usual_limit_, pace_.AtOnce(now), pace_.InAll(now)});
    if (need.each == 0) need.each = need.unplaced;
    need.wanted = (need.unplaced + need.each - 1) / need.each;
  } else if (young == 0 && exchanges_.under_way() > 0) {
    need.wanted = 1;
  }
  need.connecting = CountConnecting();
  return need;
}

bool H2Client::HasPlace(const Need& need) const {
  const auto most = static_cast<size_t>(std::max(settings_.options.max_connections, 1));
  return need.connecting < need.wanted && need.kept < most && need.open < 2 * most;
}

void H2Client::OpenConnections(SteadyTime now) {
  Need need = CountNeed(now);
  if (!resolving_ && !HasPlace(need)) return;
  if (now < next_attempt_ && AnyUsable()) return;
  if (!tls_->HasTrust()) return OnAttemptFailed(FailureOf(NotSentCause::kUntrusted), now);
  const std::vector<net::Address>* const known = resolver_->Known(now);
  if (known == nullptr) return LookUp(now);

  const SteadyTime deadline = resolving_.value_or(now) + settings_.options.connect_timeout;
  if (resolving_) --need.connecting;
  resolving_.reset();
  const std::vector<net::Address> allowed = Allowed(*known, settings_.options);
  if (allowed.empty()) return OnAttemptFailed(FailureOf(NotSentCause::kForbiddenAddress), now);
  H2Session::Owner& owner = *this;
  for (; HasPlace(need); ++need.connecting, ++need.kept, ++need.open) {
    connections_.push_back(std::make_unique<H2Connection>(settings_, *tls_, epoll_.get(), owner, pace_, scratch_));
    connections_.back()->Connect(allowed, now, deadline);
  }
}

void H2Client::LookUp(SteadyTime now) {
  if (resolving_) return;
  resolving_ = now;
  const bool begun = resolver_->Begin();
  if (begun && !watching_resolver_) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = resolver_.get();
    watching_resolver_ = epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, resolver_->PollFd(), &event) == 0;
  }
  if (begun && watching_resolver_) return;
  resolving_.reset();
  OnAttemptFailed(FailureOf(NotSentCause::kInternal), now);
}

}  // namespace userintent::http
