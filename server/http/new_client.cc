#include "server/http/new_client.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "server/http/curl_client.h"
#include "server/http/h2_client.h"

namespace userintent::http {
namespace {

constexpr std::chrono::minutes kHttp1Remembered{10};

class AutoClient final : public Client {
 public:
  bool Init(const Options& options) {
    Options http1 = options;
    http1.http2 = false;
    curl_ = NewCurlClient(std::move(http1));
    h2_ = H2Client::Make(options, [this](ExchangeId id, Request request, Done done) {
      http1_until_ = SteadyClock::now() + kHttp1Remembered;
      moved_.emplace(id, StartHttp1(std::move(request), [this, id, done = std::move(done)](Outcome outcome) mutable {
                       moved_.erase(id);
                       done(std::move(outcome));
                     }));
    });
    return curl_ != nullptr && h2_ != nullptr && h2_->Watch(curl_->PollFd());
  }

  // Even ids are h2_'s, odd ones curl_'s.
  ExchangeId Start(Request request, Done done) override {
    if (SteadyClock::now() < http1_until_) return StartHttp1(std::move(request), std::move(done)) * 2 + 1;
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
    if (curl_used_) curl_->Turn();
  }
  size_t InFlight() const override { return h2_->InFlight() + curl_->InFlight(); }
  const Stats& stats() const override {
    stats_ = curl_->stats();
    stats_.exchanges += h2_->stats().exchanges;
    stats_.connections_opened += h2_->stats().connections_opened;
    stats_.headers_ignored += h2_->stats().headers_ignored;
    return stats_;
  }

 private:
  ExchangeId StartHttp1(Request request, Done done) {
    curl_used_ = true;
    return curl_->Start(std::move(request), std::move(done));
  }

  std::unordered_map<ExchangeId, ExchangeId> moved_;  // from h2_ to curl_, and not ended yet
  SteadyTime http1_until_{};
  bool curl_used_ = false;
  mutable Stats stats_;
  std::unique_ptr<Client> curl_;
  std::unique_ptr<H2Client> h2_;
};

}  // namespace

std::unique_ptr<Client> NewClient(Options options) {
  if (options.transport == Transport::kLibcurl) return NewCurlClient(std::move(options));
  if (options.transport == Transport::kNghttp2) return H2Client::Make(std::move(options));
  if (!options.http2) return NewCurlClient(std::move(options));
  auto client = std::make_unique<AutoClient>();
  if (!client->Init(options)) return nullptr;
  return client;
}

}  // namespace userintent::http
