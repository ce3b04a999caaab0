// A request with a lease leaves while the lease holds, or not at all: run for every http::Client. The peers count what
// arrives.
#include "server/base/lease.h"

#include <curl/curl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/http/any_server.h"
#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

constexpr BootNanos kHour = 3'600'000'000'000;

std::shared_ptr<Lease> Held() {
  auto lease = std::make_shared<Lease>();
  lease->Extend(BootNow() + kHour);
  return lease;
}

Request Leased(std::shared_ptr<const Lease> lease) {
  Request request = Harness::MakeRequest();
  request.lease = std::move(lease);
  return request;
}

class Leases : public ::testing::TestWithParam<Kind> {
 protected:
  static Options For(const std::string& origin) { return OptionsFor(GetParam(), origin); }
  static Options For(const AnyServer& server) { return For(server.server.origin()); }

  // A connection that is there, for those that keep one: the first byte of the next request is all that is missing.
  static void Warm(Harness& harness) { EXPECT_EQ(harness.Ask().fate, Fate::kAnswered); }
};
INSTANTIATE_TEST_SUITE_P(All, Leases,
                         ::testing::ValuesIn(KindsThat([](const Kind& k) { return k.method == Method::kPost; })),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(Leases, OneThatHoldsChangesNothing) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(harness.Finish(harness.Start(Leased(Held()))).fate, Fate::kAnswered);
  }
  EXPECT_EQ(peer.server.requests, 3);
}

TEST_P(Leases, OneThatNeverBeganOpensNoConnection) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  ExpectNotSent(harness.Finish(harness.Start(Leased(std::make_shared<Lease>()))), NotSentCause::kLeaseOver);
  const std::shared_ptr<Lease> ended = Held();
  ended->End();
  const Outcome& outcome = harness.Finish(harness.Start(Leased(ended)));
  ExpectNotSent(outcome, NotSentCause::kLeaseOver);
  EXPECT_EQ(outcome.detail, "the lease was over before anything was sent");
  EXPECT_EQ(peer.server.accepted, 0);
}

TEST_P(Leases, EndsWhileItConnects) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  const std::shared_ptr<Lease> lease = Held();
  Call& call = harness.Start(Leased(lease));
  // A look at it between the turns: the handshake takes more of them.
  ASSERT_TRUE(harness.RunUntil([&] { return !SocketsTo(peer.server.port()).empty(); }));
  ASSERT_EQ(call.done, 0);
  lease->End();
  ExpectNotSent(harness.Finish(call), NotSentCause::kLeaseOver);
  EXPECT_EQ(peer.server.requests, 0);
  Warm(harness);
}

// Others keep theirs, on the same connection and in the same turn, before and behind it.
TEST_P(Leases, EndsWhileItWaitsForAConnection) {
  Event release;
  std::vector<std::string> bodies;
  std::mutex mutex;
  AnyServer peer(
      GetParam(),
      [&](const Arrival& arrival) {
        {
          const std::lock_guard lock(mutex);
          bodies.push_back(arrival.body);
        }
        release.Wait();
        return Numbered(arrival);
      },
      {}, 1);
  Options options = For(peer);
  options.max_connections = 1;
  Harness harness(options);
  const auto start = [&](std::string body, std::shared_ptr<const Lease> lease) -> Call& {
    Request request = Harness::MakeRequest(std::move(body));
    request.lease = std::move(lease);
    return harness.Start(std::move(request));
  };
  const std::shared_ptr<Lease> lease = Held();
  const std::shared_ptr<Lease> other = Held();
  Call& first = start("first", lease);
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  harness.RunFor(milliseconds(50));  // libcurl sends before it has read the peer's limits, which have arrived by now
  Call& second = start("second", lease);
  Call& third = start("third", other);
  Call& fourth = start("fourth", lease);
  Call& fifth = start("fifth", nullptr);
  harness.RunFor(milliseconds(50));
  lease->End();
  release.Set();
  EXPECT_EQ(harness.Finish(first).fate, Fate::kAnswered) << "it had left while the lease held";
  ExpectNotSent(harness.Finish(second), NotSentCause::kLeaseOver);
  EXPECT_EQ(harness.Finish(third).fate, Fate::kAnswered);
  ExpectNotSent(harness.Finish(fourth), NotSentCause::kLeaseOver);
  EXPECT_EQ(harness.Finish(fifth).fate, Fate::kAnswered);
  std::sort(bodies.begin(), bodies.end());
  EXPECT_EQ(bodies, (std::vector<std::string>{"fifth", "first", "third"}));
  EXPECT_EQ(peer.server.requests, 3);
}

