// The http::Client on nghttp2 and OpenSSL, for an origin that speaks HTTP/2: few connections, many streams, and every
// frame of a turn in one write per connection.
//
// An H2Client belongs to the thread that calls it; see client.h for the rules. It owns the connections, the TLS
// sessions, the name look-up and the exchanges; requests and their secrets are wiped as they leave. Inside a Done
// callback Start() and CancelUnsent() may be called, but the client must not be destroyed.
//
// What it proves: "not sent" until the first byte of a stream's HEADERS is given to TLS, and "refused" when the peer
// says so and has answered nothing. It sends nothing twice.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/http/client.h"
#include "server/http/h2_connection.h"
#include "server/http/tls_context.h"
#include "server/net/resolver.h"

namespace userintent::http {

enum class Http1Reason {
  kNone,
  kRequired,       // HTTP_1_1_REQUIRED, for a stream or the connection
  kKeepsRefusing,  // it refuses every stream, also of those who try again, and answers none
};

class H2Client final : public Client, private H2Connection::Owner {
 public:
  // Takes over an exchange for which the origin offers no HTTP/2. Called from Turn(), with nothing sent.
  using OnNoHttp2 = absl::AnyInvocable<void(ExchangeId id, Request request, Done done)>;

  // Without `on_no_http2` only h2 is offered, and such an exchange ends as kNotSent/kTls; with it http/1.1 is offered
  // as well. Null when the process is out of descriptors or memory.
  static std::unique_ptr<H2Client> Make(Options options, OnNoHttp2 on_no_http2 = nullptr, H2Tuning tuning = {});
  ~H2Client() override;
  H2Client(const H2Client&) = delete;
  H2Client& operator=(const H2Client&) = delete;

  ExchangeId Start(Request request, Done done) override;
  bool CancelUnsent(ExchangeId id) override;
  int PollFd() const override { return epoll_; }
  std::optional<SteadyTime> NextTimer() const override;
  void Turn() noexcept override;
  size_t InFlight() const override { return exchanges_.size() + finished_.size(); }
  const Stats& stats() const override { return stats_; }

  // Whether, since it was last asked, the peer has given a reason to speak HTTP/1.1 with it, though it takes h2 by
  // ALPN.
  Http1Reason TakeHttp1Reason();
  // Gives away what waits to be sent, to `on_no_http2`, which must be there. Outside of Turn() only.
  void HandOver();

  // Makes PollFd() readable when `fd` is; false if that cannot be.
  bool Watch(int fd);

 private:
  using Exchanges = std::list<H2Exchange>;

  H2Client(H2Settings settings, OnNoHttp2 on_no_http2)
      : settings_(std::move(settings)), on_no_http2_(std::move(on_no_http2)) {}
  bool Init();

  void OnEnded(H2Exchange& exchange, bool complete, std::string_view detail) override;
  void OnFieldIgnored() override { ++stats_.headers_ignored; }
  void OnHttp1Required() override { http1_required_ = true; }

  void End(H2Exchange& exchange, NotSentCause cause, std::string_view detail, bool complete = false);
  void FailQueued(NotSentCause cause, std::string_view detail);
  void CountRefusal(const H2Exchange& exchange);
  void TakeLookup(SteadyTime now);
  void Settle(SteadyTime now);
  void ApplyDeadlines(SteadyTime now);
  void Dispatch(SteadyTime now);
  void OpenConnections(SteadyTime now);
  void OnAttemptFailed(const H2Connection::Failure& failure, SteadyTime now);
  size_t CountConnecting() const;
  bool AnyUsable() const;
  std::optional<SteadyTime> WaitDeadline() const;

  H2Settings settings_;  // whole after Init
  OnNoHttp2 on_no_http2_;
  int epoll_ = -1;
  bool valid_origin_ = false;
  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<net::Resolver> resolver_;
  bool watching_resolver_ = false;
  std::string scratch_;

  std::vector<std::unique_ptr<H2Connection>> connections_;
  Pace pace_;
  size_t usual_limit_ = 0;               // streams that the last connection took; 0: not known yet
  std::optional<SteadyTime> resolving_;  // since when an attempt waits for the name
  SteadyTime next_attempt_{};            // not before, while other connections are in use

  ExchangeId last_id_ = 0;
  Exchanges queued_;  // in order of `start`
  Exchanges sent_;    // the same, because exchanges are sent in their order
  std::unordered_map<ExchangeId, Exchanges::iterator> exchanges_;
  bool http1_required_ = false;
  int refused_rounds_ = 0;   // since the last answer
  SteadyTime last_round_{};  // when the last of them ended
  bool fresh_ = false;       // something was queued since the last turn
  SteadyTime idle_since_{};  // when the last exchange that had been sent ended
  std::vector<std::pair<Done, Outcome>> finished_;
  Stats stats_;
};

}  // namespace userintent::http
