// What the client on nghttp2 does beyond any_client_test.cc: what it proves of streams, how it uses its connections,
// and peers that no library would be.
#include "server/http/h2_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/frame_peer.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

TlsServer::Settings H2() {
  TlsServer::Settings settings;
  settings.alpn = "h2";
  return settings;
}

// A server that says frames.
struct FrameServer {
  using Script = std::function<void(FramePeer&, int connection)>;
  explicit FrameServer(Script script, FramePeer::Settings settings = {})
      : server(H2(), [this, script, settings](TlsPeer& peer) {
          FramePeer frames(server, peer);
          if (frames.Begin(settings)) script(frames, peer.index());
        }) {}
  TlsServer server;
};

// Answers everything with the connection's number.
void Serve(FramePeer& peer, int connection) {
  for (int32_t stream; peer.NextRequest(&stream);) peer.Answer(stream, 201, std::to_string(connection));
}

Options For(const TlsServer& server) {
  Options options = Http1(server);
  options.http2 = true;
  options.transport = Transport::kNghttp2;
  return options;
}
Options For(const FrameServer& server) { return For(server.server); }

Harness Tuned(const Options& options, const H2Tuning& tuning) {
  return Harness(*H2Client::Create(options, nullptr, tuning));
}

constexpr uint16_t kMaxConcurrentStreams = 3;
constexpr uint16_t kInitialWindowSize = 4;

// What holds for a POST and a GET alike.
class H2Requests : public ::testing::TestWithParam<Method> {
 protected:
  class Harness : public http::Harness {  // asks with the method that is tested
   public:
    explicit Harness(Options options) : http::Harness(std::move(options), GetParam()) {}
  };
};
INSTANTIATE_TEST_SUITE_P(Methods, H2Requests, ::testing::Values(Method::kPost, Method::kGet),
                         [](const auto& param) { return std::string(param.param == Method::kPost ? "Post" : "Get"); });

// ---- refused, answered or lost

TEST_P(H2Requests, GoAwaySortsTheStreams) {
  Event sent_all;
  FrameServer peer([&](FramePeer& frames, int connection) {
    if (connection > 0) return Serve(frames, connection);
    int32_t stream = 0;
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(frames.NextRequest(&stream));
    ASSERT_EQ(stream, 9);
    sent_all.Set();
    frames.Send(Frame::kGoAway, 0, 0, Number32(5) + Number32(0));
    frames.Send(Frame::kRstStream, 0, 3, Number32(NGHTTP2_INTERNAL_ERROR));
    frames.Answer(1, 201, "one");
    // 5 hangs until the connection goes.
    frames.Send(Frame::kPing, 0, 0, "12345678");
    Frame frame;
    frames.NextOf(Frame::kPing, &frame);
  });
  Harness harness(For(peer));
  std::vector<Call*> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(&harness.Start());
  ExpectAnswered(harness.Finish(*calls[0]), 201, "one");
  ExpectMaybeSent(harness.Finish(*calls[1]));
  ExpectMaybeSent(harness.Finish(*calls[2]));
  EXPECT_EQ(harness.Finish(*calls[3]).fate, Fate::kRefused);
  EXPECT_EQ(harness.Finish(*calls[4]).fate, Fate::kRefused);
  EXPECT_EQ(peer.server.requests, 5);
  ExpectAnswered(harness.Ask(), 201, "1");
  EXPECT_EQ(peer.server.requests, 6);
  EXPECT_EQ(peer.server.accepted, 2);
}

TEST(H2Client, AfterAGoAwayTheNextGoesElsewhereWhileTheOldOneEnds) {
  Event release;
  FrameServer peer([&](FramePeer& frames, int connection) {
    if (connection > 0) return Serve(frames, connection);
    int32_t stream = 0;
    ASSERT_TRUE(frames.NextRequest(&stream));
    frames.Send(Frame::kGoAway, 0, 0, Number32(INT32_MAX) + Number32(0));  // as servers announce that they will go
    release.Wait();
    frames.Send(Frame::kGoAway, 0, 0, Number32(1) + Number32(0));
    frames.Answer(stream, 201, "old");
    frames.Drain();
  });
  Options options = For(peer);
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  harness.RunFor(milliseconds(50));
  ExpectAnswered(harness.Ask(), 201, "1");
  EXPECT_EQ(first.done, 0);
  release.Set();
  ExpectAnswered(harness.Finish(first), 201, "old");
}