TEST_P(Leases, EndsBetweenTwoTries) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Reply{503, "", Reply::End::kWhole, {}, 0}; });
  Harness harness(For(peer));
  const std::shared_ptr<Lease> lease = Held();
  EXPECT_EQ(harness.Finish(harness.Start(Leased(lease))).status, 503);
  lease->End();
  ExpectNotSent(harness.Finish(harness.Start(Leased(lease))), NotSentCause::kLeaseOver);
  EXPECT_EQ(peer.server.requests, 1);
}

// Once it has left, the answer is waited for whatever the lease does.
TEST_P(Leases, EndsAfterTheRequestHasLeft) {
  Event ended;
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    ended.Wait();
    return Numbered(arrival);
  });
  Harness harness(For(peer));
  const std::shared_ptr<Lease> lease = Held();
  Call& call = harness.Start(Leased(lease));
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  lease->End();
  ended.Set();
  EXPECT_EQ(harness.Finish(call).fate, Fate::kAnswered);
}

// The lease ends in between Start() and the turn that would send it, with a connection at hand.
TEST_P(Leases, EndsRightBeforeTheTurn) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  Warm(harness);
  const std::shared_ptr<Lease> lease = Held();
  std::vector<Call*> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(&harness.Start(Leased(lease)));
  Call& kept = harness.Start(Leased(Held()));
  lease->End();
  for (Call* call : calls) ExpectNotSent(harness.Finish(*call), NotSentCause::kLeaseOver);
  EXPECT_EQ(harness.Finish(kept).fate, Fate::kAnswered);
  Warm(harness);
  EXPECT_EQ(peer.server.requests, 3);
  if (GetParam().transport != Transport::kLibcurl && GetParam().http2) {
    EXPECT_EQ(peer.server.accepted, 1) << "the connection bears it, its compression included";
  }
}

// libcurl (7.88) sends the head, and asks for the body when the socket takes more.
TEST(CurlLeases, EndsBetweenHeadAndBody) {
  Event read;
  std::atomic<int> begun{0};
  TlsServer server([&](TlsPeer& peer) {
    if (!peer.Readable(std::chrono::seconds(30))) return;
    ++begun;
    read.Wait();
    peer.ReadRequest();
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  const std::shared_ptr<Lease> lease = Held();
  Request request = Leased(lease);
  request.headers.emplace_back("X-Long", std::string(900'000, 'x'));  // more than the sockets take by themselves
  Call& call = harness.Start(std::move(request));
  ASSERT_TRUE(harness.RunUntil([&] {
    const int size = 16 * 1024;
    for (const int fd : SocketsTo(server.port())) {
      EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
    }
    return begun == 1;
  }));
  EXPECT_EQ(call.done, 0);
  lease->End();
  read.Set();
  const Outcome& outcome = harness.Finish(call);
  if (outcome.fate == Fate::kMaybeSent) {
    // Newer ones take the body in while the head waits, so the lease held when the body was given: no proof is left.
    EXPECT_GE(curl_version_info(CURLVERSION_NOW)->version_num, 0x080000U);
    return ExpectMaybeSent(outcome);
  }
  ExpectNotSent(outcome, NotSentCause::kLeaseOver);
  EXPECT_EQ(server.bodies, 0);
}

}  // namespace
}  // namespace userintent::http
