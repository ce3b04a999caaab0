#include "server/http/curl_client.h"

#include <algorithm>

#include "server/base/crash_point.h"
#include "server/http/curl_global.h"
#include "server/http/exchange_text.h"

// In this file: making and ending the client; how exchanges begin; the turn; late exchanges; how exchanges end.

namespace userintent::http {
namespace {

constexpr size_t kPooledHandles = 256;
constexpr int kCurlEventsPerTurn = 256;
// See CurlClient::Nudge, which costs a little for each transfer: while one waits or connects, and otherwise.
constexpr std::chrono::milliseconds kNudgeInterval{100};
constexpr std::chrono::milliseconds kSlowNudgeInterval{1000};
constexpr std::chrono::milliseconds kWayInterval{10};  // for libcurl to start those for whom way was made

}  // namespace

absl::StatusOr<std::unique_ptr<CurlClient>> CurlClient::Create(Options options) {
  if (absl::Status status = CurlGlobalInit(); !status.ok()) return status;
  std::unique_ptr<CurlClient> client(new CurlClient(std::move(options)));
  if (client->epoll_.get() < 0) return absl::ResourceExhaustedError("libcurl client: no descriptor left for epoll");
  if (!client->MakeMulti()) return absl::ResourceExhaustedError("libcurl client: no memory left for its handles");
  return client;
}

CurlClient::~CurlClient() {
  exchanges_.ForEach([this](CurlExchange& exchange) {
    if (exchange.easy != nullptr) {
      curl_multi_remove_handle(multi_, exchange.easy);
      curl_easy_cleanup(exchange.easy);
    }
    exchange.WipeLines();
  });
  for (CURL* easy : pool_) curl_easy_cleanup(easy);
  DropMulti();
}

void CurlClient::DropMulti() {
  if (multi_ != nullptr) curl_multi_cleanup(multi_);
  multi_ = nullptr;
  if (share_ != nullptr) curl_share_cleanup(share_);
  share_ = nullptr;
  timer_.reset();
}

// ---- how exchanges begin

Client::ExchangeId CurlClient::Start(Request request, Done done) {
  ++stats_.exchanges;
  const bool idle = !MayBeLeftStanding();
  CurlExchange& exchange = exchanges_.Add(std::move(done));
  if (idle) next_nudge_ = exchange.start + kSlowNudgeInterval;
  const ExchangeId id = exchange.id;
  exchange.client = this;
  const bool valid = exchange.Take(std::move(request)) && !HasControl(options_.origin);
  exchange.PrepareLines(options_.origin);
  const bool lease_over = exchange.LeaseOver();
  if (valid && lease_over) {
    Finish(exchange, CURLE_ABORTED_BY_CALLBACK, NotSentCause::kLeaseOver);
  } else if (!valid || multi_ == nullptr) {
    Fail(exchange);
  } else if (options_.http2) {
    if (!Submit(exchange)) Fail(exchange);
  } else {
    pending_.Join(exchange);
    SubmitPending();
  }
  CrashPoint("before-connect");
  return id;
}

void CurlClient::TakeHandle(CurlExchange& exchange) {
  if (pool_.empty()) {
    exchange.easy = curl_easy_init();
  } else {
    exchange.easy = pool_.back();
    pool_.pop_back();
  }
  if (exchange.easy != nullptr) ++handles_;
}

// Over HTTP/1.1 libcurl gets as many exchanges as there may be connections, the oldest first. It would keep a list of
// the others itself; but 7.88 does not keep its order, and forgets some of them when it is nudged. Over HTTP/2 only
// libcurl knows how many a connection takes.
void CurlClient::SubmitPending() {
  while (MaySubmitPending()) {
    CurlExchange& exchange = *pending_.front();
    pending_.Leave(exchange);
    if (!Submit(exchange)) Fail(exchange);
  }
}

bool CurlClient::Submit(CurlExchange& exchange) {
  if (exchange.easy == nullptr) TakeHandle(exchange);
  if (exchange.easy == nullptr || !SetOptions(exchange)) return false;
  if (curl_multi_add_handle(multi_, exchange.easy) != CURLM_OK) return false;
  if (options_.http2) unseen_.push_back(exchange.id);
  return true;
}

// Nothing was sent: once more, on a connection of its own. Such a one cannot be stale, so this ends.
bool CurlClient::StartAgain(CurlExchange& exchange) {
  curl_multi_remove_handle(multi_, exchange.easy);
  connecting_.Leave(exchange);
  pending_.Leave(exchange);
  exchanges_.LeaveWaiting(exchange);
  exchanges_.Wait(exchange, SteadyClock::now());
  exchange.fresh_connection = true;
  exchange.stop = CurlExchange::Stop::kNone;
  exchange.outcome = Outcome{};
  exchange.head_bytes = 0;
  exchange.on = {};
  return Submit(exchange);
}

// libcurl has begun to make a connection for this exchange.
void CurlClient::BeginConnecting(CurlExchange& exchange) {
  if (connecting_.Has(exchange)) return;
  pending_.Leave(exchange);
  exchange.connecting_since = SteadyClock::now();
  connecting_.Join(exchange);
  if (connecting_.size() == 1) next_nudge_ = exchange.connecting_since + kNudgeInterval;
  // libcurl 8 counts from when it got the exchange, 7.88 from now.
  const auto waited = std::chrono::ceil<std::chrono::milliseconds>(exchange.connecting_since - exchange.waiting_since);
  curl_easy_setopt(exchange.easy, CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>((options_.connect_timeout + waited).count()));
}

// The proof that the request was not sent ends here.
void CurlClient::MaybeSent(CurlExchange& exchange) {
  exchange.sending = Exchange::Sending::kMaybeSent;
  exchanges_.LeaveWaiting(exchange);
}

// libcurl has seen every exchange that was submitted. Over HTTP/2, one that neither got a connection nor began to make
// one is in its pending list, where libcurl 8 would end it with the connect timeout, however busy and healthy the
// connections.
void CurlClient::RelaxPending() {
  for (const ExchangeId id : unseen_) {
    CurlExchange* const exchange = exchanges_.Find(id);
    if (exchange == nullptr || connecting_.Has(*exchange) || exchange->sending != Exchange::Sending::kUnsent) continue;
    curl_easy_setopt(exchange->easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.exchange_timeout.count()));
    if (!pending_.Has(*exchange)) pending_.Join(*exchange);  // one that was started again is in here twice
  }
  unseen_.clear();
}