TEST_P(H2Requests, ARefusalAfterAnAnswerIsNone) {
  for (const int status : {103, 201}) {
    for (const bool goaway : {false, true}) {
      FrameServer peer([&](FramePeer& frames, int connection) {
        if (connection > 0) return Serve(frames, connection);
        int32_t stream = 0;
        ASSERT_TRUE(frames.NextRequest(&stream));
        frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(status));
        if (goaway) frames.Send(Frame::kGoAway, 0, 0, Number32(0) + Number32(0));
        if (!goaway) frames.Send(Frame::kRstStream, 0, stream, Number32(NGHTTP2_REFUSED_STREAM));
        Serve(frames, 1);
      });
      Harness harness(For(peer));
      const Outcome& outcome = harness.Ask();
      if (status == 103) {
        ExpectMaybeSent(outcome);
      } else {
        EXPECT_EQ(outcome.fate, Fate::kAnswered);
        EXPECT_EQ(outcome.status, 201);
        EXPECT_FALSE(outcome.body_complete);
      }
      ExpectAnswered(harness.Ask(), 201, "1");
      EXPECT_EQ(peer.server.requests, 2);
    }
  }
}

TEST(H2Client, AGetIsOneFrame) {
  std::vector<Frame> frames_of_it;
  Event left;
  FrameServer peer([&](FramePeer& frames, int) {
    Frame frame;
    while (frames.Next(&frame)) {
      if (frame.stream == 0) continue;
      if (frame.type == Frame::kHeaders) frames.Answer(frame.stream, 200, "ok");
      frames_of_it.push_back(frame);
    }
    left.Set();
  });
  {
    Harness harness(For(peer), Method::kGet);
    ExpectAnswered(harness.Ask(), 200, "ok");
    ExpectAnswered(harness.Ask(), 200, "ok");
    harness.DestroyClient();
  }
  ASSERT_TRUE(left.Wait());
  ASSERT_EQ(frames_of_it.size(), 2u);
  for (const Frame& frame : frames_of_it) {
    EXPECT_EQ(frame.type, Frame::kHeaders);
    EXPECT_EQ(frame.flags, Frame::kEndHeaders | Frame::kEndStream);
  }
  EXPECT_EQ(peer.server.requests, 2);
}

TEST(H2Client, AnswerBeforeTheBodyIsWhole) {
  std::atomic<bool> reset{false};
  FrameServer peer(
      [&](FramePeer& frames, int connection) {
        Frame frame;
        if (connection > 0 || !frames.NextOf(Frame::kHeaders, &frame)) return;
        frames.Answer(frame.stream, 413, "big");
        frames.Send(Frame::kRstStream, 0, frame.stream, Number32(NGHTTP2_NO_ERROR));
        const int32_t stream = frame.stream;
        while (frames.NextOf(Frame::kRstStream, &frame)) reset = reset || frame.stream == stream;
      },
      {{kInitialWindowSize, 0}});
  Harness harness(For(peer));
  ExpectAnswered(harness.Ask(), 413, "big");
  ASSERT_TRUE(harness.RunUntil([&] { return reset.load(); }));  // the rest of the request is called off
  EXPECT_EQ(peer.server.bodies, 0);
}

TEST(H2Client, HeadsThatAreMalformedAreNoAnswer) {
  const std::string kHeads[] = {
      Literal("request-id", "x"),               // no status
      Head(201) + Literal(":path", "/"),        // a request's field
      Literal("request-id", "x") + Head(201),   // status too late
      Head(201) + Literal("X-Served-By", "1"),  // a name that is not in lower case
      Head(201) + Literal("content-length", "one"),
      Head(201) + Literal("content-length", "1") + Literal("content-length", "2"),
      Head(201) + Head(201),  // twice
      "\x08\x03"
      "2x1",
  };
  for (const std::string& head : kHeads) {
    FrameServer peer([&](FramePeer& frames, int) {
      int32_t stream = 0;
      if (!frames.NextRequest(&stream)) return;
      frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, head);
      frames.Send(Frame::kData, Frame::kEndStream, stream, "x");
      Serve(frames, 0);
    });
    Harness harness(For(peer));
    const Outcome& outcome = harness.Ask();
    ExpectMaybeSent(outcome);
    EXPECT_THAT(std::string(outcome.detail), ::testing::StartsWith("malformed answer: "));
    ExpectAnswered(harness.Ask(), 201, "0");  // only the stream was wrong
    EXPECT_EQ(peer.server.accepted, 1);
  }
}

TEST(H2Client, ContentLengthThatLiesCutsTheAnswer) {
  for (const char* length : {"2", "4"}) {
    FrameServer peer([&](FramePeer& frames, int) {
      int32_t stream = 0;
      if (!frames.NextRequest(&stream)) return;
      frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(201) + Literal("content-length", length));
      frames.Send(Frame::kData, Frame::kEndStream, stream, "abc");
      frames.Drain();
    });
    Harness harness(For(peer));
    const Outcome& outcome = harness.Ask();
    EXPECT_EQ(outcome.fate, Fate::kAnswered);
    EXPECT_EQ(outcome.status, 201);
    EXPECT_FALSE(outcome.body_complete);
  }
}

