// What the tests of the clients share: a client that is turned as its owner would, the name look-ups of the program,
// and what to expect of an outcome. Single-threaded but for the look-ups, which the resolvers' threads make.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/http/auto_client.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {

using std::chrono::milliseconds;

constexpr char kBody[] = R"({"email":"someone@example.com"})";

// What every client must do is tested with each of these.
struct Kind {
  const char* name;
  Transport transport;
  bool http2;  // what the peer speaks
  Method method = Method::kPost;
};
constexpr Kind kKinds[] = {
    {"Nghttp2", Transport::kNghttp2, true},
    {"LibcurlHttp2", Transport::kLibcurl, true},
    {"LibcurlHttp1", Transport::kLibcurl, false},
    {"AutoHttp2", Transport::kAuto, true},
    {"AutoHttp1", Transport::kAuto, false},
    {"Nghttp2Get", Transport::kNghttp2, true, Method::kGet},
    {"LibcurlHttp2Get", Transport::kLibcurl, true, Method::kGet},
    {"LibcurlHttp1Get", Transport::kLibcurl, false, Method::kGet},
    {"AutoHttp2Get", Transport::kAuto, true, Method::kGet},
    {"AutoHttp1Get", Transport::kAuto, false, Method::kGet},
};
// Those of `kinds` for which `condition` holds.
template <class Condition>
std::vector<Kind> KindsThat(Condition condition) {
  std::vector<Kind> kinds;
  std::copy_if(std::begin(kKinds), std::end(kKinds), std::back_inserter(kinds), condition);
  return kinds;
}

// Name look-ups of a program with lookups.cc in it: `slow.example.test` takes until this event, `two.example.test` is
// 127.0.0.2 and then 127.0.0.1, `nowhere.example.test` is nothing, and `turning.example.test` what `turning_address`
// says when it is asked.
extern std::atomic<Event*> slow_lookup;
extern std::atomic<int> lookups_begun, lookups_ended;
extern std::atomic<const char*> turning_address;
extern std::atomic<int> turning_lookups;

// This process's sockets that are connected to `port`.
inline std::vector<int> SocketsTo(int port) {
  std::vector<int> sockets;
  for (int fd = 0; fd < 1024; ++fd) {
    sockaddr_in name{};
    socklen_t size = sizeof(name);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) continue;
    if (name.sin_family == AF_INET && ntohs(name.sin_port) == port) sockets.push_back(fd);
  }
  return sockets;
}

// Waits until all connections from this process to `port` have something to read, be it their end. What a peer has
// written need not have arrived yet, and these tests are about what has.
inline bool BytesArrived(int port) {
  for (const int fd : SocketsTo(port)) {
    pollfd readable{fd, POLLIN, 0};
    if (poll(&readable, 1, 30000) != 1) return false;
  }
  return true;
}

struct Call {
  Client::ExchangeId id = 0;
  int done = 0;
  Outcome outcome;
};

class Harness {
 public:
  explicit Harness(Options options, Method method = Method::kPost)
      : method_(method), client_(*CreateClient(std::move(options))) {}
  explicit Harness(std::unique_ptr<Client> client) : client_(std::move(client)) {}

  Client& client() { return *client_; }
  void DestroyClient() { client_.reset(); }

  static Request MakeRequest(std::string body = kBody) {
    return Request{"/v1/user_intent",
                   {{"Content-Type", "application/json"}, {"Authorization", "Basic dGVzdDp0ZXN0"}},
                   std::move(body)};
  }
  static Request MakeGet(const std::string& id = "1") {
    Request request;
    request.method = Method::kGet;
    request.path = "/v1/user_intent/" + id;
    request.headers = {{"Accept", "application/json"}, {"Authorization", "Basic dGVzdDp0ZXN0"}};
    return request;
  }
  Call& Start() { return Start(method_ == Method::kGet ? MakeGet() : MakeRequest()); }
  Call& Start(Request request) {
    Call& call = calls_.emplace_back();
    call.id = client_->Start(std::move(request), [&call](Outcome outcome) {
      ++call.done;
      call.outcome = std::move(outcome);
    });
    EXPECT_EQ(call.done, 0) << "Done must not run inside Start()";
    return call;
  }