// ---- the turn

std::optional<SteadyTime> CurlClient::NextTimer() const {
  if (exchanges_.HasEnded()) return SteadyClock::now();
  std::optional<SteadyTime> next = timer_;
  const auto consider = [&next](SteadyTime when) {
    if (!next || when < *next) next = when;
  };
  if (const auto deadline = exchanges_.NextDeadline()) consider(*deadline);
  if (!connecting_.empty()) {
    consider(connecting_.front()->connecting_since + options_.connect_timeout);
  }
  if (MayBeLeftStanding()) consider(next_nudge_);
  if (!pending_.empty() && exchanges_.CountLate() > 0) consider(next_way_);
  if (MaySubmitPending()) consider(SteadyClock::now());
  return next;
}

void CurlClient::Turn() noexcept {
  if (multi_ != nullptr && React() && Nudge(SteadyClock::now())) {
    CollectEnded();
  } else {
    FailAll();
  }
  RelaxPending();
  ApplyDeadlines(SteadyClock::now());
  SubmitPending();
  MakeWay(SteadyClock::now());
  exchanges_.Deliver();  // what these start or cancel ends in a later turn
}

// Tells libcurl of sockets and time. False: the multi handle is broken.
bool CurlClient::React() {
  int running = 0;
  epoll_event events[kCurlEventsPerTurn];
  const int n = epoll_wait(epoll_.get(), events, kCurlEventsPerTurn, 0);
  for (int i = 0; i < n; ++i) {
    int mask = 0;
    if ((events[i].events & EPOLLIN) != 0) mask |= CURL_CSELECT_IN;
    if ((events[i].events & EPOLLOUT) != 0) mask |= CURL_CSELECT_OUT;
    if ((events[i].events & (EPOLLERR | EPOLLHUP)) != 0) mask |= CURL_CSELECT_ERR;
    if (curl_multi_socket_action(multi_, events[i].data.fd, mask, &running) != CURLM_OK) return false;
  }
  if (!timer_ || *timer_ > SteadyClock::now()) return true;
  timer_told_ = false;
  const bool fine = curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running) == CURLM_OK;
  // libcurl speaks only when its earliest timeout has changed. Silence means that it found us early: its clock is not
  // quite ours.
  if (!timer_told_ && timer_) timer_ = SteadyClock::now() + std::chrono::milliseconds(1);
  return fine;
}

// libcurl 7.88 leaves a transfer standing that nothing wakes before its whole time is over, in three cases: it gives an
// address up when its share of the time is over and closes the socket, but does not open the next one; over HTTP/2, now
// and then on a busy machine, it has read what belongs to one transfer while it saw to another of the connection; and
// a nudge takes the alarm away from a transfer of its pending list whose turn came while the nudge lasted, so that the
// next nudge has to find it. libcurl 8 has mended the first; the others were not seen with it.
bool CurlClient::MayBeLeftStanding() const {
  static const bool old = curl_version_info(CURLVERSION_NOW)->version_num < 0x080000;
  if (!old) return false;
  return !connecting_.empty() || (options_.http2 && !exchanges_.empty());
}

bool CurlClient::Nudge(SteadyTime now) {
  if (now < next_nudge_ || !MayBeLeftStanding()) return true;
  next_nudge_ = now + (connecting_.empty() && pending_.empty() ? kSlowNudgeInterval : kNudgeInterval);
  int running = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // deprecated for its cost; nothing else reaches them
  return curl_multi_socket_all(multi_, &running) == CURLM_OK;
#pragma GCC diagnostic pop
}

