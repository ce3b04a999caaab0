// Late answers: an exchange that had its time is listened to on, whichever client carries it, and is in nobody's way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/http/any_server.h"
#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

struct LateCall {
  Client::ExchangeId id = 0;
  int done = 0;
  Outcome outcome;
  int late = 0;
  Outcome late_outcome;
};

class LateAnswers : public ::testing::TestWithParam<Kind> {
 protected:
  static Options For(const TlsServer& server) {
    Options options = OptionsFor(GetParam(), server.origin());
    options.exchange_timeout = milliseconds(1000);
    options.late_window = std::chrono::seconds(60);
    return options;
  }
  static bool Libcurl2() { return GetParam().transport == Transport::kLibcurl && GetParam().http2; }

  LateCall& Start(Harness& harness, std::string body = kBody) {
    LateCall& call = calls_.emplace_back();
    Request request = Harness::MakeRequest(std::move(body));
    request.on_late = [&call](Outcome outcome) {
      EXPECT_EQ(call.done, 1);
      ++call.late;
      call.late_outcome = std::move(outcome);
    };
    call.id = harness.client().Start(std::move(request), [&call](Outcome outcome) {
      ++call.done;
      call.outcome = std::move(outcome);
    });
    return call;
  }
  static void WaitDone(Harness& harness, const LateCall& call) {
    ASSERT_TRUE(harness.RunAlone([&] { return call.done > 0; })) << "the exchange did not end";
  }
  static void WaitLate(Harness& harness, const LateCall& call) {
    ASSERT_TRUE(harness.RunAlone([&] { return call.late > 0; })) << "nothing came late";
  }
  // An answer that comes in time: at once, where the machine is not too busy.
  void ExpectAnswer(Harness& harness) {
    LateCall& call = Start(harness);
    WaitDone(harness, call);
    EXPECT_EQ(call.outcome.fate, Fate::kAnswered) << call.outcome.detail;
  }
  static const Stats& StatsOf(Harness& harness) { return harness.client().stats(); }

  std::deque<LateCall> calls_;
};
INSTANTIATE_TEST_SUITE_P(All, LateAnswers,
                         ::testing::ValuesIn(KindsThat([](const Kind& k) { return k.method == Method::kPost; })),
                         [](const auto& param) { return std::string(param.param.name); });

Reply Silent() { return {0, "", Reply::End::kSilence, {}, 0}; }

TEST_P(LateAnswers, AreHandedOver) {
  Event release;
  AnyServer peer(GetParam(), [&](const Arrival&) {
    release.Wait();
    return Reply{201, "late", Reply::End::kWhole, {{"request-id", "one"}}, 0};
  });
  Harness harness(For(peer.server));
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  ExpectMaybeSent(call.outcome);
  EXPECT_EQ(call.outcome.detail, "no answer in time");
  EXPECT_EQ(StatsOf(harness).late_now, 1u);
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));

  release.Set();
  WaitLate(harness, call);
  ExpectAnswered(call.late_outcome, 201, "late");
  EXPECT_EQ(call.late_outcome.request_id, "one");
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
  harness.RunFor(milliseconds(50));
  EXPECT_EQ(call.done, 1);
  EXPECT_EQ(call.late, 1);
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(LateAnswers, AreNotWaitedForUnlessWanted) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Silent(); });
  Options options = For(peer.server);
  {
    Harness harness(options);
    ExpectMaybeSent(harness.Ask());  // without `on_late`
    EXPECT_EQ(StatsOf(harness).late_now, 0u);
  }
  options.late_window = milliseconds(0);
  Harness harness(options);
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  ExpectMaybeSent(call.outcome);
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
}

TEST_P(LateAnswers, AreWaitedForUntilTheWindowIsOver) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Silent(); });
  Options options = For(peer.server);
  options.late_window = milliseconds(300);
  Harness harness(options);
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  const auto since = SteadyClock::now();
  ASSERT_TRUE(harness.RunAlone([&] { return StatsOf(harness).late_silent == 1; }));
  EXPECT_GE(SteadyClock::now() - since, milliseconds(200));
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
  EXPECT_EQ(call.late, 0);
}

TEST_P(LateAnswers, NothingIsToldOfALostConnection) {
  Event release;
  AnyServer peer(GetParam(), [&](const Arrival&) {
    release.Wait();
    return Reply{0, "", Reply::End::kDrop, {}, 0};
  });
  Harness harness(For(peer.server));
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  release.Set();
  ASSERT_TRUE(harness.RunAlone([&] { return StatsOf(harness).late_lost == 1; }));
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
  EXPECT_EQ(call.late, 0);
  EXPECT_EQ(peer.server.requests, 1);
}

