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

#include <sys/epoll.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/base/descriptor.h"
#include "server/http/client.h"
#include "server/http/exchanges.h"
#include "server/http/h2_connection.h"
#include "server/http/h2_exchange.h"
#include "server/http/h2_session.h"
#include "server/http/tls_context.h"
#include "server/net/resolver.h"

namespace userintent::http {

enum class Http1Reason {
  kNone,
  kRequired,       // HTTP_1_1_REQUIRED, for a stream or the connection
  kKeepsRefusing,  // it refuses every stream, also of those who try again, and answers none
};

class H2Client final : public Client, private H2Session::Owner {
 public:
  // Takes over an exchange for which the origin offers no HTTP/2. Called from Turn(), with nothing sent.
  using OnNoHttp2 = absl::AnyInvocable<void(ExchangeId id, Request request, Done done)>;

  // Without `on_no_http2` only h2 is offered, and such an exchange ends as kNotSent/kTls; with it http/1.1 is offered
  // as well. Fails when the process is out of descriptors or memory.
  static absl::StatusOr<std::unique_ptr<H2Client>> Create(Options options, OnNoHttp2 on_no_http2 = nullptr,
                                                          H2Tuning tuning = {});
  H2Client(const H2Client&) = delete;
  H2Client& operator=(const H2Client&) = delete;

  ExchangeId Start(Request request, Done done) override;
  bool CancelUnsent(ExchangeId id) override;
  int PollFd() const override { return epoll_.get(); }
  std::optional<SteadyTime> NextTimer() const override;
  void Turn() noexcept override;
  const Stats& stats() const override;

  // When the oldest late exchange began; it gives way to another client's.
  std::optional<SteadyTime> OldestLate();
  void EndOldestLate();

  // Whether, since it was last asked, the peer has given a reason to speak HTTP/1.1 with it, though it takes h2 by
  // ALPN.
  Http1Reason TakeHttp1Reason();
  // Gives away what waits to be sent, to `on_no_http2`, which must be there. Outside of Turn() only.
  void HandOver();

  // Makes PollFd() readable when `fd` is; false if that cannot be.
  bool Watch(int fd);

 private:
  // What speaks for more connections.
  struct Need {
    size_t unplaced = 0;    // exchanges that wait, and for which the connections have no room
    size_t each = 1;        // how many of them another connection is likely to take
    size_t wanted = 0;      // by those that wait, or by age
    size_t connecting = 0;  // attempts under way
    size_t kept = 0;        // connections that are there to stay
    size_t open = 0;        // all but those that only listen for late answers
  };

  H2Client(H2Settings settings, OnNoHttp2 on_no_http2)
      : settings_(std::move(settings)), on_no_http2_(std::move(on_no_http2)), exchanges_(settings_.options) {}
  absl::Status Init();

  void OnEnded(H2Exchange& exchange, Exchange::End end, std::string_view detail) override;
  void OnLeaseOver(H2Exchange& exchange) override;
  void OnFieldIgnored() override { ++stats_.headers_ignored; }
  void OnHttp1Required() override { http1_required_ = true; }

  void End(H2Exchange& exchange, Exchange::End end, NotSentCause cause, std::string_view detail);
  void End(H2Exchange& exchange, Exchange::End end, NotSentCause cause);
  void FailWaiting(const H2Failure& failure);
  void CountRefusal(const H2Exchange& exchange);
  void TakeLookup(SteadyTime now);
  void Settle(SteadyTime now);
  void TellOpened(const H2Connection& connection);
  void ApplyDeadlines(SteadyTime now);
  void ListenOn(H2Exchange& exchange);
  void EndLate(H2Exchange& exchange);
  void MakeWay(SteadyTime now);
  void LimitListening();
  void Dispatch(SteadyTime now);
  Need CountNeed(SteadyTime now);
  bool HasPlace(const Need& need) const;
  void OpenConnections(SteadyTime now);
  void LookUp(SteadyTime now);
  void OnAttemptFailed(const H2Failure& failure, SteadyTime now);
  size_t CountConnecting() const;
  bool AnyUsable() const;

  H2Settings settings_;  // whole after Init
  OnNoHttp2 on_no_http2_;
  const Descriptor epoll_{epoll_create1(EPOLL_CLOEXEC)};
  bool valid_origin_ = false;
  std::unique_ptr<TlsContext> tls_;
  std::unique_ptr<net::Resolver> resolver_;
  bool watching_resolver_ = false;
  std::string scratch_;

  Exchanges<H2Exchange> exchanges_;  // outlives the connections, whose sessions point to them
  Pace pace_;
  std::vector<std::unique_ptr<H2Connection>> connections_;
  size_t usual_limit_ = 0;               // streams that the last connection took; 0: not known yet
  std::optional<SteadyTime> resolving_;  // since when an attempt waits for the name
  SteadyTime next_attempt_{};            // not before, while other connections are in use

  bool http1_required_ = false;
  int refused_rounds_ = 0;   // since the last answer
  SteadyTime last_round_{};  // when the last of them ended
  bool fresh_ = false;       // something was queued since the last turn
  mutable Stats stats_;
};

}  // namespace userintent::http
