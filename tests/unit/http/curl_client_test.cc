// What the client on libcurl proves about an exchange, against peers that misbehave byte by byte. The peers count the
// requests that arrive: "at most once" is checked there, not in the client's own words. What holds for every client
// alike is in any_client_test.cc.
#include <curl/curl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Answer(const std::string& body, const std::string& headers = "") {
  return "HTTP/1.1 201 Created\r\n" + headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
std::string Chunked(const std::string& body) {
  char size[32];
  snprintf(size, sizeof(size), "%zx", body.size());
  return std::string("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n") + size + "\r\n" + body +
         "\r\n0\r\n\r\n";
}
constexpr Method kMethods[] = {Method::kPost, Method::kGet};
const std::string kEvil = Answer("evil", "Request-Id: evil\r\n");

// libcurl before 8 does not look for input on a connection that it takes from its pool; later ones throw such a
// connection away themselves, before our check.
bool LibraryChecksPool() { return curl_version_info(CURLVERSION_NOW)->version_num >= 0x080000; }

// Answers every request on a connection with its number: "0.0" is the first of the first.
void Serve(TlsPeer& peer) {
  for (int i = 0; peer.ReadRequest(); ++i) {
    peer.Write(Answer(std::to_string(peer.index()) + "." + std::to_string(i)));
  }
}

// ---- the ordinary case

