// Heads that real servers and edges send although no specification has them, over every transport alike. The peer
// writes them by hand.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/frame_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using Fields = std::vector<std::pair<std::string, std::string>>;

// Answers every request with these fields and the body "ok".
class OddServer {
 public:
  OddServer(const Kind& kind, int status, Fields fields)
      : status_(status), fields_(std::move(fields)), server(Settings(kind), [this](TlsPeer& peer) { Serve(peer); }) {}

 private:
  static TlsServer::Settings Settings(const Kind& kind) {
    TlsServer::Settings settings;
    settings.alpn = kind.http2 ? "h2" : "http/1.1";
    return settings;
  }
  void Serve(TlsPeer& peer) {
    if (peer.alpn() != "h2") {
      std::string text = "HTTP/1.1 " + std::to_string(status_) + " X\r\nContent-Length: 2\r\n";
      for (const auto& [name, value] : fields_) text.append(name).append(": ").append(value).append("\r\n");
      if (peer.ReadRequest()) peer.Write(text + "\r\nok");
      return peer.WaitForPeerToLeave();
    }
    FramePeer frames(server, peer);
    if (!frames.Begin()) return;
    std::string head = Head(status_);
    for (const auto& [name, value] : fields_) head += Literal(name, value);
    for (int32_t stream; frames.NextRequest(&stream);) {
      frames.Send(Frame::kHeaders, Frame::kEndHeaders, stream, head);
      frames.Send(Frame::kData, Frame::kEndStream, stream, "ok");
    }
  }

  const int status_;
  const Fields fields_;

 public:
  TlsServer server;
};

class OddAnswers : public ::testing::TestWithParam<Kind> {
 protected:
  class Harness : public http::Harness {  // asks with the method that is tested
   public:
    explicit Harness(Options options) : http::Harness(std::move(options), GetParam().method) {}
  };
  static Options For(const OddServer& peer) { return OptionsFor(GetParam(), peer.server.origin()); }
  static bool Libcurl2() { return GetParam().transport == Transport::kLibcurl && GetParam().http2; }
  // Over libcurl's HTTP/2 the library decides (decision 0005): Debian 12's calls what is against HTTP/2's rules
  // malformed, Debian 13's passes it over. One or the other, and nothing in between.
  static bool Malformed(const Outcome& outcome) {
    if (!Libcurl2()) return false;
    if (outcome.fate == Fate::kAnswered) return !outcome.body_complete;
    EXPECT_EQ(outcome.fate, Fate::kMaybeSent);
    return true;
  }
};
INSTANTIATE_TEST_SUITE_P(All, OddAnswers, ::testing::ValuesIn(kKinds),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(OddAnswers, BlanksAroundValuesDoNotCount) {
  for (const char* value : {"2 ", " 2", "\t2", "2\t ", "2"}) {
    OddServer peer(GetParam(), 503,
                   {{"x-served-by", value}, {"retry-after", value}, {"request-id", value}, {"date", value}});
    Harness harness(For(peer));
    const Outcome& outcome = harness.Ask();
    ExpectAnswered(outcome, 503, "ok");
    EXPECT_EQ(outcome.retry_after, "2");
    EXPECT_EQ(outcome.request_id, "2");
    EXPECT_EQ(outcome.date, "2");
    EXPECT_EQ(peer.server.requests, 1);
    EXPECT_EQ(harness.client().stats().headers_ignored, 0u);
  }
}

TEST_P(OddAnswers, FieldsOfTheConnectionDoNotCostTheAnswer) {
  const Fields kFields = {{"connection", "keep-alive"},
                          {"keep-alive", "timeout=5"},
                          {"proxy-connection", "keep-alive"},
                          {"upgrade", "h2,h2c"},
                          {"te", "gzip"}};
  for (const auto& field : kFields) {
    SCOPED_TRACE(field.first);
    OddServer peer(GetParam(), 201, {field, {"request-id", "r"}});
    Harness harness(For(peer));
    const Outcome& outcome = harness.Ask();
    if (!Malformed(outcome)) {
      ExpectAnswered(outcome, 201, "ok");
      EXPECT_EQ(outcome.request_id, "r");
      EXPECT_EQ(harness.client().stats().headers_ignored, GetParam().http2 && !Libcurl2() ? 1u : 0u);
    }
    EXPECT_EQ(peer.server.requests, 1);
  }
}

TEST_P(OddAnswers, ValuesThatNobodyCanReadDoNotCostTheAnswer) {
  const Fields kFields = {{"x-odd", "a\x01"}, {"x-odd", "a\x7f"}, {"x-latin", "caf\xe9"}, {"x-empty", ""}};
  for (const auto& field : kFields) {
    SCOPED_TRACE(field.first);
    OddServer peer(GetParam(), 201, {field});
    Harness harness(For(peer));
    const Outcome& outcome = harness.Ask();
    if (field.first != "x-odd" || !Malformed(outcome)) ExpectAnswered(outcome, 201, "ok");
    EXPECT_EQ(peer.server.requests, 1);
  }
}

TEST_P(OddAnswers, TheSameLengthTwiceIsOneLength) {
  OddServer peer(GetParam(), 201, {{"content-length", "2"}, {"content-length", "2"}});
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  if (!Malformed(outcome)) ExpectAnswered(outcome, 201, "ok");
}

}  // namespace
}  // namespace userintent::http
