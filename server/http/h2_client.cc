#include "server/http/h2_client.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "server/base/crash_point.h"
#include "server/base/text.h"
#include "server/http/exchange_text.h"
#include "server/net/address.h"
#include "server/net/origin.h"

namespace userintent::http {
namespace {

constexpr int kEventsPerTurn = 64;
constexpr int kRefusedRounds = 7;  // one after the other: more than one call has tries, so "it keeps refusing"
constexpr size_t kScratchSlack = 64 * 1024;

void WipeRequest(Request& request) {
  for (auto& [name, value] : request.headers) Wipe(value);
  request.headers.clear();
  Wipe(request.body);
}

}  // namespace

std::unique_ptr<H2Client> H2Client::Make(Options options, OnNoHttp2 on_no_http2, H2Tuning tuning) {
  std::unique_ptr<H2Client> client(new H2Client(H2Settings{std::move(options), tuning, {}}, std::move(on_no_http2)));
  if (!client->Init()) return nullptr;
  return client;
}

bool H2Client::Init() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return false;
  // Never grows, so that no copy of what passes through is left behind.
  scratch_.reserve(settings_.tuning.max_unsent + kScratchSlack);
  net::Origin origin;
  valid_origin_ = net::ParseOrigin(settings_.options.origin, &origin);
  if (!valid_origin_) return true;  // every exchange ends as kInternal
  settings_.authority = origin.Authority();
  resolver_ = std::make_unique<net::Resolver>(origin.host, origin.port);
  tls_ = TlsContext::Make(origin.host, resolver_->literal(), settings_.options.ca_file, on_no_http2_ != nullptr,
                          settings_.options.authorities);
  return tls_ != nullptr;
}

H2Client::~H2Client() {
  connections_.clear();
  for (Exchanges* list : {&queued_, &sent_}) {
    for (H2Exchange& exchange : *list) WipeRequest(exchange.request);
  }
  if (epoll_ >= 0) close(epoll_);
}