TEST(H2Client, SlowBytesAndTrailersAreRead) {
  FrameServer peer([&](FramePeer& frames, int) {
    int32_t stream = 0;
    if (!frames.NextRequest(&stream)) return;
    const std::string answer =
        Frame{Frame::kHeaders, Frame::kEndHeaders, stream, Head(201)}.Bytes() +
        Frame{Frame::kData, 0, stream, "slow"}.Bytes() +
        Frame{Frame::kHeaders, Frame::kEndHeaders | Frame::kEndStream, stream, Literal("request-id", "trailer")}
            .Bytes();
    for (const char byte : answer) frames.Write(std::string(1, byte));
    frames.Drain();
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, "slow");
  EXPECT_EQ(outcome.request_id, "");
}

// Limits that come late and in pieces, a window of single bytes, padding, CONTINUATION, frames of no known type.
TEST(H2Client, OddButLegalPeersAreUnderstood) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer::Settings settings = H2();
    settings.max_version = version;
    std::string body;
    TlsServer server(settings, [&](TlsPeer& peer) {
      FramePeer frames(server, peer);
      const std::string limits = std::string("\0\x03", 2) + Number32(1) + std::string("\0\x04", 2) + Number32(0) +
                                 std::string("\x12\x34", 2) + Number32(7);
      for (const char byte : Frame{Frame::kSettings, 0, 0, limits}.Bytes()) frames.Write(std::string(1, byte));
      Frame frame;
      if (!frames.Begin({{kMaxConcurrentStreams, 1}, {1, 0}}) || !frames.NextOf(Frame::kHeaders, &frame)) return;
      const int32_t stream = frame.stream;
      do {
        frames.Send(Frame::kWindow, 0, stream, Number32(1));
        if (!frames.NextOf(Frame::kData, &frame)) return;
        body += frame.payload;
      } while ((frame.flags & Frame::kEndStream) == 0);
      frames.Send(0xfa, 0xff, stream, "who knows");
      frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(103));
      frames.Send(Frame::kPriority, 0, stream, Number32(0) + "x");
      frames.Send(Frame::kHeaders, Frame::kPadded, stream, "\x03" + Head(201) + std::string(3, 0));
      frames.Send(Frame::kContinuation, 0, stream, "");
      frames.Send(Frame::kContinuation, Frame::kEndHeaders, stream, Literal("request-id", "late"));
      peer.SendTicket();
      frames.Send(Frame::kData, 0, stream, "");
      frames.Send(Frame::kData, Frame::kPadded, stream, std::string(1, 5) + "od" + std::string(5, 0));
      frames.Send(Frame::kPing, 0, 0, "12345678");
      frames.Send(Frame::kSettings, 0, 0, std::string("\0\x03", 2) + Number32(0));  // no more of them
      frames.Send(Frame::kData, Frame::kPadded, stream, std::string(1, 0) + "d");
      frames.Send(Frame::kData, Frame::kEndStream | Frame::kPadded, stream, std::string(1, 9) + std::string(9, 0));
      frames.Send(Frame::kRstStream, 0, stream, Number32(NGHTTP2_NO_ERROR));
      frames.Drain();
    });
    Harness harness(For(server));
    const Outcome& outcome = harness.Ask();
    ExpectAnswered(outcome, 201, "odd");
    EXPECT_EQ(outcome.request_id, "late");
    EXPECT_EQ(body, kBody);
    EXPECT_EQ(server.requests, 1);
    EXPECT_EQ(server.accepted, 1);
  }
}

TEST(H2Client, ASecondAnswerReachesNobody) {
  FrameServer peer([&](FramePeer& frames, int connection) {
    if (connection > 0) return Serve(frames, connection);
    int32_t stream = 0;
    ASSERT_TRUE(frames.NextRequest(&stream));
    frames.Answer(stream, 201, "mine");
    frames.Answer(stream, 201, "evil");
    frames.Answer(stream + 2, 201, "evil");  // a stream that does not exist yet
    Serve(frames, 9);
  });
  Harness harness(For(peer));
  ExpectAnswered(harness.Ask(), 201, "mine");
  for (int i = 0; i < 3; ++i) {
    const Outcome& outcome = harness.Ask();
    EXPECT_NE(outcome.body, "evil");
    EXPECT_NE(outcome.fate, Fate::kRefused);
  }
}