TEST(CurlClient, SendsOnePlainPostAndReadsTheAnswer) {
  ReceivedRequest got;
  TlsServer server([&](TlsPeer& peer) {
    peer.ReadRequest(&got);
    peer.Write(Answer(R"({"id":"1"})",
                      "REQUEST-id: \t first \r\nRequest-Id: second\r\nretry-AFTER: 7\r\nRetry-After: 8\r\n"
                      "Set-Cookie: a=b\r\nX: HTTP/1.1 500 no\r\n"));
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, R"({"id":"1"})");
  EXPECT_EQ(outcome.request_id, "first");
  EXPECT_EQ(outcome.retry_after, "7");
  EXPECT_EQ(got.body, kBody);
  EXPECT_TRUE(got.head.starts_with("POST /v1/user_intent HTTP/1.1\r\n")) << got.head;
  EXPECT_THAT(got.head, HasSubstr("\r\nContent-Length: " + std::to_string(sizeof(kBody) - 1) + "\r\n"));
  EXPECT_THAT(got.head, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_THAT(got.head, HasSubstr("\r\nAuthorization: Basic dGVzdDp0ZXN0\r\n"));
  EXPECT_THAT(got.head, AllOf(Not(HasSubstr("Expect")), Not(HasSubstr("Transfer-Encoding")), Not(HasSubstr("Cookie")),
                              Not(HasSubstr("User-Agent")), Not(HasSubstr("Upgrade"))));
  EXPECT_EQ(server.requests, 1);
  EXPECT_EQ(harness.client().stats().exchanges, 1u);
  EXPECT_EQ(harness.client().stats().connections_opened, 1u);
}

TEST(CurlClient, ReusesAQuietHttp1Connection) {
  TlsServer server(Serve);
  Harness harness(Http1(server));
  for (int i = 0; i < 5; ++i) ExpectAnswered(harness.Ask(), 201, "0." + std::to_string(i));
  EXPECT_EQ(server.accepted, 1);
  EXPECT_EQ(server.requests, 5);
  EXPECT_EQ(harness.client().stats().reuse_refused, 0u);
  EXPECT_EQ(harness.client().stats().connections_opened, 1u);
}

TEST(CurlClient, SendsALargeBodyWhole) {
  ReceivedRequest got;
  TlsServer server([&](TlsPeer& peer) {
    peer.ReadRequest(&got);
    peer.Write(Answer("ok"));
  });
  Harness harness(Http1(server));
  std::string body(3 << 20, 'x');
  body[1 << 20] = 'y';
  Call& call = harness.Start(Harness::MakeRequest(body));
  ExpectAnswered(harness.Finish(call), 201, "ok");
  EXPECT_TRUE(got.body == body);
  EXPECT_THAT(got.head, Not(HasSubstr("Expect")));  // libcurl would ask first with a body of this size
}

TEST(CurlClient, ResumesTlsSessionsOnNewConnections) {
  std::vector<bool> resumed;
  std::mutex mutex;
  TlsServer server([&](TlsPeer& peer) {
    {
      const std::lock_guard lock(mutex);
      resumed.push_back(peer.resumed());
    }
    peer.ReadRequest();
    peer.Write(Answer("ok", "Connection: close\r\n"));
    peer.CloseNotify();
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  for (int i = 0; i < 3; ++i) {
    ExpectAnswered(harness.Ask(), 201, "ok");
    // Uses up the recycled handle, which would remember the session by itself.
    harness.client().CancelUnsent(harness.Start().id);
  }
  const std::lock_guard lock(mutex);
  EXPECT_THAT(resumed, ::testing::ElementsAre(false, true, true));
}

TEST(CurlClient, InterimAnswersAreSkipped) {
  TlsServer server([](TlsPeer& peer) {
    peer.ReadRequest();
    peer.Write("HTTP/1.1 100 Continue\r\nRequest-Id: interim\r\n\r\n");
    peer.Write("HTTP/1.1 103 Early Hints\r\nRetry-After: 99\r\n\r\n" + Answer("final", "Request-Id: final\r\n"));
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, "final");
  EXPECT_EQ(outcome.request_id, "final");
  EXPECT_EQ(outcome.retry_after, "");
}

TEST(CurlClient, OnlyInterimAnswersProveNothing) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    TlsServer server([](TlsPeer& peer) {
      peer.ReadRequest();
      peer.Write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n");
      peer.CloseNotify();
    });
    Harness harness(Http1(server), method);
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(server.requests, 1);
  }
}

TEST(CurlClient, ChunkedAnswersAreRead) {
  TlsServer server([](TlsPeer& peer) {
    peer.ReadRequest();
    peer.Write("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nRequest-Id: head\r\n\r\n3\r\nabc\r\n");
    peer.Write("2\r\nde\r\n0\r\nRequest-Id: trailer\r\nRetry-After: 5\r\n\r\n");
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, "abcde");
  EXPECT_EQ(outcome.request_id, "head");
  EXPECT_EQ(outcome.retry_after, "");
}

// ---- no hidden second sending

enum class Drop { kCloseNotify, kFin, kReset };
class Dropped : public ::testing::TestWithParam<Drop> {
 protected:
  static void DropNow(TlsPeer& peer) {
    switch (GetParam()) {
      case Drop::kCloseNotify:
        peer.CloseNotify();
        break;
      case Drop::kFin:
        peer.Fin();
        break;
      case Drop::kReset:
        peer.Reset();
        break;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, Dropped, ::testing::Values(Drop::kCloseNotify, Drop::kFin, Drop::kReset),
                         [](const auto& param) {
                           return param.param == Drop::kCloseNotify ? "CloseNotify"
                                  : param.param == Drop::kFin       ? "Fin"
                                                                    : "Reset";
                         });

TEST_P(Dropped, FreshConnectionAfterTheRequest) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    TlsServer server([](TlsPeer& peer) {
      peer.ReadRequest();
      DropNow(peer);
    });
    Harness harness(Http1(server), method);
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(server.requests, 1);
  }
}

TEST_P(Dropped, ReusedConnectionAfterTheRequest) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    TlsServer server([](TlsPeer& peer) {
      if (!peer.ReadRequest()) return;
      peer.Write(Answer("first"));
      if (!peer.ReadRequest()) return;
      DropNow(peer);
      peer.WaitForPeerToLeave();
    });
    Harness harness(Http1(server), method);
    ExpectAnswered(harness.Ask(), 201, "first");
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(server.requests, 2);  // one each
    EXPECT_EQ(server.bodies, 2);
    EXPECT_GE(harness.client().stats().resend_refused, 1u);
  }
}

TEST_P(Dropped, ReusedConnectionHalfWayThroughTheBody) {
  TlsServer server([](TlsPeer& peer) {
    if (!peer.ReadRequest()) return;
    peer.Write(Answer("first"));
    ReceivedRequest request;
    char byte;
    if (!peer.ReadHead(&request) || (!peer.HasMore() && peer.Read(&byte, 1) != 1)) return;
    DropNow(peer);
    if (GetParam() != Drop::kReset) peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  ExpectAnswered(harness.Ask(), 201, "first");
  ExpectMaybeSent(harness.Finish(harness.Start(Harness::MakeRequest(std::string(1 << 20, 'x')))));
  EXPECT_EQ(server.requests, 2);
}

// Whether libcurl had begun with the body by then is a matter of chance; that it does not try again is not.
TEST_P(Dropped, ReusedConnectionAfterTheHead) {
  for (int i = 0; i < 10; ++i) {
    TlsServer server([](TlsPeer& peer) {
      if (!peer.ReadRequest()) return;
      peer.Write(Answer("first"));
      ReceivedRequest request;
      if (!peer.ReadHead(&request)) return;
      DropNow(peer);
      if (GetParam() != Drop::kReset) peer.WaitForPeerToLeave();
    });
    Harness harness(Http1(server));
    ExpectAnswered(harness.Ask(), 201, "first");
    const Outcome& outcome = harness.Finish(harness.Start(Harness::MakeRequest(std::string(1 << 20, 'x'))));
    EXPECT_NE(outcome.fate, Fate::kAnswered);
    EXPECT_TRUE(outcome.fate == Fate::kMaybeSent || outcome.cause == NotSentCause::kConnect) << outcome.detail;
    EXPECT_EQ(server.requests, 2);
    EXPECT_EQ(server.bodies, 1);
  }
}

TEST_P(Dropped, IdleConnectionIsReplaced) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    Event answered, dropped;
    TlsServer server([&](TlsPeer& peer) {
      if (peer.index() > 0) return Serve(peer);
      peer.ReadRequest();
      peer.Write(Answer("first"));
      answered.Wait();
      DropNow(peer);
      dropped.Set();
      if (GetParam() != Drop::kReset) peer.WaitForPeerToLeave();
    });
    Harness harness(Http1(server), method);
    ExpectAnswered(harness.Ask(), 201, "first");
    answered.Set();
    ASSERT_TRUE(dropped.Wait());
    ASSERT_TRUE(BytesArrived(server.port()));
    ExpectAnswered(harness.Ask(), 201, "1.0");
    EXPECT_EQ(server.requests, 2);
  }
}

// Where the client finds the connection when the next GET is due is a matter of chance. It may be sent on the dead one
// or on a fresh one, but not on both: libcurl may open one for a second sending, and nothing arrives on it.
TEST_P(Dropped, AGetOnAConnectionThatGoesArrivesAtMostOnce) {
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> elsewhere{0};
    std::optional<Outcome> second;
    {
      TlsServer server([&](TlsPeer& peer) {
        if (peer.index() > 0) {
          while (peer.ReadRequest()) {
            ++elsewhere;
            peer.Write(Answer("elsewhere"));
          }
          return;
        }
        peer.ReadRequest();
        peer.Write(Answer("first"));
        DropNow(peer);
        if (GetParam() != Drop::kReset) peer.WaitForPeerToLeave();
      });
      Harness harness(Http1(server), Method::kGet);
      if (harness.Ask().fate == Fate::kAnswered) second = harness.Ask();
    }
    if (!second) continue;  // the reset overtook the first answer
    if (second->fate == Fate::kAnswered) {
      ExpectAnswered(*second, 201, "elsewhere");
      EXPECT_EQ(elsewhere, 1);
    } else {
      ExpectMaybeSent(*second);
      EXPECT_EQ(elsewhere, 0);
    }
  }
}

// The proof for a GET is that no connection was released for sending it, and it ends there: a GET whose head has been
// given away is lost even if the peer has read nothing.
TEST(CurlClient, AGetIsUnsentUntilAConnectionIsReleasedForIt) {
  Event shaken, release;
  TlsServer server([&](TlsPeer& peer) {
    shaken.Set();
    release.Wait();
    peer.Reset();
  });
  Options options = Http1(server);
  options.max_connections = 1;
  Harness harness(options, Method::kGet);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return shaken.IsSet() && harness.client().stats().connections_opened == 1; }));
  Call& second = harness.Start();
  harness.RunFor(milliseconds(50));
  EXPECT_FALSE(harness.client().CancelUnsent(first.id));
  EXPECT_TRUE(harness.client().CancelUnsent(second.id));
  ExpectNotSent(harness.Finish(second), NotSentCause::kCancelled);
  release.Set();
  ExpectMaybeSent(harness.Finish(first));
}