bool H2Client::Watch(int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // nobody to be told: it only ends the wait
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

Client::ExchangeId H2Client::Start(Request request, Done done) {
  const ExchangeId id = ++last_id_;
  ++stats_.exchanges;
  H2Exchange& exchange = queued_.emplace_back();
  exchange.self = std::prev(queued_.end());
  exchanges_.emplace(id, exchange.self);
  exchange.id = id;
  exchange.done = std::move(done);
  exchange.start = SteadyClock::now();
  exchange.request.method = request.method;
  exchange.request.path = std::move(request.path);
  exchange.request.body = std::move(request.body);
  Wipe(request.body);  // a short body was copied rather than moved
  bool valid = valid_origin_ && BodyFits(exchange.request) && !HasControl(exchange.request.path);
  exchange.request.headers = std::move(request.headers);
  for (auto& [name, value] : exchange.request.headers) {
    valid = valid && !name.empty() && !HasControl(name) && !HasControl(value);
    MakeLower(&name);
  }
  if (!valid) {
    End(exchange, NotSentCause::kInternal, DetailOf(NotSentCause::kInternal));
  } else {
    fresh_ = true;
  }
  CrashPoint("before-connect");
  return id;
}

bool H2Client::CancelUnsent(ExchangeId id) {
  const auto found = exchanges_.find(id);
  // What is on a connection was offered to it in the turn that put it there.
  if (found == exchanges_.end() || found->second->connection != nullptr) return false;
  End(*found->second, NotSentCause::kCancelled, DetailOf(NotSentCause::kCancelled));
  return true;
}

// ---- how exchanges end

// Takes the exchange out of everything and puts its outcome where the end of the turn finds it. `cause` counts if
// nothing was sent, `detail` unless it was answered properly.
void H2Client::End(H2Exchange& exchange, NotSentCause cause, std::string_view detail, bool complete) {
  Outcome& outcome = exchange.outcome;
  const bool was_sent = exchange.offered;
  if (outcome.status != 0) {
    outcome.fate = Fate::kAnswered;
    refused_rounds_ = 0;
    outcome.body_complete = complete && !exchange.headers_cut && !exchange.body_cut;
    const bool named = exchange.headers_cut || exchange.body_cut || !exchange.head.fault().empty();
    outcome.detail = outcome.body_complete ? "answered" : named ? detail : "answer cut short";
  } else if (!was_sent) {
    outcome.fate = Fate::kNotSent;
    outcome.cause = cause;
    outcome.detail = detail;
  } else if (exchange.refused) {
    outcome.fate = Fate::kRefused;
    CountRefusal(exchange);
    outcome.detail = "refused unprocessed by the peer";
  } else {
    outcome.fate = Fate::kMaybeSent;
    outcome.detail = detail;
  }
  WipeRequest(exchange.request);
  finished_.emplace_back(std::move(exchange.done), std::move(outcome));
  exchanges_.erase(exchange.id);
  if (exchange.connection != nullptr) {
    sent_.erase(exchange.self);
    if (sent_.empty()) idle_since_ = SteadyClock::now();
  } else {
    queued_.erase(exchange.self);
  }
}

void H2Client::OnEnded(H2Exchange& exchange, bool complete, std::string_view detail) {
  End(exchange, NotSentCause::kConnect, detail, complete);
}

void H2Client::FailQueued(NotSentCause cause, std::string_view detail) {
  while (!queued_.empty()) End(queued_.front(), cause, detail);
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
  Exchanges leaving;
  leaving.swap(queued_);
  for (H2Exchange& exchange : leaving) exchanges_.erase(exchange.id);
  for (H2Exchange& exchange : leaving) {
    --stats_.exchanges;
    on_no_http2_(exchange.id, std::move(exchange.request), std::move(exchange.done));
    WipeRequest(exchange.request);
  }
}

// ---- time

// As in the libcurl client: while exchanges are under way the connections are healthy and merely busy, so whoever waits
// may wait until the exchange timeout; with none under way, what is waited for gets nowhere.
std::optional<SteadyTime> H2Client::WaitDeadline() const {
  if (queued_.empty() || !sent_.empty()) return std::nullopt;
  return std::max(queued_.front().start, idle_since_) + settings_.options.connect_timeout;
}

std::optional<SteadyTime> H2Client::NextTimer() const {
  if (!finished_.empty() || fresh_) return SteadyClock::now();
  std::optional<SteadyTime> next = WaitDeadline();
  const auto consider = [&next](SteadyTime when) {
    if (!next || when < *next) next = when;
  };
  for (const Exchanges* list : {&queued_, &sent_}) {
    if (!list->empty()) consider(list->front().start + settings_.options.exchange_timeout);
  }
  if (resolving_) consider(*resolving_ + settings_.options.connect_timeout);
  if (!queued_.empty() && next_attempt_ > SteadyTime{} && CountConnecting() == 0) {
    const auto now = SteadyClock::now();
    if (next_attempt_ > now) consider(next_attempt_);
  }
  if (const auto lift = queued_.empty() ? std::nullopt : pace_.NextLift()) consider(*lift);
  for (const auto& connection : connections_) {
    if (const auto timer = connection->NextTimer()) consider(*timer);
  }
  return next;
}

void H2Client::ApplyDeadlines(SteadyTime now) {
  const Options& options = settings_.options;
  while (!sent_.empty() && sent_.front().start + options.exchange_timeout <= now) {
    H2Exchange& exchange = sent_.front();
    exchange.connection->Abandon(exchange);  // its RST_STREAM leaves at the end of this turn
    End(exchange, NotSentCause::kTimeout, "no answer in time");
  }
  while (!queued_.empty() && queued_.front().start + options.exchange_timeout <= now) {
    End(queued_.front(), NotSentCause::kTimeout, DetailOf(NotSentCause::kTimeout));
  }
  if (resolving_ && *resolving_ + options.connect_timeout <= now) {
    resolving_.reset();  // the look-up itself cannot be stopped; its result will do for the next attempt
    OnAttemptFailed({NotSentCause::kTimeout, DetailOf(NotSentCause::kTimeout)}, now);
  }
  for (auto deadline = WaitDeadline(); deadline && *deadline <= now; deadline = WaitDeadline()) {
    End(queued_.front(), NotSentCause::kTimeout, DetailOf(NotSentCause::kTimeout));
  }
}

// ---- the turn

void H2Client::Turn() noexcept {
  const SteadyTime now = SteadyClock::now();
  fresh_ = false;
  epoll_event events[kEventsPerTurn];
  const int n = epoll_wait(epoll_, events, kEventsPerTurn, 0);
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

  // What these start leaves with this turn's write; what they cancel ends in a later turn.
  std::vector<std::pair<Done, Outcome>> finished;
  finished.swap(finished_);
  for (auto& [done, outcome] : finished) done(std::move(outcome));
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
    OnAttemptFailed({NotSentCause::kResolve, DetailOf(NotSentCause::kResolve)}, now);
  }  // else Dispatch() goes on from here
}

// Buries the dead, and takes note of what became ready.
void H2Client::Settle(SteadyTime now) {
  size_t opened = 0;
  for (size_t i = 0; i < connections_.size();) {
    if (connections_[i]->state() != H2Connection::State::kDead) {
      ++i;
      continue;
    }
    const std::unique_ptr<H2Connection> dead = std::move(connections_[i]);
    connections_.erase(connections_.begin() + static_cast<std::ptrdiff_t>(i));
    for (auto at = sent_.begin(); at != sent_.end();) {
      H2Exchange& exchange = *at++;
      if (exchange.connection == dead.get()) End(exchange, dead->failure().cause, dead->failure().detail);
    }
    if (dead->TakeNews()) ++opened;
    if (dead->Failed()) OnAttemptFailed(dead->failure(), now);
    if (!queued_.empty()) fresh_ = true;  // it may be one more connection that they wait for now
  }
  for (const auto& connection : connections_) {
    if (connection->TakeNews()) ++opened;
    if (connection->Usable()) usual_limit_ = connection->Limit();
  }
  stats_.connections_opened += opened;
}