TEST_P(H2Requests, ClosedWithinTheBodyKeepsTheStatus) {
  FrameServer peer([&](FramePeer& frames, int) {
    int32_t stream = 0;
    if (!frames.NextRequest(&stream)) return;
    frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(429) + Literal("retry-after", "3"));
    frames.Send(Frame::kData, 0, stream, "half");
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered);
  EXPECT_EQ(outcome.status, 429);
  EXPECT_EQ(outcome.retry_after, "3");
  EXPECT_EQ(outcome.body, "half");
  EXPECT_FALSE(outcome.body_complete);
}

TEST_P(H2Requests, BytesThatAreNotHttp2LeaveTheRequestUnsent) {
  for (const char* bytes : {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "garbage garbage garbage", ""}) {
    TlsServer server(H2(), [&](TlsPeer& peer) {
      if (*bytes != 0) peer.Write(bytes);
      peer.CloseNotify();
      peer.WaitForPeerToLeave();
    });
    Harness harness(For(server));
    ExpectNotSent(harness.Ask(), NotSentCause::kConnect);
  }
}

TEST_P(H2Requests, NothingLeavesBeforeThePeerHasSaidItsLimits) {
  Event connected;
  TlsServer server(H2(), [&](TlsPeer& peer) {
    char byte;
    peer.Read(&byte, 1);
    connected.Set();
    peer.WaitForPeerToLeave();
  });
  Options options = For(server);
  options.connect_timeout = milliseconds(2000);
  Harness harness(options);
  Call& cancelled = harness.Start();
  Call& late = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return connected.IsSet(); }));
  EXPECT_TRUE(harness.client().CancelUnsent(cancelled.id));
  ExpectNotSent(harness.Finish(cancelled), NotSentCause::kCancelled);
  ExpectNotSent(harness.Finish(late), NotSentCause::kTimeout);
}

TEST(H2Client, SecretsStayOutOfTheCompressionTable) {
  std::string block;
  FrameServer peer([&](FramePeer& frames, int) {
    Frame frame;
    if (!frames.NextOf(Frame::kHeaders, &frame)) return;
    block = frame.payload;
    frames.Answer(frame.stream, 201, "");
    frames.Drain();
  });
  Harness harness(For(peer));
  harness.Ask();
  // RFC 7541 section 6.2.3: never indexed, with the name `authorization`, number 23 of the static table.
  EXPECT_THAT(block, HasSubstr("\x1f\x08"));
}

// ---- connections

TEST_P(H2Requests, OneStreamAtATimeIfThePeerWantsItSo) {
  std::atomic<int> open{0}, most{0};
  TlsServer server(H2(), [&](TlsPeer& peer) {
    H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int) {
      most = std::max(most.load(), ++open);
      h.Answer(stream, 201, "x");
      --open;
    });
    h2.Set(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1);
    h2.Run();
  });
  Options options = For(server);
  options.max_connections = 1;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) ExpectAnswered(harness.Finish(*call), 201, "x");
  EXPECT_EQ(server.accepted, 1);
  EXPECT_EQ(server.requests, 20);
  EXPECT_EQ(most, 1);
}

TEST(H2Client, ThousandsShareAFewConnections) {
  TlsServer server(H2(), [&](TlsPeer& peer) {
    H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int) { h.Answer(stream, 201, "x"); });
    h2.Set(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1000);
    h2.Run();
  });
  Harness harness(For(server));
  std::vector<Call*> calls;
  for (int i = 0; i < 5000; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) ASSERT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_EQ(server.requests, 5000);
  EXPECT_EQ(server.bodies, 5000);
  EXPECT_LE(server.accepted, 20);  // of 256 streams each
  EXPECT_EQ(harness.client().stats().connections_opened, static_cast<uint64_t>(server.accepted));
}

TEST(H2Client, UsedUpStreamIdsOpenAnotherConnection) {
  FrameServer peer(Serve);
  H2Tuning tuning;
  tuning.first_stream = INT32_MAX - 2;
  Harness harness = Tuned(For(peer), tuning);
  ExpectAnswered(harness.Ask(), 201, "0");
  ExpectAnswered(harness.Ask(), 201, "0");  // INT32_MAX, the last one
  ExpectAnswered(harness.Ask(), 201, "1");
  EXPECT_EQ(peer.server.requests, 3);
}

TEST(H2Client, AConnectionThatStallsIsNotUsedAgain) {
  std::atomic<int> resets{0};
  FrameServer peer(
      [&](FramePeer& frames, int connection) {
        if (connection > 0) return frames.Drain();
        Frame frame;
        while (frames.NextOf(Frame::kRstStream, &frame)) {
          if (frame.payload == Number32(NGHTTP2_CANCEL)) ++resets;
        }
      },
      {{kInitialWindowSize, 0}});
  Options options = For(peer);
  options.exchange_timeout = milliseconds(1000);
  Harness harness(options);
  Call& call = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.requests == 1; }));
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));
  ExpectMaybeSent(harness.Finish(call));  // its head had left, though no byte of its body
  ASSERT_TRUE(harness.RunUntil([&] { return resets == 1; }));
  ExpectMaybeSent(harness.Ask());
  EXPECT_EQ(peer.server.requests, 2);
  EXPECT_EQ(peer.server.bodies, 0);
  EXPECT_EQ(peer.server.accepted, 2);
}