TEST(CurlClient, RedirectsAreAnswersAndAreNotFollowed) {
  for (const int status : {301, 302, 303, 307, 308}) {
    TlsServer server([&](TlsPeer& peer) {
      peer.ReadRequest();
      peer.Write("HTTP/1.1 " + std::to_string(status) + " Moved\r\nLocation: /elsewhere\r\nContent-Length: 1\r\n\r\nx");
      peer.WaitForPeerToLeave();
    });
    Harness harness(Http1(server));
    ExpectAnswered(harness.Ask(), status, "x");
    EXPECT_EQ(server.requests, 1);
    EXPECT_EQ(server.accepted, 1);
  }
}

TEST(CurlClient, StatusesThatInviteASecondTryAreJustAnswers) {
  for (const int status : {401, 407, 408, 417, 421, 425, 429, 500, 503}) {
    TlsServer server([&](TlsPeer& peer) {
      while (peer.ReadRequest()) {
        peer.Write("HTTP/1.1 " + std::to_string(status) +
                   " No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nProxy-Authenticate: Basic realm=\"x\"\r\n"
                   "Alt-Svc: h2=\":1\"\r\nContent-Length: 1\r\n\r\nx");
      }
    });
    Harness harness(Http1(server));
    ExpectAnswered(harness.Ask(), status, "x");
    EXPECT_EQ(server.requests, 1);
  }
}

// ---- nobody gets somebody else's answer