// The status line says what it says, as in time.
TEST_P(LateAnswers, MayBeCut) {
  Event release;
  AnyServer peer(GetParam(), [&](const Arrival&) {
    release.Wait();
    return Reply{429, "half", Reply::End::kDrop, {{"retry-after", "3"}}, 0};
  });
  Harness harness(For(peer.server));
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  release.Set();
  WaitLate(harness, call);
  EXPECT_EQ(call.late_outcome.fate, Fate::kAnswered);
  EXPECT_EQ(call.late_outcome.status, 429);
  EXPECT_EQ(call.late_outcome.retry_after, "3");
  EXPECT_FALSE(call.late_outcome.body_complete);
}

TEST_P(LateAnswers, TheOldestGiveWayToTheLimit) {
  Event release;
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    release.Wait();
    return Numbered(arrival);
  });
  Options options = For(peer.server);
  options.max_late = 2;
  Harness harness(options);
  std::vector<LateCall*> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(&Start(harness));
    harness.RunFor(milliseconds(50));
  }
  for (const LateCall* call : calls) WaitDone(harness, *call);
  EXPECT_EQ(StatsOf(harness).late_now, 2u);
  EXPECT_EQ(StatsOf(harness).late_gave_way, 1u);
  release.Set();
  WaitLate(harness, *calls[1]);
  WaitLate(harness, *calls[2]);
  EXPECT_EQ(calls[0]->late, 0);
  EXPECT_EQ(calls[1]->late_outcome.fate, Fate::kAnswered);
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
}

// All places are taken by late ones. HTTP/2: two of the three streams of the one connection, which works otherwise.
TEST_P(LateAnswers, GiveTheirPlacesToThoseWhoWait) {
  std::atomic<int> arrivals{0};
  AnyServer peer(
      GetParam(), [&](const Arrival& arrival) { return arrivals++ < 2 ? Silent() : Numbered(arrival); }, {}, 3);
  Options options = For(peer.server);
  options.max_connections = GetParam().http2 ? 1 : 2;
  Harness harness(options);
  std::vector<LateCall*> silent;
  for (int i = 0; i < 2; ++i) silent.push_back(&Start(harness));
  ASSERT_TRUE(harness.RunUntil([&] { return arrivals == 2; }));
  if (GetParam().http2) ExpectAnswer(harness);  // so that the connection is not suspected
  for (const LateCall* call : silent) WaitDone(harness, *call);
  EXPECT_EQ(StatsOf(harness).late_now, 2u);

  std::vector<LateCall*> calls;
  const auto start = SteadyClock::now();
  for (int i = 0; i < 8; ++i) calls.push_back(&Start(harness));
  for (LateCall* call : calls) {
    WaitDone(harness, *call);
    EXPECT_EQ(call->outcome.fate, Fate::kAnswered) << call->outcome.detail;
  }
  EXPECT_LT(SteadyClock::now() - start, std::chrono::seconds(20));
  EXPECT_EQ(StatsOf(harness).late_now + StatsOf(harness).late_gave_way + StatsOf(harness).late_lost, 2u);
  EXPECT_GE(StatsOf(harness).late_gave_way, 1u);
  if (GetParam().http2) {
    EXPECT_EQ(peer.server.accepted, 1);
  }
}

// One that has a place of its own is not touched.
TEST_P(LateAnswers, KeepTheirPlacesWhileThereAreOthers) {
  Event release;
  std::atomic<int> arrivals{0};
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    if (arrivals++ == 0) release.Wait();
    return Numbered(arrival);
  });
  Options options = For(peer.server);
  options.max_connections = 2;
  Harness harness(options);
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  if (!Libcurl2()) {  // it has no second connection while the first has room
    for (int i = 0; i < 5; ++i) ExpectAnswer(harness);
  }
  EXPECT_EQ(StatsOf(harness).late_now, 1u);
  release.Set();
  WaitLate(harness, call);
  EXPECT_EQ(call.late_outcome.fate, Fate::kAnswered);
  EXPECT_EQ(StatsOf(harness).late_gave_way, 0u);
}

// The rest of a request does not follow once its caller has heard that the time is over.
TEST_P(LateAnswers, AreNotWaitedForUnlessTheWholeRequestHasLeft) {
  TlsServer::Settings settings;
  settings.alpn = GetParam().http2 ? "h2" : "http/1.1";
  Event read_on;
  TlsServer server(settings, [&](TlsPeer& peer) {
    if (GetParam().http2) {
      H2Peer h2(server, peer, [](H2Peer&, int32_t, int) {});
      h2.Set(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 10);
      return h2.Run();
    }
    ReceivedRequest request;
    peer.ReadHead(&request);
    read_on.Wait();
    peer.ReadBody(&request);
  });
  Harness harness(For(server));
  LateCall& call = Start(harness, std::string(64 << 20, 'x'));
  WaitDone(harness, call);
  ExpectMaybeSent(call.outcome);
  EXPECT_EQ(StatsOf(harness).late_now, 0u);
  read_on.Set();
  harness.RunFor(milliseconds(100));
  EXPECT_EQ(server.bodies, 0);
  EXPECT_EQ(call.late, 0);
}