  // Turns the client as its owner would, until `until` holds.
  template <class Predicate>
  bool RunUntil(Predicate until) {
    const auto give_up = SteadyClock::now() + std::chrono::seconds(30);
    while (!until()) {
      const auto now = SteadyClock::now();
      if (now > give_up) return false;
      milliseconds wait(50);  // the predicate may be about a peer
      if (const auto timer = client_->NextTimer()) {
        wait = std::min(wait, std::chrono::ceil<milliseconds>(std::max(*timer - now, SteadyClock::duration::zero())));
      }
      pollfd fd{client_->PollFd(), POLLIN, 0};
      poll(&fd, 1, static_cast<int>(wait.count()));
      client_->Turn();
    }
    return true;
  }
  void RunFor(milliseconds time) {
    const auto end = SteadyClock::now() + time;
    RunUntil([&] { return SteadyClock::now() >= end; });
  }
  // The same for an owner who does nothing else: if the client forgets to be woken, nobody wakes it.
  template <class Predicate>
  bool RunAlone(Predicate until) {
    const auto give_up = SteadyClock::now() + std::chrono::seconds(30);
    while (!until()) {
      const auto now = SteadyClock::now();
      const auto next = std::min(client_->NextTimer().value_or(give_up), give_up);
      if (now > give_up) return false;
      pollfd fd{client_->PollFd(), POLLIN, 0};
      const auto wait = std::chrono::ceil<milliseconds>(std::max(next - now, SteadyClock::duration::zero()));
      poll(&fd, 1, static_cast<int>(wait.count()));
      client_->Turn();
    }
    return true;
  }
  Outcome& Finish(Call& call) {
    EXPECT_TRUE(RunUntil([&] { return call.done > 0; })) << "the exchange did not end";
    EXPECT_EQ(call.done, 1);
    return call.outcome;
  }
  Outcome& Ask() { return Finish(Start()); }

 private:
  const Method method_ = Method::kPost;
  std::deque<Call> calls_;  // outlives the client
  std::unique_ptr<Client> client_;
};

inline Options Http1(const std::string& origin) {
  Options options;
  options.origin = origin;
  options.ca_file = TestCaFile();
  options.loopback_ok = true;
  options.http2 = false;
  options.transport = Transport::kLibcurl;
  options.connect_timeout = std::chrono::seconds(20);
  options.exchange_timeout = std::chrono::seconds(25);
  return options;
}
inline Options Http1(const TlsServer& server) { return Http1(server.origin()); }
inline Options Http2(const TlsServer& server) {
  Options options = Http1(server);
  options.http2 = true;
  return options;
}

// For a client of that kind.
inline Options OptionsFor(const Kind& kind, const std::string& origin) {
  Options options = Http1(origin);
  options.transport = kind.transport;
  options.http2 = kind.http2 || kind.transport != Transport::kLibcurl;
  options.reuse_http1 = false;
  return options;
}

inline void ExpectAnswered(const Outcome& outcome, int status, const std::string& body) {
  EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
  EXPECT_EQ(outcome.status, status);
  EXPECT_TRUE(outcome.body_complete) << outcome.detail;
  EXPECT_EQ(outcome.body, body);
}
inline void ExpectNotSent(const Outcome& outcome, NotSentCause cause) {
  EXPECT_EQ(outcome.fate, Fate::kNotSent) << outcome.detail;
  EXPECT_EQ(outcome.cause, cause) << outcome.detail;
  EXPECT_EQ(outcome.status, 0);
}
inline void ExpectMaybeSent(const Outcome& outcome) {
  EXPECT_EQ(outcome.fate, Fate::kMaybeSent) << outcome.detail;
  EXPECT_EQ(outcome.cause, NotSentCause::kNone);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_FALSE(outcome.body_complete);
}

// An address that swallows what is sent to it: its listener's queue is full.
class BlackHole {
 public:
  BlackHole(const char* ip, int port) {
    address_.sin_family = AF_INET;
    address_.sin_port = htons(static_cast<uint16_t>(port));
    inet_pton(AF_INET, ip, &address_.sin_addr);
    sockets_.push_back(socket(AF_INET, SOCK_STREAM, 0));
    const int on = 1;
    setsockopt(sockets_[0], SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    EXPECT_EQ(bind(sockets_[0], reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)), 0);
    EXPECT_EQ(listen(sockets_[0], 0), 0);
    for (bool full = false; !full && sockets_.size() < 20;) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      sockets_.push_back(fd);
      connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof(address_));
      pollfd connected{fd, POLLOUT, 0};
      full = poll(&connected, 1, 200) == 0;
    }
    EXPECT_LT(sockets_.size(), 20u);
  }
  ~BlackHole() {
    for (const int fd : sockets_) close(fd);
  }

 private:
  sockaddr_in address_{};
  std::vector<int> sockets_;
};

}  // namespace userintent::http