struct Leftover {
  const char* name;
  std::vector<std::string> writes;  // the answer to the first POST and what follows it
  std::string body;
  int status;
  bool in_socket = false;  // what follows stays in the socket of a connection that went back to the pool
};
class Leftovers : public ::testing::TestWithParam<Leftover> {};
const Leftover kLeftovers[] = {
    {"SameWrite", {Answer("one") + kEvil}, "one", 201},
    {"NextWrite", {Answer("one"), kEvil}, "one", 201, true},
    {"WithTheBody", {Answer("one").substr(0, Answer("one").size() - 3), "one" + kEvil}, "one", 201},
    {"SplitInsideTheSecond", {Answer("one") + kEvil.substr(0, 20), kEvil.substr(20)}, "one", 201},
    {"SplitAtTheSecondBody",
     {Answer("one") + kEvil.substr(0, kEvil.size() - 4), kEvil.substr(kEvil.size() - 4)},
     "one",
     201},
    {"AfterChunks", {Chunked("one") + kEvil}, "one", 201},
    {"AfterChunksLater", {Chunked("one"), kEvil}, "one", 201},
    {"AfterChunksSplit", {Chunked("one") + "junk\r\n", kEvil}, "one", 201},
    {"After204", {"HTTP/1.1 204 No Content\r\n\r\n" + kEvil}, "", 204},
    {"After204Later", {"HTTP/1.1 204 No Content\r\n\r\n", kEvil}, "", 204},
    {"After204Split", {"HTTP/1.1 204 No Content\r\n\r\njunk\r\n", kEvil}, "", 204},
    {"AfterEmptyBody", {Answer("") + kEvil}, "", 201},
    {"AfterEmptyBodyLater", {Answer(""), kEvil}, "", 201},
    {"OneByte", {Answer("one") + "x"}, "one", 201},
    {"BareNewline", {Answer("one") + "\r\n"}, "one", 201},
    {"InterimLater", {Answer("one"), "HTTP/1.1 100 Continue\r\n\r\n"}, "one", 201, true},
};
INSTANTIATE_TEST_SUITE_P(Shapes, Leftovers, ::testing::ValuesIn(kLeftovers),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(Leftovers, NeverReachTheNextExchange) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    const Leftover& leftover = GetParam();
    Event written;
    TlsServer server([&](TlsPeer& peer) {
      if (peer.index() > 0) return Serve(peer);
      if (!peer.ReadRequest()) return;
      for (const std::string& bytes : leftover.writes) peer.Write(bytes);
      written.Set();
      Serve(peer);
    });
    Harness harness(Http1(server), method);
    ExpectAnswered(harness.Ask(), leftover.status, leftover.body);
    ASSERT_TRUE(written.Wait());
    ASSERT_TRUE(!leftover.in_socket || BytesArrived(server.port()));
    const Outcome& second = harness.Ask();
    ExpectAnswered(second, 201, "1.0");
    EXPECT_EQ(second.request_id, "");
    EXPECT_EQ(server.accepted, 2);
    EXPECT_EQ(server.requests, 2);
    EXPECT_EQ(server.bodies, 2);
    EXPECT_EQ(harness.client().stats().resend_refused, 0u);
  }
}

TEST(CurlClient, UnsolicitedAnswerOnAnIdleConnectionIsThrownAway) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    Event answered, written;
    TlsServer server([&](TlsPeer& peer) {
      if (peer.index() > 0) return Serve(peer);
      peer.ReadRequest();
      peer.Write(Answer("first"));
      answered.Wait();
      peer.Write(kEvil);
      written.Set();
      Serve(peer);
    });
    Harness harness(Http1(server), method);
    ExpectAnswered(harness.Ask(), 201, "first");
    answered.Set();
    ASSERT_TRUE(written.Wait());
    ASSERT_TRUE(BytesArrived(server.port()));
    ExpectAnswered(harness.Ask(), 201, "1.0");
    EXPECT_EQ(server.requests, 2);
    EXPECT_EQ(harness.client().stats().reuse_refused, LibraryChecksPool() ? 0u : 1u);
    EXPECT_EQ(harness.client().stats().connections_opened, 2u);
  }
}

TEST(CurlClient, PoisonedPoolIsThrownAwayWhole) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    constexpr int kConnections = 4;
    Event all_here, written;
    std::atomic<int> here{0}, poisoned{0};
    TlsServer server([&](TlsPeer& peer) {
      if (peer.index() >= kConnections) return Serve(peer);
      peer.ReadRequest();
      if (++here == kConnections) all_here.Set();
      all_here.Wait();
      peer.Write(Answer("first"));
      peer.Write(kEvil);
      if (++poisoned == kConnections) written.Set();
      Serve(peer);
    });
    Options options = Http1(server);
    options.max_connections = kConnections;
    Harness harness(options, method);
    std::vector<Call*> calls;
    for (int i = 0; i < kConnections; ++i) calls.push_back(&harness.Start());
    for (Call* call : calls) ExpectAnswered(harness.Finish(*call), 201, "first");
    ASSERT_TRUE(written.Wait());
    ASSERT_TRUE(BytesArrived(server.port()));
    calls.clear();
    for (int i = 0; i < 2 * kConnections; ++i) calls.push_back(&harness.Start());
    for (Call* call : calls) {
      const Outcome& outcome = harness.Finish(*call);
      EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
      EXPECT_THAT(outcome.body, HasSubstr("."));
    }
    EXPECT_EQ(server.requests, 3 * kConnections);
  }
}

// ---- answers that are cut, large or early

