#include "server/http/auto_client.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "server/http/curl_client.h"
#include "server/http/h2_client.h"

namespace userintent::http {
namespace {

// For how long HTTP/1.1 is spoken with a peer that does not offer HTTP/2, or asks not to be spoken to in it.
constexpr std::chrono::minutes kHttp1Remembered{10};
// The latter costs a person each time that HTTP/2 is tried again, so the time doubles up to this.
constexpr std::chrono::hours kHttp1Longest{24};
// With one that keeps refusing streams: it may only have been busy.
constexpr std::chrono::minutes kHttp1AfterRefusals{1};

class AutoClient final : public Client {
 public:
  absl::Status Init(const Options& options) {
    max_late_ = options.max_late;
    period_ = options.http1_period ? options.http1_period : std::make_shared<Http1Period>();
    Options http1 = options;
    http1.http2 = false;
    auto curl = CurlClient::Create(std::move(http1));
    if (!curl.ok()) return curl.status();
    curl_ = *std::move(curl);
    auto h2 = H2Client::Create(options, [this](ExchangeId id, Request request, Done done) {
      if (!moving_) SpeakHttp1(kHttp1Remembered, false);
      moved_.emplace(id, StartHttp1(std::move(request), [this, id, done = std::move(done)](Outcome outcome) mutable {
                       moved_.erase(id);
                       done(std::move(outcome));
                     }));
    });
    if (!h2.ok()) return h2.status();
    h2_ = *std::move(h2);
    if (!h2_->Watch(curl_->PollFd())) return absl::ResourceExhaustedError("HTTP client: epoll takes no more");
    return absl::OkStatus();
  }

  // Even ids are h2_'s, odd ones curl_'s.
  ExchangeId Start(Request request, Done done) override {
    if (SpeaksHttp1()) return StartHttp1(std::move(request), std::move(done)) * 2 + 1;
    return h2_->Start(std::move(request), std::move(done)) * 2;
  }
  bool CancelUnsent(ExchangeId id) override {
    if (id % 2 == 1) return curl_->CancelUnsent(id / 2);
    const auto moved = moved_.find(id / 2);
    return moved != moved_.end() ? curl_->CancelUnsent(moved->second) : h2_->CancelUnsent(id / 2);
  }
  int PollFd() const override { return h2_->PollFd(); }
  std::optional<SteadyTime> NextTimer() const override {
    const auto h2 = h2_->NextTimer();
    const auto curl = curl_->NextTimer();
    return h2 && curl ? std::min(h2, curl) : h2 ? h2 : curl;
  }
  void Turn() noexcept override {
    h2_->Turn();
    LookWhetherHttp2Works();
    if (!curl_used_) return;
    curl_->Turn();
    LimitLate();
  }
  const Stats& stats() const override {
    stats_ = curl_->stats();
    if (!SpeaksHttp1() && h2_->stats().connections_opened > 0) stats_.peer_end = h2_->stats().peer_end;
    stats_.exchanges += h2_->stats().exchanges;
    stats_.connections_opened += h2_->stats().connections_opened;
    stats_.headers_ignored += h2_->stats().headers_ignored;
    stats_.late_now += h2_->stats().late_now;
    stats_.late_silent += h2_->stats().late_silent;
    stats_.late_lost += h2_->stats().late_lost;
    stats_.late_gave_way += h2_->stats().late_gave_way;
    return stats_;
  }

 private:
  bool SpeaksHttp1() const {
    return SteadyClock::now().time_since_epoch().count() < period_->until.load(std::memory_order_acquire);
  }
  void SpeakHttp1(SteadyClock::duration time, bool takes_h2) {
    period_->takes_h2.store(takes_h2, std::memory_order_relaxed);
    period_->until.store((SteadyClock::now() + time).time_since_epoch().count(), std::memory_order_release);
  }

  void LookWhetherHttp2Works() {
    const Http1Reason reason = h2_->TakeHttp1Reason();
    if (reason == Http1Reason::kNone || SteadyClock::now() < no_http1_until_) return;
    if (reason == Http1Reason::kRequired) {
      SpeakHttp1(required_for_, true);
      required_for_ = std::min<SteadyClock::duration>(required_for_ * 2, kHttp1Longest);
    } else {
      SpeakHttp1(kHttp1AfterRefusals, true);
    }
    moving_ = true;
    h2_->HandOver();
    moving_ = false;
  }

  // Each of the two keeps to the limit; here both together do.
  void LimitLate() {
    while (h2_->stats().late_now + curl_->stats().late_now > max_late_) {
      const auto h2 = h2_->OldestLate();
      const auto curl = curl_->OldestLate();
      if (!curl || (h2 && *h2 <= *curl)) {
        h2_->EndOldestLate();
      } else {
        curl_->EndOldestLate();
      }
    }
  }

  ExchangeId StartHttp1(Request request, Done done) {
    curl_used_ = true;
    if (!period_->takes_h2.load(std::memory_order_relaxed)) return curl_->Start(std::move(request), std::move(done));
    // Bytes of HTTP/1.1 on a connection that is read as HTTP/2 would be a loss that looks like any other, so
    // the peer has to agree first. One that does not is asked in HTTP/2 again, by the next try.
    request.needs_http1_alpn = true;
    return curl_->Start(std::move(request), [this, done = std::move(done)](Outcome outcome) mutable {
      if (outcome.fate == Fate::kNotSent && outcome.cause == NotSentCause::kTls) {
        period_->until.store(0, std::memory_order_release);
        no_http1_until_ = SteadyClock::now() + kHttp1Remembered;
      }
      done(std::move(outcome));
    });
  }

  std::unordered_map<ExchangeId, ExchangeId> moved_;  // from h2_ to curl_, and not ended yet
  std::shared_ptr<Http1Period> period_;
  SteadyClock::duration required_for_ = kHttp1Remembered;
  SteadyTime no_http1_until_{};  // it does not take HTTP/1.1 either
  size_t max_late_ = 0;
  bool moving_ = false;
  bool curl_used_ = false;
  mutable Stats stats_;
  std::unique_ptr<CurlClient> curl_;
  std::unique_ptr<H2Client> h2_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> CreateClient(Options options) {
  if (options.transport == Transport::kNghttp2) return H2Client::Create(std::move(options));
  if (options.transport == Transport::kLibcurl || !options.http2) return CurlClient::Create(std::move(options));
  auto client = std::make_unique<AutoClient>();
  if (absl::Status status = client->Init(options); !status.ok()) return status;
  return client;
}

}  // namespace userintent::http