TEST(H2Client, ASilentPeerIsAskedAndThenLeft) {
  for (const bool alive : {false, true}) {
    std::atomic<int> pings{0};
    FrameServer peer([&](FramePeer& frames, int) {
      int32_t stream = 0;
      if (!frames.NextRequest(&stream)) return;
      Frame frame;
      while (frames.NextOf(Frame::kPing, &frame)) {
        ++pings;
        if (alive) frames.Send(Frame::kPing, Frame::kAck, 0, frame.payload);
        if (alive && pings == 3) frames.Answer(stream, 201, "late");
      }
    });
    H2Tuning tuning;
    tuning.ping_after = milliseconds(150);
    tuning.ping_timeout = alive ? milliseconds(20000) : milliseconds(150);
    Harness harness = Tuned(For(peer), tuning);
    const Outcome& outcome = harness.Ask();
    if (alive) {
      ExpectAnswered(outcome, 201, "late");
      EXPECT_EQ(pings, 3);
    } else {
      ExpectMaybeSent(outcome);
      EXPECT_EQ(outcome.detail, "connection fell silent");
      EXPECT_EQ(pings, 1);
    }
  }
}

TEST(H2Client, IdleConnectionsAreClosedProperly) {
  Event gone;
  FrameServer peer([&](FramePeer& frames, int connection) {
    int32_t stream = 0;
    if (!frames.NextRequest(&stream)) return;
    frames.Answer(stream, 201, std::to_string(connection));
    Frame frame;
    if (frames.NextOf(Frame::kGoAway, &frame)) gone.Set();
  });
  H2Tuning tuning;
  tuning.idle_limit = milliseconds(200);
  Harness harness = Tuned(For(peer), tuning);
  ExpectAnswered(harness.Ask(), 201, "0");
  ASSERT_TRUE(harness.RunUntil([&] { return gone.IsSet(); }));
  ExpectAnswered(harness.Ask(), 201, "1");
}

TEST(H2Client, OldConnectionsAreReplacedWithoutAPause) {
  FrameServer peer(Serve);
  H2Tuning tuning;
  tuning.age_limit = milliseconds(500);  // longer than the first exchange takes on a busy machine
  Harness harness = Tuned(For(peer), tuning);
  ExpectAnswered(harness.Ask(), 201, "0");
  harness.RunFor(milliseconds(600));
  ExpectAnswered(harness.Ask(), 201, "0");  // while the next one is being opened
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.accepted >= 2; }));
  EXPECT_EQ(peer.server.requests, 2);
}

TEST_P(H2Requests, IdleConnectionThatWasClosedIsReplaced) {
  Event answered, dropped;
  TlsServer server(H2(), [&](TlsPeer& peer) {
    FramePeer frames(server, peer);
    int32_t stream = 0;
    if (!frames.Begin() || !frames.NextRequest(&stream)) return;
    frames.Answer(stream, 201, std::to_string(peer.index()));
    if (peer.index() > 0) return frames.Drain();
    answered.Wait();
    peer.CloseNotify();
    dropped.Set();
    frames.Drain();
  });
  Harness harness(For(server));
  ExpectAnswered(harness.Ask(), 201, "0");
  answered.Set();
  ASSERT_TRUE(dropped.Wait());
  ASSERT_TRUE(BytesArrived(server.port()));
  ExpectAnswered(harness.Ask(), 201, "1");
  EXPECT_EQ(server.requests, 2);
}

// The first connection is full when the handshake of the second one goes nowhere.
TEST(H2Client, WhoeverWaitsIsServedByTheConnectionThatWorks) {
  Event release;
  TlsServer::Settings settings = H2();
  settings.silent_from = 1;
  TlsServer server(settings, [&](TlsPeer& peer) {
    if (peer.index() > 0) return peer.WaitForPeerToLeave();
    FramePeer frames(server, peer);
    int32_t stream = 0;
    if (!frames.Begin({{kMaxConcurrentStreams, 1}}) || !frames.NextRequest(&stream)) return;
    release.Wait();
    frames.Answer(stream, 201, "first");
    Serve(frames, 0);
  });
  Options options = For(server);
  options.connect_timeout = milliseconds(500);
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.bodies == 1; }));
  Call& second = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.accepted >= 2; }));
  harness.RunFor(milliseconds(800));
  EXPECT_EQ(first.done + second.done, 0);
  EXPECT_LE(server.accepted, 3);  // no storm
  release.Set();
  ExpectAnswered(harness.Finish(first), 201, "first");
  ExpectAnswered(harness.Finish(second), 201, "0");
}

