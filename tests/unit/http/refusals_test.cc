// What the clients learn from a peer that refuses: to spread over connections, and when to speak HTTP/1.1 instead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/http/pace.h"
#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using std::chrono::seconds;

// ---- the lesson itself

TEST(Pace, LearnsTheSmallestAndForgetsByDoubling) {
  const SteadyTime start{seconds(1000)};
  Pace pace;
  EXPECT_EQ(pace.AtOnce(start), Pace::kNoLimit);
  EXPECT_EQ(pace.NextLift(), std::nullopt);
  pace.OnRefused(9, start);
  pace.OnRefused(5, start);
  pace.OnRefused(7, start);
  EXPECT_EQ(pace.AtOnce(start), 5u);
  EXPECT_EQ(pace.InAll(start), Pace::kNoLimit);
  EXPECT_EQ(pace.NextLift(), start + seconds(1));
  EXPECT_EQ(pace.AtOnce(start + milliseconds(999)), 5u);
  EXPECT_EQ(pace.AtOnce(start + seconds(1)), 10u);
  EXPECT_EQ(pace.AtOnce(start + seconds(3)), 40u);
  EXPECT_EQ(pace.AtOnce(start + seconds(60)), Pace::kNoLimit);
  EXPECT_EQ(pace.NextLift(), std::nullopt);
}

TEST(Pace, APeerThatTakesNoneIsStillAskedForOne) {
  const SteadyTime start{seconds(1000)};
  Pace pace;
  pace.OnRefused(0, start);
  EXPECT_EQ(pace.AtOnce(start), 1u);
  pace.OnGoAway(0, start);  // it went; how many it would take is not said
  EXPECT_EQ(pace.InAll(start), Pace::kNoLimit);
  pace.OnGoAway(10, start);
  EXPECT_EQ(pace.InAll(start), 10u);
}

// ---- refusals that are repeated as the caller of the client does it

class Refusals : public ::testing::TestWithParam<Method> {
 protected:
  class Harness : public http::Harness {  // asks with the method that is tested
   public:
    explicit Harness(Options options) : http::Harness(std::move(options), GetParam()) {}
  };
};
INSTANTIATE_TEST_SUITE_P(Methods, Refusals, ::testing::Values(Method::kPost, Method::kGet),
                         [](const auto& param) { return std::string(param.param == Method::kPost ? "Post" : "Get"); });

// A request of the tested method that can be told from others.
Request Named(const std::string& name) {
  return Refusals::GetParam() == Method::kGet ? Harness::MakeGet(name) : Harness::MakeRequest(name);
}

// A peer that speaks both versions, as it is asked.
struct BothServer {
  using OnH2 = std::function<void(H2Peer&, int connection, int32_t stream, int count)>;
  explicit BothServer(OnH2 act, std::string alpn = "h2,http/1.1")
      : server(Settings(std::move(alpn)), [this, act](TlsPeer& peer) {
          if (peer.alpn() == "h2") {
            H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int count) { act(h, peer.index(), stream, count); });
            return h2.Run();
          }
          if (!peer.ReadRequest()) return;
          ++by_http1;
          peer.Write("HTTP/1.1 201 X\r\nContent-Length: 3\r\n\r\none");
          peer.WaitForPeerToLeave();
        }) {}
  static TlsServer::Settings Settings(std::string alpn) {
    TlsServer::Settings settings;
    settings.alpn = std::move(alpn);
    return settings;
  }
  std::atomic<int> by_http1{0};
  TlsServer server;
};

Options For(const BothServer& peer, Transport transport) {
  Options options = Http1(peer.server);
  options.http2 = true;
  options.transport = transport;
  options.reuse_http1 = false;
  return options;
}

// Tries again at once while refused, six times in all; says after how many tries it ended.
class Persistent {
 public:
  Persistent(Harness& harness, std::string name) : harness_(harness), name_(std::move(name)) { Try(); }
  bool done() const { return done_; }
  int tries() const { return tries_; }
  const Outcome& outcome() const { return outcome_; }

 private:
  void Try() {
    ++tries_;
    harness_.client().Start(Named(name_), [this](Outcome outcome) {
      if (outcome.fate == Fate::kRefused && tries_ < 6) return Try();
      outcome_ = std::move(outcome);
      done_ = true;
    });
  }

  Harness& harness_;
  const std::string name_;
  int tries_ = 0;
  bool done_ = false;
  Outcome outcome_;
};

// Takes ten requests a connection and says so in a GOAWAY.
TEST_P(Refusals, AnEdgeThatChangesConnectionsServesAWholeBurst) {
  for (const Transport transport : {Transport::kNghttp2, Transport::kAuto}) {
    std::mutex mutex;
    std::map<std::string, int> processed;
    BothServer peer([&](H2Peer& h2, int, int32_t stream, int count) {
      if (count >= 10) return;
      {
        const std::lock_guard lock(mutex);
        ++processed[h2.Received(stream).head + h2.Received(stream).body];
      }
      h2.Answer(stream, 201, "ok");
      if (count == 9) h2.GoAway(stream, NGHTTP2_NO_ERROR);
    });
    Harness harness(For(peer, transport));
    std::vector<std::unique_ptr<Persistent>> calls;
    for (int i = 0; i < 100; ++i) calls.push_back(std::make_unique<Persistent>(harness, std::to_string(i)));
    for (const auto& call : calls) {
      ASSERT_TRUE(harness.RunUntil([&] { return call->done(); }));
      EXPECT_EQ(call->outcome().fate, Fate::kAnswered) << call->outcome().detail;
      EXPECT_LE(call->tries(), 3) << "the second round is spread over connections";
    }
    const std::lock_guard lock(mutex);
    EXPECT_EQ(processed.size(), 100u);
    for (const auto& [request, times] : processed) EXPECT_EQ(times, 1) << "processed twice";
  }
}