TEST_P(LateAnswers, NothingIsToldOnceTheClientIsGone) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Silent(); });
  Harness harness(For(peer.server));
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  EXPECT_EQ(StatsOf(harness).late_now, 1u);
  harness.DestroyClient();
  EXPECT_EQ(call.done, 1);
  EXPECT_EQ(call.late, 0);
}

// ---- nghttp2: a connection whose health is in doubt takes no new exchanges, but is listened to

class H2Late : public LateAnswers {};
INSTANTIATE_TEST_SUITE_P(Nghttp2, H2Late, ::testing::Values(kKinds[0], kKinds[3]),
                         [](const auto& param) { return std::string(param.param.name); });

// They are not counted among max_connections, but there are not more than twice as many of them.
TEST_P(H2Late, ConnectionsThatOnlyListenAreNotInTheWay) {
  constexpr int kSilent = 3;
  Event release;
  H2Server peer([&](H2Peer& h2, int connection, int32_t stream, int count) {
    if (connection < kSilent) release.Wait();
    h2.Answer(stream, 201, std::to_string(connection) + "." + std::to_string(count));
  });
  Options options = For(peer.server);
  options.max_connections = 1;
  Harness harness(options);
  std::vector<LateCall*> silent;
  for (int i = 0; i < kSilent; ++i) {  // each suspects its connection
    silent.push_back(&Start(harness));
    WaitDone(harness, *silent.back());
    ExpectMaybeSent(silent.back()->outcome);
  }
  ExpectAnswer(harness);
  EXPECT_EQ(peer.server.accepted, kSilent + 1);
  EXPECT_EQ(StatsOf(harness).late_now, 2u);
  EXPECT_EQ(StatsOf(harness).late_gave_way, 1u);
  release.Set();
  for (int i = 1; i < kSilent; ++i) {
    WaitLate(harness, *silent[static_cast<size_t>(i)]);
    EXPECT_EQ(silent[static_cast<size_t>(i)]->late_outcome.fate, Fate::kAnswered);
  }
  EXPECT_EQ(silent[0]->late, 0);
  EXPECT_EQ(StatsOf(harness).late_gave_way, 1u);
  // And they close when the last one has ended.
  ASSERT_TRUE(harness.RunUntil([&] { return SocketsTo(peer.server.port()).size() == 1; }));
}

TEST_P(H2Late, RefusalsCountAsProof) {
  Event release;
  H2Server peer([&](H2Peer& h2, int, int32_t stream, int) {
    release.Wait();
    h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM);
  });
  Harness harness(For(peer.server));
  LateCall& call = Start(harness);
  WaitDone(harness, call);
  ExpectMaybeSent(call.outcome);
  release.Set();
  WaitLate(harness, call);
  EXPECT_EQ(call.late_outcome.fate, Fate::kRefused);
  EXPECT_EQ(call.late_outcome.status, 0);
}

// ---- both transports in one client

TEST(AutoLate, BothTransportsShareTheLimit) {
  TlsServer::Settings settings;
  settings.alpn = "h2,http/1.1";
  std::atomic<bool> spoke_http1{false};
  TlsServer server(settings, [&](TlsPeer& peer) {
    if (peer.alpn() == "h2") {
      H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int count) {
        if (count == 1) h.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED);
      });
      return h2.Run();
    }
    peer.ReadRequest();
    spoke_http1 = true;
    peer.WaitForPeerToLeave();
  });
  Options options = Http1(server);
  options.http2 = true;
  options.transport = Transport::kAuto;
  options.reuse_http1 = false;
  options.exchange_timeout = milliseconds(2000);
  options.late_window = std::chrono::seconds(60);
  options.max_late = 1;
  Harness harness(options);
  int done = 0;
  const auto start = [&] {
    Request request = Harness::MakeRequest();
    request.on_late = [](Outcome) { ADD_FAILURE() << "nothing was answered"; };
    harness.client().Start(std::move(request), [&](Outcome) { ++done; });
  };
  start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
  EXPECT_EQ(harness.Ask().fate, Fate::kMaybeSent);  // the peer wants HTTP/1.1 from here on
  start();
  ASSERT_TRUE(harness.RunUntil([&] { return spoke_http1.load(); }));
  ASSERT_TRUE(harness.RunUntil([&] { return done == 2; }));
  EXPECT_EQ(harness.client().stats().late_now, 1u);
  EXPECT_EQ(harness.client().stats().late_gave_way, 1u);
}

}  // namespace
}  // namespace userintent::http