TEST(H2Client, APeerThatGoesAwayAtOnceIsNotAskedAgainAndAgain) {
  TlsServer server(H2(), [](TlsPeer& peer) {
    peer.Write(Frame{Frame::kSettings, 0, 0, ""}.Bytes() +
               Frame{Frame::kGoAway, 0, 0, Number32(0) + Number32(0)}.Bytes());
    peer.WaitForPeerToLeave();
  });
  Options options = For(server);
  options.connect_timeout = milliseconds(2000);
  Harness harness(options);
  ExpectNotSent(harness.Ask(), NotSentCause::kConnect);
  EXPECT_EQ(server.accepted, 1);
  EXPECT_EQ(server.requests, 0);
}

// The connection breaks while it is written to; what the peer had said before is still in the socket.
TEST(H2Client, WhatThePeerSaidBeforeItBrokeOffIsHeard) {
  Event go_on;
  TlsServer server(H2(), [&](TlsPeer& peer) {
    FramePeer frames(server, peer);
    int32_t stream = 0;
    if (!frames.Begin() || !frames.NextRequest(&stream) || !frames.NextRequest(&stream)) return;
    frames.Answer(1, 201, "first");
    go_on.Wait();
    frames.Answer(3, 201, "second");
    peer.Reset();
  });
  Harness harness(For(server));
  Call third;
  int first_done = 0;
  harness.client().Start(Harness::MakeRequest(), [&](Outcome) {
    ++first_done;
    const std::vector<int> sockets = SocketsTo(server.port());
    ASSERT_EQ(sockets.size(), 1u);
    go_on.Set();
    pollfd broken{sockets[0], 0, 0};
    ASSERT_EQ(poll(&broken, 1, 30000), 1);
    harness.client().Start(Harness::MakeRequest(), [&](Outcome outcome) {
      ++third.done;
      third.outcome = std::move(outcome);
    });
  });
  ExpectAnswered(harness.Ask(), 201, "second");
  harness.Finish(third);
  EXPECT_NE(third.outcome.fate, Fate::kAnswered);
  EXPECT_EQ(first_done, 1);
  EXPECT_EQ(server.requests, 2);
}

// The answer came before the body had left, and the socket stays full.
TEST(H2Client, AFullSocketWithNothingUnderWayHoldsUpNobody) {
  Event full, release;
  FrameServer peer(
      [&](FramePeer& frames, int connection) {
        if (connection > 0) return Serve(frames, connection);
        Frame frame;
        frames.Send(Frame::kWindow, 0, 0, Number32(1 << 30));
        if (!frames.NextOf(Frame::kHeaders, &frame)) return;
        full.Wait();
        frames.Answer(frame.stream, 413, "big");
        release.Wait();
      },
      {{kInitialWindowSize, INT32_MAX}});
  H2Tuning tuning;
  tuning.max_unsent = 900 << 10;  // what is left of it is more than a socket takes by and by, though nobody reads
  Harness harness = Tuned(For(peer), tuning);
  Call& large = harness.Start(Harness::MakeRequest(std::string(32 << 20, 'x')));
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.requests == 1; }));
  const std::vector<int> sockets = SocketsTo(peer.server.port());
  ASSERT_EQ(sockets.size(), 1u);
  SteadyTime writable = SteadyClock::now();
  ASSERT_TRUE(harness.RunUntil([&] {
    pollfd state{sockets[0], POLLOUT, 0};
    if (poll(&state, 1, 0) == 1) writable = SteadyClock::now();
    // Far less than one second, which is how long a full socket counts as busy.
    return SteadyClock::now() - writable > milliseconds(200);
  }));
  full.Set();
  ExpectAnswered(harness.Finish(large), 413, "big");
  Call& small = harness.Start();
  const auto start = SteadyClock::now();
  ASSERT_TRUE(harness.RunAlone([&] { return small.done > 0; }));
  ExpectAnswered(small.outcome, 201, "1");
  EXPECT_LT(SteadyClock::now() - start, seconds(10));  // not by a timeout
  release.Set();
}