TEST(CurlClient, CutBeforeTheStatusLineEnds) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    TlsServer server([](TlsPeer& peer) {
      peer.ReadRequest();
      peer.Write("HTTP/1.1 201 Crea");
      peer.CloseNotify();
    });
    Harness harness(Http1(server), method);
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(server.requests, 1);
  }
}

TEST(CurlClient, CutAnswersKeepTheirStatus) {
  const struct {
    std::string bytes;
    std::string body;
  } kCases[] = {
      {"HTTP/1.1 201 Created\r\n", ""},
      {"HTTP/1.1 201 Created\r\nRequest-Id: r\r\nContent-Le", ""},
      {"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\n", ""},
      {"HTTP/1.1 201 Created\r\nContent-Length: 10\r\n\r\nabc", "abc"},
      {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "ab"},
      {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", "abcde"},
      {"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabcde\r\n", ""},
  };
  for (const auto& c : kCases) {
    for (const bool notify : {true, false}) {
      TlsServer server([&](TlsPeer& peer) {
        peer.ReadRequest();
        peer.Write(c.bytes);
        if (notify) peer.CloseNotify();
      });
      Harness harness(Http1(server));
      const Outcome& outcome = harness.Ask();
      EXPECT_EQ(outcome.fate, Fate::kAnswered) << c.bytes;
      EXPECT_EQ(outcome.status, 201) << c.bytes;
      EXPECT_FALSE(outcome.body_complete) << c.bytes;
      EXPECT_EQ(outcome.body, c.body) << c.bytes;
      EXPECT_EQ(server.requests, 1);
    }
  }
}

TEST(CurlClient, BodyMayEndWithTheConnection) {
  TlsServer server([](TlsPeer& peer) {
    if (peer.index() > 0) return Serve(peer);
    peer.ReadRequest();
    peer.Write("HTTP/1.0 200 OK\r\n\r\nabc");
    peer.CloseNotify();
  });
  Harness harness(Http1(server));
  ExpectAnswered(harness.Ask(), 200, "abc");
  ExpectAnswered(harness.Ask(), 201, "1.0");
}

TEST(CurlClient, BodyLimitIsExact) {
  for (const size_t size : {size_t{1000}, size_t{1001}, size_t{200000}}) {
    for (const bool chunked : {false, true}) {
      TlsServer server([&](TlsPeer& peer) {
        peer.ReadRequest();
        const std::string body(size, 'x');
        const std::string bytes = chunked ? Chunked(body) : Answer(body);
        for (size_t at = 0; at < bytes.size(); at += 8192) {
          if (!peer.Write(std::string_view(bytes).substr(at, 8192))) return;
        }
        peer.WaitForPeerToLeave();
      });
      Options options = Http1(server);
      options.max_answer_bytes = 1000;
      Harness harness(options);
      const Outcome& outcome = harness.Ask();
      EXPECT_EQ(outcome.fate, Fate::kAnswered);
      EXPECT_EQ(outcome.status, 201);
      EXPECT_EQ(outcome.body.size(), 1000u);
      EXPECT_EQ(outcome.body_complete, size == 1000);
      EXPECT_EQ(server.requests, 1);
    }
  }
}

TEST(CurlClient, HugeHeadKeepsItsStatus) {
  for (const size_t lines : {size_t{1}, size_t{1000}}) {
    TlsServer server([&](TlsPeer& peer) {
      peer.ReadRequest();
      peer.Write("HTTP/1.1 429 Too Many\r\nRequest-Id: early\r\n");
      for (size_t i = 0; i < lines; ++i) {
        if (!peer.Write("X-Filler: " + std::string(200000 / lines % 15000, 'x') + "\r\n")) return;
      }
      for (int i = 0; i < 20; ++i) {
        if (!peer.Write("Y: " + std::string(8000, 'y') + "\r\n")) return;
      }
      peer.Write("Content-Length: 1\r\n\r\nx");
      peer.WaitForPeerToLeave();
    });
    Harness harness(Http1(server));
    const Outcome& outcome = harness.Ask();
    EXPECT_EQ(outcome.fate, Fate::kAnswered);
    EXPECT_EQ(outcome.status, 429);
    EXPECT_EQ(outcome.request_id, "early");
    EXPECT_FALSE(outcome.body_complete);
    EXPECT_EQ(server.requests, 1);
  }
}

TEST(CurlClient, EndlessInterimAnswersAreCut) {
  TlsServer server([](TlsPeer& peer) {
    peer.ReadRequest();
    while (peer.Write("HTTP/1.1 103 Early Hints\r\nX: " + std::string(1000, 'x') + "\r\n\r\n")) {
    }
  });
  Harness harness(Http1(server));
  ExpectMaybeSent(harness.Ask());
  EXPECT_EQ(server.requests, 1);
}

TEST(CurlClient, AnswerBeforeTheBodyIsAnAnswer) {
  TlsServer server([](TlsPeer& peer) {
    ReceivedRequest request;
    peer.ReadHead(&request);
    peer.Write("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  const Outcome& outcome = harness.Finish(harness.Start(Harness::MakeRequest(std::string(8 << 20, 'x'))));
  EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
  EXPECT_EQ(outcome.status, 413);
  EXPECT_EQ(server.requests, 1);
}

TEST(CurlClient, BytesThatAreNotHttpProveNothing) {
  for (const char* bytes :
       {"SSH-2.0-x\r\n", "\r\n\r\n", "{\"id\":\"1\"}", "HTTP/1.1 abc\r\n\r\n", "HTTP/9.9 201 OK\r\n\r\n"}) {
    TlsServer server([&](TlsPeer& peer) {
      peer.ReadRequest();
      peer.Write(bytes);
      peer.CloseNotify();
    });
    Harness harness(Http1(server));
    const Outcome& outcome = harness.Ask();
    EXPECT_NE(outcome.fate, Fate::kNotSent) << bytes;
    EXPECT_FALSE(outcome.body_complete) << bytes;
    EXPECT_EQ(server.requests, 1);
  }
}

// ---- time and cancelling

TEST(CurlClient, WaitingForABusyPoolIsNotAConnectTimeout) {
  Event release;
  TlsServer server([&](TlsPeer& peer) {
    for (int i = 0; peer.ReadRequest(); ++i) {
      release.Wait();
      peer.Write(Answer(std::to_string(i)));
    }
  });
  Options options = Http1(server);
  options.connect_timeout = milliseconds(2000);  // the handshake itself must make it on a busy machine
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
  Call& second = harness.Start();
  Call& third = harness.Start();
  harness.RunFor(milliseconds(3000));
  EXPECT_EQ(first.done + second.done + third.done, 0);
  release.Set();
  ExpectAnswered(harness.Finish(first), 201, "0");
  harness.Finish(second);
  harness.Finish(third);
  EXPECT_EQ(second.outcome.fate, Fate::kAnswered);
  EXPECT_EQ(third.outcome.fate, Fate::kAnswered);
  EXPECT_EQ(server.accepted, 1);
  EXPECT_EQ(server.requests, 3);
}

TEST(CurlClient, WaitingForABusyPoolEndsWithTheExchangeTimeout) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    TlsServer server([](TlsPeer& peer) { peer.WaitForPeerToLeave(); });
    Options options = Http1(server);
    options.exchange_timeout = milliseconds(1000);
    options.max_connections = 1;
    Harness harness(options, method);
    Call& first = harness.Start();
    Call& second = harness.Start();
    ExpectMaybeSent(harness.Finish(first));
    ExpectNotSent(harness.Finish(second), NotSentCause::kTimeout);
  }
}

TEST(CurlClient, TimeoutWithinTheBodyKeepsTheStatus) {
  TlsServer server([&](TlsPeer& peer) {
    peer.ReadRequest();
    peer.Write("HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 10\r\n\r\nabc");
    peer.WaitForPeerToLeave();
  });
  Options options = Http1(server);
  options.exchange_timeout = milliseconds(1500);
  Harness harness(options);
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered);
  EXPECT_EQ(outcome.status, 429);
  EXPECT_EQ(outcome.retry_after, "3");
  EXPECT_FALSE(outcome.body_complete);
}

TEST(CurlClient, CancelAfterSendingChangesNothing) {
  Event cancelled;
  TlsServer server([&](TlsPeer& peer) {
    peer.ReadRequest();
    cancelled.Wait();
    peer.Write(Answer("late"));
    peer.WaitForPeerToLeave();
  });
  Harness harness(Http1(server));
  Call& call = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));
  cancelled.Set();
  ExpectAnswered(harness.Finish(call), 201, "late");
}