// While a connection is in use or on its way there is hope, and whoever waits goes on waiting. Without, all end alike.
void H2Client::OnAttemptFailed(const H2Connection::Failure& failure, SteadyTime now) {
  resolver_->Forget();
  next_attempt_ = now + settings_.tuning.reconnect_after;
  if (failure.no_http2 && on_no_http2_ != nullptr) return HandOver();
  if (AnyUsable() || CountConnecting() > 0) return;
  FailQueued(failure.cause, failure.detail);
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
  if (http1_required_ && on_no_http2_ != nullptr && !queued_.empty()) {
    fresh_ = true;  // whoever asks TakeHttp1Reason() decides about these, then the next turn sends what is left
    return;
  }
  const bool any_young = std::any_of(connections_.begin(), connections_.end(),
                                     [now](const auto& c) { return c->Usable() && !c->Aged(now); });
  for (const auto& connection : connections_) {
    if (any_young && connection->Usable() && connection->Aged(now)) connection->Retire();
    // The first with room takes all that it can: the fuller the write, the cheaper, and the rest may close as idle.
    for (size_t room = connection->Room(now); room > 0 && !queued_.empty(); --room) {
      H2Exchange& exchange = queued_.front();
      if (!connection->Submit(exchange, now)) break;
      sent_.splice(sent_.end(), queued_, exchange.self);
    }
  }
  OpenConnections(now);
}

void H2Client::OpenConnections(SteadyTime now) {
  size_t young = 0;
  size_t capacity = 0;
  size_t kept = 0;
  for (const auto& connection : connections_) {
    capacity += connection->Capacity(now);
    if (connection->Usable() && !connection->Aged(now)) ++young;
    if (!connection->Usable() && connection->ever_ready()) continue;  // on its way out
    ++kept;
  }
  // One to replace what has grown old, or as many as it takes for those who wait. Before the first connection nobody
  // knows how many streams the peer takes, so that one goes ahead.
  size_t wanted = 0;
  if (queued_.size() > capacity) {
    const size_t waiting = queued_.size() - capacity;
    const size_t each = std::min({usual_limit_, pace_.AtOnce(now), pace_.InAll(now)});
    wanted = each == 0 ? 1 : (waiting + each - 1) / each;
  } else if (young == 0 && !sent_.empty()) {
    wanted = 1;
  }
  const auto most = static_cast<size_t>(std::max(settings_.options.max_connections, 1));
  size_t connecting = CountConnecting();
  if (wanted == 0 && !resolving_) return;
  if (!resolving_ && (connecting >= wanted || kept >= most || connections_.size() >= 2 * most)) return;
  if (now < next_attempt_ && AnyUsable()) return;
  if (!tls_->HasTrust()) {
    return OnAttemptFailed({NotSentCause::kUntrusted, DetailOf(NotSentCause::kUntrusted)}, now);
  }

  const std::vector<net::Address>* const known = resolver_->Known(now);
  if (known == nullptr) {
    if (resolving_) return;
    resolving_ = now;
    const bool begun = resolver_->Begin();
    if (begun && !watching_resolver_) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = resolver_.get();
      watching_resolver_ = epoll_ctl(epoll_, EPOLL_CTL_ADD, resolver_->PollFd(), &event) == 0;
    }
    if (!begun || !watching_resolver_) {
      resolving_.reset();
      OnAttemptFailed({NotSentCause::kInternal, DetailOf(NotSentCause::kInternal)}, now);
    }
    return;
  }
  const SteadyTime since = resolving_.value_or(now);
  if (resolving_) --connecting;
  resolving_.reset();
  std::vector<net::Address> allowed;
  for (const net::Address& address : *known) {
    const Options& options = settings_.options;
    if (net::AddressAllowed(net::ClassifyAddress(address.get(), address.size), options.allow_private_address,
                            options.loopback_ok)) {
      allowed.push_back(address);
    }
  }
  if (allowed.empty()) {
    return OnAttemptFailed({NotSentCause::kForbiddenAddress, DetailOf(NotSentCause::kForbiddenAddress)}, now);
  }
  H2Connection::Owner& owner = *this;
  for (; connecting < wanted && kept < most && connections_.size() < 2 * most; ++connecting, ++kept) {
    H2Connection& connection =
        *connections_.emplace_back(std::make_unique<H2Connection>(settings_, *tls_, epoll_, owner, pace_, scratch_));
    connection.Connect(allowed, now, since + settings_.options.connect_timeout);
  }
}

}  // namespace userintent::http