// A connection that takes no streams breaks at the very end of a turn, after those who wait were looked at.
TEST(H2Client, WhoeverWaitsIsLookedAtWhenTheConnectionBreaks) {
  Event ready, break_off;
  TlsServer server(H2(), [&](TlsPeer& peer) {
    FramePeer frames(server, peer);
    Frame frame;
    if (peer.index() > 0) return frames.Begin() ? Serve(frames, peer.index()) : void();
    if (!frames.Begin({{kMaxConcurrentStreams, 0}}) || !frames.NextOf(Frame::kSettings, &frame)) return;
    ready.Wait();
    frames.Send(Frame::kPing, 0, 0, "12345678");
    break_off.Wait();
    peer.Reset();
  });
  Options options = For(server);
  options.max_connections = 1;
  H2Tuning tuning;
  tuning.reconnect_after = milliseconds(0);  // else a connection that breaks so early ends those who wait
  Harness harness = Tuned(options, tuning);
  bool cancelled = false;
  const Client::ExchangeId id = harness.client().Start(Harness::MakeRequest(), [&](Outcome) {
    cancelled = true;
    const std::vector<int> sockets = SocketsTo(server.port());
    ASSERT_EQ(sockets.size(), 1u);
    break_off.Set();
    pollfd broken{sockets[0], 0, 0};
    ASSERT_EQ(poll(&broken, 1, 30000), 1);
  });
  Call& waits = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return harness.client().stats().connections_opened == 1; }));
  ready.Set();
  ASSERT_TRUE(BytesArrived(server.port()));  // the PING, to which the answer will not be taken
  ASSERT_TRUE(harness.client().CancelUnsent(id));
  const auto start = SteadyClock::now();
  ASSERT_TRUE(harness.RunAlone([&] { return waits.done > 0; }));
  ExpectAnswered(waits.outcome, 201, "1");
  EXPECT_TRUE(cancelled);
  EXPECT_LT(SteadyClock::now() - start, seconds(10));  // not by a timeout
}

// Its last exchange has given up by the time the sign of life is due.
TEST(H2Client, AConnectionThatIsDeadIsNotUsedAgain) {
  Event release;
  FrameServer peer([&](FramePeer& frames, int connection) {
    if (connection > 0) return Serve(frames, connection);
    int32_t stream = 0;
    if (!frames.NextRequest(&stream) || !frames.NextRequest(&stream)) return;
    frames.Answer(stream, 201, "one");
    release.Wait();
  });
  H2Tuning tuning;
  tuning.ping_after = milliseconds(1400);
  tuning.ping_timeout = milliseconds(1200);
  Options options = For(peer);
  options.exchange_timeout = milliseconds(2000);
  Harness harness = Tuned(options, tuning);
  Call& late = harness.Start();
  ExpectAnswered(harness.Ask(), 201, "one");
  ExpectMaybeSent(harness.Finish(late));
  harness.RunFor(milliseconds(1200));
  ExpectAnswered(harness.Ask(), 201, "1");
  release.Set();
}

TEST(H2Client, ASessionThatThePeerDoesNotResumeIsForgotten) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer::Settings settings = H2();
    settings.max_version = version;
    settings.drops_resumed = true;
    TlsServer server(settings, [&](TlsPeer& peer) {
      FramePeer frames(server, peer);
      int32_t stream = 0;
      if (!frames.Begin() || !frames.NextRequest(&stream)) return;
      frames.Answer(stream, 201, std::to_string(peer.index()));
      frames.Send(Frame::kGoAway, 0, 0, Number32(static_cast<uint32_t>(stream)) + Number32(0));
      frames.Drain();
    });
    Harness harness(For(server));
    ExpectAnswered(harness.Ask(), 201, "0");
    EXPECT_EQ(harness.Ask().fate, Fate::kNotSent);
    ExpectAnswered(harness.Ask(), 201, "2");
  }
}

// ---- hostile peers: each costs the connection, and the exchange on it is unknown