TEST(CurlClient, CancelWhileWaitingForABusyPool) {
  Event release;
  TlsServer server([&](TlsPeer& peer) {
    for (int i = 0; peer.ReadRequest(); ++i) {
      release.Wait();
      peer.Write(Answer(std::to_string(i)));
    }
  });
  Options options = Http1(server);
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  Call& second = harness.Start();
  Call& third = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
  EXPECT_TRUE(harness.client().CancelUnsent(second.id));
  ExpectNotSent(harness.Finish(second), NotSentCause::kCancelled);
  release.Set();
  ExpectAnswered(harness.Finish(first), 201, "0");
  ExpectAnswered(harness.Finish(third), 201, "1");
  EXPECT_EQ(server.requests, 2);
}

// libcurl would join the resolver's thread, and so block the shard for as long as the look-up takes.
TEST(CurlClient, CancelAndTimeoutDuringALookupDoNotBlock) {
  Event release;
  slow_lookup = &release;
  lookups_begun = lookups_ended = 0;
  Options options = Http1("https://slow.example.test:1");
  options.connect_timeout = milliseconds(300);
  auto harness = std::make_unique<Harness>(options);
  Call& cancelled = harness->Start();
  ASSERT_TRUE(harness->RunUntil([] { return lookups_begun == 1; }));
  EXPECT_TRUE(harness->client().CancelUnsent(cancelled.id));
  ExpectNotSent(harness->Finish(cancelled), NotSentCause::kCancelled);
  Call& late = harness->Start();
  ExpectNotSent(harness->Finish(late), NotSentCause::kTimeout);
  harness->Start();
  ASSERT_TRUE(harness->RunUntil([] { return lookups_begun >= 3; }));
  harness.reset();  // the destructor must not block either
  EXPECT_FALSE(release.IsSet());
  release.Set();
  while (lookups_ended < lookups_begun) std::this_thread::yield();  // detached threads, still inside `release`
  slow_lookup = nullptr;
}