void CurlClient::CollectEnded() {
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    char* pointer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
    CurlExchange& exchange = *reinterpret_cast<CurlExchange*>(pointer);
    if (exchange.stop == CurlExchange::Stop::kNotQuiet && !exchange.fresh_connection) {
      if (StartAgain(exchange)) continue;
      exchange.stop = CurlExchange::Stop::kInternal;
    }
    End(exchange, code);
  }
}

void CurlClient::ApplyDeadlines(SteadyTime now) {
  const auto end = [this](CurlExchange& exchange) { End(exchange, CURLE_OPERATION_TIMEDOUT); };
  exchanges_.EndTimedOut(now, [&](CurlExchange& exchange) {
    if (!exchanges_.MayListen(exchange)) return end(exchange);
    exchange.BlankLines();
    exchange.body_offset = 0;  // of the body, which is wiped
    exchanges_.MoveToLate(exchange, exchange.DetailFor(CURLE_OPERATION_TIMEDOUT, NotSentCause::kTimeout));
  });
  exchanges_.EndOldLate(now, end);
  while (!connecting_.empty() && connecting_.front()->connecting_since + options_.connect_timeout <= now) {
    end(*connecting_.front());
  }
  exchanges_.EndTiredOfWaiting(now, end);
}

// ---- late exchanges

// An exchange waits when there may be no more connections; over HTTP/2 also while one is being made that may have room
// for it, and there libcurl starts the next of these by itself when an exchange ends.
void CurlClient::MakeWay(SteadyTime now) {
  if (pending_.empty() || exchanges_.CountLate() == 0 || now < next_way_) return;
  const auto most = static_cast<size_t>(options_.max_connections);
  if (options_.http2 && (!connecting_.empty() || sockets_.size() < most)) return;
  next_way_ = now + kWayInterval;
  exchanges_.MakeWay(
      pending_.size(), [](const CurlExchange&) { return true; },
      [this](CurlExchange& exchange) { End(exchange, CURLE_OPERATION_TIMEDOUT); });
}

std::optional<SteadyTime> CurlClient::OldestLate() {
  if (exchanges_.late().empty()) return std::nullopt;
  return exchanges_.late().front().start;
}

void CurlClient::EndOldestLate() {
  exchanges_.MakeWay(
      1, [](const CurlExchange&) { return true; },
      [this](CurlExchange& exchange) { End(exchange, CURLE_OPERATION_TIMEDOUT); });
}

const Stats& CurlClient::stats() const {
  exchanges_.CountInto(stats_);
  return stats_;
}

// ---- how exchanges end

bool CurlClient::CancelUnsent(ExchangeId id) {
  CurlExchange* const exchange = exchanges_.Find(id);
  if (exchange == nullptr || exchange->sending == Exchange::Sending::kMaybeSent || exchange->outcome.status != 0) {
    return false;
  }
  Finish(*exchange, CURLE_ABORTED_BY_CALLBACK, NotSentCause::kCancelled);
  return true;
}

void CurlClient::End(CurlExchange& exchange, CURLcode code) { Finish(exchange, code, exchange.CauseOf(code)); }

void CurlClient::Fail(CurlExchange& exchange) {
  exchange.stop = CurlExchange::Stop::kInternal;
  End(exchange, CURLE_FAILED_INIT);
}

// Takes the exchange out of everything and puts its outcome where the end of the turn finds it.
void CurlClient::Finish(CurlExchange& exchange, CURLcode code, NotSentCause cause) {
  if (exchange.easy != nullptr) {
    curl_multi_remove_handle(multi_, exchange.easy);
    --handles_;
    // After a failure the handle goes: in libcurl 8 a rewind that was refused outlives curl_easy_reset().
    if (code == CURLE_OK && pool_.size() < kPooledHandles) {
      curl_easy_reset(exchange.easy);  // keeps nothing that points into the exchange, and frees what it heard
      pool_.push_back(exchange.easy);
    } else {
      curl_easy_cleanup(exchange.easy);
    }
    exchange.easy = nullptr;
  }
  connecting_.Leave(exchange);
  pending_.Leave(exchange);
  const bool whole = code == CURLE_OK && exchange.answer == Exchange::Answer::kHead &&
                     (exchange.NoBodyAllowed() || exchange.body_length.Fits(exchange.outcome.body.size()));
  exchange.Exchange::Finish(whole ? Exchange::End::kComplete : Exchange::End::kBroken, cause,
                            exchange.DetailFor(code, cause));
  exchange.WipeLines();
  exchanges_.MoveToEnded(exchange);
}

// The multi handle is of no further use (out of memory or descriptors, or a bug): what was not sent is known not to
// have been, the rest is unknown, and the next exchange gets a new one.
void CurlClient::FailAll() {
  exchanges_.ForEach([this](CurlExchange& exchange) { Fail(exchange); });
  for (CURL* easy : pool_) curl_easy_cleanup(easy);  // they refer to the share
  pool_.clear();
  DropMulti();
  for (const auto& [fd, events] : watched_) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.clear();
  if (!MakeMulti()) DropMulti();
}

}  // namespace userintent::http