struct Attack {
  const char* name;
  std::function<void(FramePeer&, int32_t stream)> act;
};
const Attack kAttacks[] = {
    {"PushPromise",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kPushPromise, Frame::kEndHeaders, stream, Number32(2) + "\x82\x87\x84");
     }},
    {"ContinuationFlood",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kHeaders, 0, stream, Head(201));
       while (frames.Send(Frame::kContinuation, 0, stream, Literal("x", "y"))) {
       }
     }},
    {"EmptyContinuationFlood",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kHeaders, 0, stream, "");
       while (frames.Send(Frame::kContinuation, 0, stream, "")) {
       }
     }},
    {"PingFloodReadByNobody",
     [](FramePeer& frames, int32_t) {
       while (frames.Send(Frame::kPing, 0, 0, "12345678")) {
       }
     }},
    {"SettingsFlood",
     [](FramePeer& frames, int32_t) {
       while (frames.Send(Frame::kSettings, 0, 0, "")) {
       }
     }},
    {"ManySettings",
     [](FramePeer& frames, int32_t) {
       std::string entries;
       for (int i = 0; i < 100; ++i) entries += std::string("\0\x04", 2) + Number32(70000);
       frames.Send(Frame::kSettings, 0, 0, entries);
     }},
    {"EmptyDataFlood",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(103));
       while (frames.Send(Frame::kData, 0, stream, "")) {
       }
     }},
    {"WindowFlood",
     [](FramePeer& frames, int32_t) {
       while (frames.Send(Frame::kWindow, 0, 0, Number32(1))) {
       }
     }},
    {"UnknownFrameFlood",
     [](FramePeer& frames, int32_t) {
       while (frames.Send(0xfa, 0, 0, "x")) {
       }
     }},
    {"SessionTicketFlood",
     [](FramePeer& frames, int32_t) {
       while (frames.SendTicket()) {
       }
     }},
    {"WindowOverflow", [](FramePeer& frames, int32_t) { frames.Send(Frame::kWindow, 0, 0, Number32(INT32_MAX)); }},
    {"DataOnNoStream", [](FramePeer& frames, int32_t) { frames.Send(Frame::kData, 0, 0, "x"); }},
    {"HeadersOnAStreamOfOurs",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream + 100, Head(201));
     }},
    {"HeadersOnAStreamOfTheirs",
     [](FramePeer& frames, int32_t) { frames.Send(Frame::kHeaders, Frame::kEndHeaders, 2, Head(201)); }},
    {"FrameOverTheLimit",
     [](FramePeer& frames, int32_t stream) { frames.Send(Frame::kData, 0, stream, std::string(40000, 'x')); }},
    {"BadCompression",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, "\xff\xff\xff\xff\xff");
     }},
    {"GoAwayThatTakesBack",
     [](FramePeer& frames, int32_t stream) {
       frames.Send(Frame::kGoAway, 0, 0, Number32(static_cast<uint32_t>(stream)) + Number32(0));
       frames.Send(Frame::kGoAway, 0, 0, Number32(static_cast<uint32_t>(stream) + 2) + Number32(0));
     }},
    {"Garbage", [](FramePeer& frames, int32_t) { frames.Write("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"); }},
};

class H2Attacks : public ::testing::TestWithParam<Attack> {};
INSTANTIATE_TEST_SUITE_P(Kinds, H2Attacks, ::testing::ValuesIn(kAttacks),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(H2Attacks, CostTheConnectionAndNoMore) {
  FrameServer peer([&](FramePeer& frames, int connection) {
    if (connection > 0) return Serve(frames, connection);
    int32_t stream = 0;
    ASSERT_TRUE(frames.NextRequest(&stream));
    GetParam().act(frames, stream);
    frames.Drain();
  });
  Harness harness(For(peer));
  const auto start = SteadyClock::now();
  ExpectMaybeSent(harness.Ask());
  EXPECT_LT(SteadyClock::now() - start, seconds(20));  // not by a timeout
  ExpectAnswered(harness.Ask(), 201, "1");
  EXPECT_EQ(peer.server.requests, 2);
}

// One long field in the table, and then a byte for each further copy of it.
TEST(H2Client, CompressionBombsAreCut) {
  FrameServer peer([&](FramePeer& frames, int) {
    int32_t stream = 0;
    if (!frames.NextRequest(&stream)) return;
    std::string field = Literal("x", std::string(3900, 'y'));
    field[0] = '\x40';  // with indexing
    frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(429) + field + std::string(12000, '\xbe'));
    Serve(frames, 0);
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered);
  EXPECT_EQ(outcome.status, 429);
  EXPECT_FALSE(outcome.body_complete);
  ExpectAnswered(harness.Ask(), 201, "0");
  EXPECT_EQ(peer.server.accepted, 1);
}

// Its windows are wide open, its socket is full.
TEST(H2Client, APeerThatDoesNotReadHoldsUpNobodyElse) {
  Event release;
  FrameServer peer(
      [&](FramePeer& frames, int connection) {
        if (connection > 0) return Serve(frames, connection);
        frames.Send(Frame::kWindow, 0, 0, Number32(1 << 30));
        release.Wait();
      },
      {{kInitialWindowSize, INT32_MAX}});
  Options options = For(peer);
  options.exchange_timeout = milliseconds(8000);
  Harness harness(options);
  Call& large = harness.Start(Harness::MakeRequest(std::string(32 << 20, 'x')));
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.accepted == 1; }));
  harness.RunFor(milliseconds(50));
  Call& small = harness.Start();
  ExpectAnswered(harness.Finish(small), 201, "1");
  EXPECT_EQ(large.done, 0);
  release.Set();
  ExpectMaybeSent(harness.Finish(large));
}

}  // namespace
}  // namespace userintent::http