TEST(CurlClient, ADeadAddressLeavesTimeForTheNext) {
  TlsServer server([](TlsPeer& peer) {
    peer.ReadRequest();
    peer.Write(Answer("ok", "Connection: close\r\n"));
    peer.CloseNotify();
    peer.WaitForPeerToLeave();
  });
  const BlackHole hole("127.0.0.2", server.port());
  Options options = Http1("https://two.example.test:" + std::to_string(server.port()));
  options.connect_timeout = milliseconds(8000);
  Harness harness(options);
  for (int i = 0; i < 2; ++i) ExpectAnswered(harness.Ask(), 201, "ok");  // the name is cached the second time
  EXPECT_EQ(server.requests, 2);
}

// The first connection is busy with a request when the second one's handshake goes nowhere.
TEST(CurlClient, StalledHandshakeEndsWhileOthersAreBusy) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    Event release;
    TlsServer::Settings settings;
    settings.silent_from = 1;
    TlsServer server(settings, [&](TlsPeer& peer) {
      if (peer.index() > 0) return peer.WaitForPeerToLeave();
      peer.ReadRequest();
      release.Wait();
      peer.Write(Answer("late"));
      peer.WaitForPeerToLeave();
    });
    Options options = Http1(server);
    options.connect_timeout = milliseconds(2000);
    Harness harness(options, method);
    Call& busy = harness.Start();
    ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
    ExpectNotSent(harness.Finish(harness.Start()), NotSentCause::kTimeout);
    EXPECT_EQ(busy.done, 0);
    release.Set();
    ExpectAnswered(harness.Finish(busy), 201, "late");
  }
}

TEST(CurlClient, DoneMayStartAndCancel) {
  TlsServer server(Serve);
  Harness harness(Http1(server));
  std::optional<Outcome> second, third;
  Client& client = harness.client();
  int depth = 0;
  client.Start(Harness::MakeRequest(), [&](Outcome) {
    ++depth;
    client.Start(Harness::MakeRequest(), [&](Outcome outcome) {
      EXPECT_EQ(depth, 0);
      second = std::move(outcome);
    });
    const auto id = client.Start(Harness::MakeRequest(), [&](Outcome outcome) {
      EXPECT_EQ(depth, 0);
      third = std::move(outcome);
    });
    EXPECT_TRUE(client.CancelUnsent(id));
    --depth;
  });
  ASSERT_TRUE(harness.RunUntil([&] { return second.has_value() && third.has_value(); }));
  ExpectAnswered(*second, 201, "0.1");
  ExpectNotSent(*third, NotSentCause::kCancelled);
}

TEST(CurlClient, DestroyedWithExchangesUnderWay) {
  TlsServer server([](TlsPeer& peer) { peer.WaitForPeerToLeave(); });
  Options options = Http1(server);
  options.max_connections = 2;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(&harness.Start());
  ASSERT_TRUE(harness.RunUntil([&] { return server.accepted == 2; }));
  EXPECT_TRUE(harness.client().CancelUnsent(calls[4]->id));
  harness.DestroyClient();
  for (Call* call : calls) EXPECT_EQ(call->done, 0);
}

TEST(CurlClient, ConnectionCapHolds) {
  TlsServer server([](TlsPeer& peer) { Serve(peer); });
  Options options = Http1(server);
  options.max_connections = 3;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 60; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_LE(server.accepted, 3);
  EXPECT_EQ(server.requests, 60);
}

// libcurl 7.88 moves those that wait for a connection about in its own list.
TEST(CurlClient, ThoseThatWaitGoInTheirOrder) {
  std::mutex mutex;
  std::vector<std::string> order;
  TlsServer server([&](TlsPeer& peer) {
    ReceivedRequest request;
    if (!peer.ReadRequest(&request)) return;
    const std::lock_guard lock(mutex);
    order.push_back(request.body);
    peer.Write(Answer("one", "Connection: close\r\n"));
  });
  Options options = Http1(server);
  options.max_connections = 1;
  Harness harness(options);
  std::vector<std::string> wanted;
  std::vector<Call*> calls;
  for (int i = 0; i < 12; ++i) {
    wanted.push_back(std::to_string(i));
    calls.push_back(&harness.Start(Harness::MakeRequest(wanted.back())));
  }
  for (Call* call : calls) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_EQ(order, wanted);
}