// Promises a hundred streams and takes ten at first.
TEST_P(Refusals, WhoeverWasRefusedIsSpreadOverConnections) {
  BothServer peer([](H2Peer& h2, int connection, int32_t stream, int count) {
    if (connection == 0 && count >= 10) return h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM);
    h2.Answer(stream, 201, "ok");
  });
  Harness harness(For(peer, Transport::kNghttp2));
  std::vector<std::unique_ptr<Persistent>> calls;
  for (int i = 0; i < 100; ++i) calls.push_back(std::make_unique<Persistent>(harness, std::to_string(i)));
  for (const auto& call : calls) {
    ASSERT_TRUE(harness.RunUntil([&] { return call->done(); }));
  }
  EXPECT_GE(peer.server.accepted, 5);
}

// ---- HTTP/1.1 instead

TEST_P(Refusals, WhoAsksForHttp1GetsItFromTheNextOn) {
  BothServer peer([](H2Peer& h2, int, int32_t stream, int) { h2.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED); });
  Options options = For(peer, Transport::kAuto);
  options.http1_period = std::make_shared<Http1Period>();
  Harness harness(options);
  ExpectMaybeSent(harness.Ask());  // it came whole, and RFC 9113 does not say that it was not processed
  for (int i = 0; i < 3; ++i) ExpectAnswered(harness.Ask(), 201, "one");
  EXPECT_EQ(peer.server.requests, 4);
  Harness other(options);  // another shard need not lose one of its own
  ExpectAnswered(other.Ask(), 201, "one");
  EXPECT_EQ(peer.server.requests, 5);
  EXPECT_EQ(peer.by_http1, 4);
}

TEST_P(Refusals, AConnectionThatAsksForHttp1AndLeavesStreamsOutProvesThemUnprocessed) {
  BothServer peer([](H2Peer& h2, int, int32_t, int) {
    h2.GoAway(0, NGHTTP2_HTTP_1_1_REQUIRED);
    h2.Stop();
  });
  Harness harness(For(peer, Transport::kAuto));
  EXPECT_EQ(harness.Ask().fate, Fate::kRefused);
  ExpectAnswered(harness.Ask(), 201, "one");
  EXPECT_EQ(peer.by_http1, 1);
}

TEST_P(Refusals, WhoeverStillWaitsForHttp2IsServedByHttp1) {
  BothServer peer([](H2Peer& h2, int, int32_t stream, int) { h2.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED); });
  Options options = For(peer, Transport::kAuto);
  options.max_connections = 1;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 300; ++i) calls.push_back(&harness.Start());  // more than its connection takes at once
  int lost = 0;
  int answered = 0;
  for (Call* call : calls) {
    const Outcome& outcome = harness.Finish(*call);
    lost += outcome.fate == Fate::kMaybeSent ? 1 : 0;
    answered += outcome.fate == Fate::kAnswered ? 1 : 0;
  }
  EXPECT_EQ(lost + answered, 300);
  EXPECT_GT(answered, 0);
  EXPECT_EQ(peer.server.requests, 300);
}

TEST_P(Refusals, APeerThatKeepsRefusingIsSpokenToInHttp1) {
  BothServer peer([](H2Peer& h2, int, int32_t stream, int) { h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM); });
  Harness harness(For(peer, Transport::kAuto));
  for (int i = 0; i < 7; ++i) EXPECT_EQ(harness.Ask().fate, Fate::kRefused) << i;
  ExpectAnswered(harness.Ask(), 201, "one");
  EXPECT_EQ(peer.server.requests, 8);
}

TEST_P(Refusals, OneThatAnswersInBetweenIsMerelyBusy) {
  std::atomic<int> n{0};
  BothServer peer([&](H2Peer& h2, int, int32_t stream, int) {
    if (n++ % 5 == 4) return h2.Answer(stream, 201, "two");
    h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM);
  });
  Harness harness(For(peer, Transport::kAuto));
  for (int i = 0; i < 20; ++i) harness.Ask();
  EXPECT_EQ(peer.by_http1, 0);
}

// Bytes of HTTP/1.1 must not reach a peer that reads them as HTTP/2: what becomes of those nobody could tell.
TEST_P(Refusals, APeerWithoutHttp1IsSentNothingAndAskedInHttp2Again) {
  BothServer peer([](H2Peer& h2, int, int32_t stream, int) { h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM); }, "h2");
  Harness harness(For(peer, Transport::kAuto));
  for (int i = 0; i < 7; ++i) EXPECT_EQ(harness.Ask().fate, Fate::kRefused) << i;
  const Outcome& outcome = harness.Ask();
  ExpectNotSent(outcome, NotSentCause::kTls);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(harness.Ask().fate, Fate::kRefused) << i;
  EXPECT_EQ(peer.server.requests, 17);
  EXPECT_EQ(peer.by_http1, 0);
}

TEST_P(Refusals, OnlyTheAutomaticTransportChanges) {
  BothServer peer([](H2Peer& h2, int, int32_t stream, int) { h2.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED); });
  Harness nghttp2(For(peer, Transport::kNghttp2));
  for (int i = 0; i < 3; ++i) ExpectMaybeSent(nghttp2.Ask());
  Harness libcurl(For(peer, Transport::kLibcurl));
  ExpectMaybeSent(libcurl.Ask());
  EXPECT_EQ(peer.by_http1, 0);
  EXPECT_EQ(peer.server.requests, 4);
}

}  // namespace
}  // namespace userintent::http