// ---- HTTP/2

TlsServer::Settings H2() {
  TlsServer::Settings settings;
  settings.alpn = "h2,http/1.1";
  return settings;
}

// A server that speaks h2 and does `act` with each request; with HTTP/1.1, should the client come with it, it only
// counts.
struct H2Server {
  using Act = std::function<void(H2Peer&, int connection, int32_t stream, int count)>;
  explicit H2Server(Act act)
      : server(H2(), [this, act](TlsPeer& peer) {
          if (peer.alpn() != "h2") return Serve(peer);
          H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int count) { act(h, peer.index(), stream, count); });
          h2.Run();
        }) {}
  TlsServer server;
};

void AnswerH2(H2Peer& h2, int connection, int32_t stream, int count) {
  h2.Answer(stream, 201, std::to_string(connection) + "." + std::to_string(count));
}

// What a peer may do to the stream instead of answering.
struct Loss {
  const char* name;
  std::function<void(H2Peer&, int32_t stream)> act;
};
class Losses : public ::testing::TestWithParam<Loss> {};
const Loss kLosses[] = {
    {"RefusedStream", [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM); }},
    {"Http11Required", [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED); }},
    {"InternalError", [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_INTERNAL_ERROR); }},
    {"Cancel", [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_CANCEL); }},
    {"NoError", [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_NO_ERROR); }},
    {"GoAwayUnseen",
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream - 2 < 0 ? 0 : stream - 2, NGHTTP2_NO_ERROR);
       h2.Stop();
     }},
    {"GoAwaySeen",
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream, NGHTTP2_NO_ERROR);
       h2.Stop();
     }},
    {"GoAwayHttp11Required",
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream, NGHTTP2_HTTP_1_1_REQUIRED);
       h2.Stop();
     }},
    {"GoAwayEnhanceYourCalm",
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream, NGHTTP2_ENHANCE_YOUR_CALM);
       h2.Stop();
     }},
    {"Close", [](H2Peer& h2, int32_t) { h2.Stop(); }},
};
INSTANTIATE_TEST_SUITE_P(Kinds, Losses, ::testing::ValuesIn(kLosses),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(Losses, OnAFreshConnectionArriveOnce) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    H2Server peer([](H2Peer& h2, int connection, int32_t stream, int count) {
      if (connection == 0 && count == 0) return GetParam().act(h2, stream);
      AnswerH2(h2, connection, stream, count);
    });
    Harness harness(Http2(peer.server), method);
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(peer.server.requests, 1);
    EXPECT_EQ(peer.server.bodies, 1);
    EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);  // and the client is none the worse
    EXPECT_EQ(peer.server.requests, 2);
  }
}

TEST_P(Losses, OnAReusedConnectionArriveOnce) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    H2Server peer([](H2Peer& h2, int connection, int32_t stream, int count) {
      if (connection == 0 && count == 1) return GetParam().act(h2, stream);
      AnswerH2(h2, connection, stream, count);
    });
    Harness harness(Http2(peer.server), method);
    ExpectAnswered(harness.Ask(), 201, "0.0");
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(peer.server.requests, 2);
    EXPECT_EQ(peer.server.bodies, 2);
    EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
    EXPECT_EQ(peer.server.requests, 3);
  }
}

TEST(CurlClientHttp2, ResetAfterTheStatusKeepsIt) {
  for (const Method method : kMethods) {
    SCOPED_TRACE(method == Method::kGet ? "GET" : "POST");
    H2Server peer([](H2Peer& h2, int, int32_t stream, int) {
      h2.Answer(stream, 201, "half", false);
      h2.Stop();
    });
    Harness harness(Http2(peer.server), method);
    const Outcome& outcome = harness.Ask();
    EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
    EXPECT_EQ(outcome.status, 201);
    EXPECT_FALSE(outcome.body_complete);
    EXPECT_EQ(peer.server.requests, 1);
  }
}

TEST(CurlClientHttp2, BodyLimitLeavesTheConnectionToOthers) {
  H2Server peer([](H2Peer& h2, int connection, int32_t stream, int count) {
    if (count == 0) return h2.Answer(stream, 201, std::string(40000, 'x'));
    AnswerH2(h2, connection, stream, count);
  });
  Options options = Http2(peer.server);
  options.max_answer_bytes = 1000;
  Harness harness(options);
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered);
  EXPECT_EQ(outcome.body.size(), 1000u);
  EXPECT_FALSE(outcome.body_complete);
  ExpectAnswered(harness.Ask(), 201, "0.1");
  EXPECT_EQ(peer.server.requests, 2);
}

TEST(CurlClientHttp2, ServerWithoutItGetsHttp1) {
  TlsServer server(Serve);
  Harness harness(Http2(server));
  std::vector<Call*> calls;
  for (int i = 0; i < 10; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_EQ(server.requests, 10);
}

}  // namespace
}  // namespace userintent::http
