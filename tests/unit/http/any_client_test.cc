// What every http::Client promises, whichever library and HTTP version it is on: one table, run for all of them. What
// one of them alone does is in its own test. The peers count the requests that arrive.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/http/ca_file.h"
#include "tests/unit/http/any_server.h"
#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class AnyClient : public ::testing::TestWithParam<Kind> {
 protected:
  class Harness : public http::Harness {  // asks with the method that is tested
   public:
    explicit Harness(Options options) : http::Harness(std::move(options), GetParam().method) {}
    static Request MakeRequest() {
      return GetParam().method == Method::kGet ? MakeGet() : http::Harness::MakeRequest();
    }
  };
  static Options For(const std::string& origin) { return OptionsFor(GetParam(), origin); }
  static Options For(const AnyServer& server) { return For(server.server.origin()); }
  static Options For(const TlsServer& server) { return For(server.origin()); }

  // A TCP server that never says a word of TLS.
  static TlsServer::Settings Mute() {
    TlsServer::Settings settings;
    settings.handshake = false;
    return settings;
  }
};
INSTANTIATE_TEST_SUITE_P(All, AnyClient, ::testing::ValuesIn(kKinds),
                         [](const auto& param) { return std::string(param.param.name); });

// Of requests with a body.
class AnyPost : public AnyClient {};
INSTANTIATE_TEST_SUITE_P(All, AnyPost,
                         ::testing::ValuesIn(KindsThat([](const Kind& k) { return k.method == Method::kPost; })),
                         [](const auto& param) { return std::string(param.param.name); });

// ---- the ordinary case

TEST_P(AnyClient, SendsOneRequestAndReadsTheAnswer) {
  Arrival got{};
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    got = arrival;
    return Reply{201,
                 R"({"id":"1"})",
                 Reply::End::kWhole,
                 {{"request-id", "first"}, {"request-id", "second"}, {"retry-after", "7"}, {"retry-after", "8"}},
                 0};
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, R"({"id":"1"})");
  EXPECT_EQ(outcome.request_id, "first");
  EXPECT_EQ(outcome.retry_after, "7");
  const bool get = GetParam().method == Method::kGet;
  EXPECT_EQ(got.body, get ? "" : kBody);
  const std::string length = "ontent-length: " + std::to_string(sizeof(kBody) - 1) + "\n";
  if (GetParam().http2) {
    EXPECT_THAT(got.head, HasSubstr(get ? ":method: GET\n" : ":method: POST\n"));
    EXPECT_THAT(got.head, HasSubstr(":scheme: https\n"));
    EXPECT_THAT(got.head, HasSubstr(get ? ":path: /v1/user_intent/1\n" : ":path: /v1/user_intent\n"));
    EXPECT_THAT(got.head, HasSubstr(":authority: 127.0.0.1:" + std::to_string(peer.server.port()) + "\n"));
    EXPECT_THAT(got.head, HasSubstr("\nauthorization: Basic dGVzdDp0ZXN0\n"));
    EXPECT_EQ(got.head.find(length) != std::string::npos, !get) << got.head;
  } else {
    EXPECT_TRUE(got.head.starts_with(get ? "GET /v1/user_intent/1 HTTP/1.1\r\n" : "POST /v1/user_intent HTTP/1.1\r\n"))
        << got.head;
  }
  std::vector<const char*> unwanted = {"xpect", "ransfer-", "ookie", "ser-agent", "pgrade"};
  if (get) unwanted.insert(unwanted.end(), {"ontent-length", "ontent-Length", "ontent-type", "ontent-Type"});
  for (const char* name : unwanted) EXPECT_THAT(got.head, Not(HasSubstr(name)));
  EXPECT_EQ(peer.server.requests, 1);
  EXPECT_EQ(harness.client().stats().exchanges, 1u);
  EXPECT_EQ(harness.client().stats().connections_opened, 1u);
  const auto ends_in = harness.client().stats().peer_end - std::chrono::system_clock::now();
  EXPECT_GT(ends_in, std::chrono::hours(23));
  EXPECT_LE(ends_in, std::chrono::hours(24));
}

TEST_P(AnyPost, SendsALargeBodyWhole) {
  std::string got;
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    got = arrival.body;
    return Numbered(arrival);
  });
  Harness harness(For(peer));
  std::string body(3 << 20, 'x');
  body[1 << 20] = 'y';
  EXPECT_EQ(harness.Finish(harness.Start(http::Harness::MakeRequest(body))).fate, Fate::kAnswered);
  EXPECT_TRUE(got == body);
}

TEST_P(AnyClient, ManyAtOnceOverFewConnections) {
  AnyServer peer(GetParam(), Numbered);
  Options options = For(peer);
  options.max_connections = 3;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 250; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered) << call->outcome.detail;
  EXPECT_EQ(peer.server.requests, 250);
  if (GetParam().http2) {
    EXPECT_LE(peer.server.accepted, 3);
  }
}

// Of libcurl 7.88's own list some are, where it is nudged as the client on it does.
TEST_P(AnyClient, NoneOfThoseThatWaitIsForgotten) {
  const bool http2 = GetParam().http2;
  const auto slowly = [http2](const Arrival&) {
    std::this_thread::sleep_for(milliseconds(http2 ? 5 : 20));
    return Reply{201, "one", Reply::End::kWhole, http2 ? H2Peer::Headers{} : H2Peer::Headers{{"Connection", "close"}}};
  };
  AnyServer peer(GetParam(), slowly, {}, 4);
  Options options = For(peer);
  options.max_connections = http2 ? 8 : 32;
  options.connect_timeout = std::chrono::seconds(10);
  options.exchange_timeout = std::chrono::seconds(60);
  Harness harness(options);
  std::minstd_rand dice(1);
  std::vector<Call*> calls;
  constexpr size_t kCalls = 600;
  const auto ended = [&] {
    return static_cast<size_t>(std::count_if(calls.begin(), calls.end(), [](const Call* call) { return call->done; }));
  };
  for (size_t done = 0; calls.size() < kCalls || done < kCalls; done = ended()) {
    while (calls.size() < kCalls && calls.size() - done < 200) calls.push_back(&harness.Start());
    std::this_thread::sleep_for(milliseconds(dice() % 10));  // as an owner that has other things to do
    harness.client().Turn();
  }
  for (const Call* call : calls) ExpectAnswered(call->outcome, 201, "one");
}

TEST_P(AnyClient, ResumesTlsSessionsOnNewConnections) {
  // libcurl forgets the session of a connection that ends by GOAWAY.
  if (GetParam().transport == Transport::kLibcurl && GetParam().http2) return;
  std::vector<bool> resumed;
  std::mutex mutex;
  TlsServer::Settings settings;
  settings.alpn = GetParam().http2 ? "h2" : "http/1.1";
  TlsServer server(settings, [&](TlsPeer& peer) {
    {
      const std::lock_guard lock(mutex);
      resumed.push_back(peer.resumed());
    }
    if (GetParam().http2) {
      H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int) {
        h.Answer(stream, 201, "ok");
        h.GoAway(stream, NGHTTP2_NO_ERROR);
      });
      return h2.Run();
    }
    if (!peer.ReadRequest()) return;
    peer.Write("HTTP/1.1 201 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    peer.CloseNotify();
    peer.WaitForPeerToLeave();
  });
  Harness harness(For(server));
  for (int i = 0; i < 3; ++i) ExpectAnswered(harness.Ask(), 201, "ok");
  const std::lock_guard lock(mutex);
  ASSERT_GE(resumed.size(), 3u);  // and the automatic client's probe, if the peer got to see it
  EXPECT_FALSE(resumed[0]);
  EXPECT_TRUE(resumed[resumed.size() - 2]);
  EXPECT_TRUE(resumed.back());
}

TEST_P(AnyClient, ConnectionsThatSwallowPacketsAreBrokenByTheKernel) {
  Event release;
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    release.Wait();
    return Numbered(arrival);
  });
  Harness harness(For(peer));
  Call& call = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  const std::vector<int> sockets = SocketsTo(peer.server.port());
  ASSERT_EQ(sockets.size(), 1u);
  unsigned int timeout = 0;
  int keepalive = 0, no_delay = 0;
  socklen_t size = sizeof(timeout);
  ASSERT_EQ(getsockopt(sockets[0], IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, &size), 0);
  ASSERT_EQ(getsockopt(sockets[0], SOL_SOCKET, SO_KEEPALIVE, &keepalive, &size), 0);
  ASSERT_EQ(getsockopt(sockets[0], IPPROTO_TCP, TCP_NODELAY, &no_delay, &size), 0);
  EXPECT_EQ(timeout, 10000u);
  EXPECT_NE(keepalive, 0);
  EXPECT_NE(no_delay, 0);
  release.Set();
  EXPECT_EQ(harness.Finish(call).fate, Fate::kAnswered);
}

// ---- answers

TEST_P(AnyClient, InterimAnswersAreSkipped) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Reply{201, "final", Reply::End::kWhole, {}, 2}; });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  ExpectAnswered(outcome, 201, "final");
  EXPECT_EQ(outcome.retry_after, "");
}

TEST_P(AnyClient, OnlyInterimAnswersProveNothing) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Reply{0, "", Reply::End::kDrop, {}, 2}; });
  Harness harness(For(peer));
  ExpectMaybeSent(harness.Ask());
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(AnyClient, EndlessInterimAnswersAreCut) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Reply{0, "", Reply::End::kSilence, {}, 3000}; });
  Harness harness(For(peer));
  ExpectMaybeSent(harness.Ask());
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(AnyClient, NoStatusInvitesASecondTry) {
  for (const int status : {301, 303, 308, 401, 407, 408, 417, 421, 425, 429, 500, 503}) {
    AnyServer peer(GetParam(), [&](const Arrival&) {
      return Reply{status, "x", Reply::End::kWhole, {{"location", "/elsewhere"}, {"alt-svc", "h2=\":1\""}}, 0};
    });
    Harness harness(For(peer));
    ExpectAnswered(harness.Ask(), status, "x");
    EXPECT_EQ(peer.server.requests, 1);
  }
}

TEST_P(AnyClient, LostAfterTheRequestIsNotSentAgain) {
  for (const int lost : {0, 1}) {  // on a fresh connection, and on one that may have been used before
    AnyServer peer(GetParam(), [&, n = std::make_shared<std::atomic<int>>(0)](const Arrival& arrival) {
      return (*n)++ == lost ? Reply{0, "", Reply::End::kDrop, {}, 0} : Numbered(arrival);
    });
    Harness harness(For(peer));
    if (lost == 1) {
      EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
    }
    ExpectMaybeSent(harness.Ask());
    EXPECT_EQ(peer.server.requests, lost + 1);
    EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);  // and the client is none the worse
    EXPECT_EQ(peer.server.requests, lost + 2);
  }
}

TEST_P(AnyClient, CutAnswersKeepTheirStatus) {
  AnyServer peer(GetParam(), [](const Arrival&) {
    return Reply{201, "half", Reply::End::kDrop, {{"retry-after", "3"}}, 0};
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
  EXPECT_EQ(outcome.status, 201);
  EXPECT_EQ(outcome.retry_after, "3");
  EXPECT_FALSE(outcome.body_complete);
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(AnyClient, BodyLimitIsExact) {
  for (const size_t size : {size_t{1000}, size_t{1001}, size_t{200000}}) {
    AnyServer peer(GetParam(), [&, first = std::make_shared<std::atomic<bool>>(true)](const Arrival& arrival) {
      return first->exchange(false) ? Reply{201, std::string(size, 'x'), Reply::End::kWhole, {}, 0} : Numbered(arrival);
    });
    Options options = For(peer);
    options.max_answer_bytes = 1000;
    Harness harness(options);
    const Outcome& outcome = harness.Ask();
    EXPECT_EQ(outcome.fate, Fate::kAnswered);
    EXPECT_EQ(outcome.status, 201);
    EXPECT_EQ(outcome.body.size(), 1000u);
    EXPECT_EQ(outcome.body_complete, size == 1000);
    EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
    EXPECT_EQ(peer.server.requests, 2);
  }
}

TEST_P(AnyClient, HugeHeadKeepsItsStatus) {
  AnyServer peer(GetParam(), [](const Arrival&) {
    Reply reply{429, "x", Reply::End::kWhole, {{"request-id", "early"}}, 0};
    for (int i = 0; i < 12; ++i) reply.headers.emplace_back("y" + std::to_string(i), std::string(4000, 'y'));
    return reply;
  });
  Harness harness(For(peer));
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered) << outcome.detail;
  EXPECT_EQ(outcome.status, 429);
  EXPECT_EQ(outcome.request_id, "early");
  EXPECT_FALSE(outcome.body_complete);
  EXPECT_EQ(peer.server.requests, 1);
}

// ---- proofs that nothing was sent

TEST_P(AnyClient, RefusedPort) {
  Harness harness(For("https://127.0.0.1:" + std::to_string(ClosedPort())));
  ExpectNotSent(harness.Ask(), NotSentCause::kConnect);
}

TEST_P(AnyClient, NameThatDoesNotResolve) {
  Harness harness(For("https://nowhere.example.test:443"));
  ExpectNotSent(harness.Ask(), NotSentCause::kResolve);
}

TEST_P(AnyClient, CertificatesThatAreNotAccepted) {
  const struct {
    CertificateFor certificate;
    std::string ca_file;
  } kCases[] = {
      {CertificateFor::kThisHost, OtherCaFile()},
      {CertificateFor::kThisHost, "/nonexistent/ca.crt"},
      {CertificateFor::kThisHost, ""},  // the system knows nothing of ours
      {CertificateFor::kOtherHost, TestCaFile()},
      {CertificateFor::kThisHostOnceUponATime, TestCaFile()},
  };
  for (const auto& c : kCases) {
    TlsServer::Settings settings;
    settings.certificate = c.certificate;
    AnyServer peer(GetParam(), Numbered, settings);
    Options options = For(peer);
    options.ca_file = c.ca_file;
    Harness harness(options);
    ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
    ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
    EXPECT_EQ(peer.server.requests, 0);
  }
}

TEST_P(AnyClient, NamesAreVerified) {
  AnyServer peer(GetParam(), Numbered);
  const std::string port = std::to_string(peer.server.port());
  Options options = For("https://slow.example.test:" + port);  // resolves to us, and is not in the certificate
  {
    Harness harness(options);
    ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
  }
  options.origin = "https://localhost:" + port;
  Harness harness(options);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 1);
}

// Beside alternative names of any kind a common name is no name.
TEST_P(AnyClient, CommonNamesAreNotLookedAt) {
  TlsServer::Settings settings;
  settings.certificate = CertificateFor::kTwoByCommonName;
  AnyServer peer(GetParam(), Numbered, settings);
  Harness harness(For("https://two.example.test:" + std::to_string(peer.server.port())));
  ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
  EXPECT_EQ(peer.server.requests, 0);
}

// Whom the file names is trusted, with no authority above it.
TEST_P(AnyClient, AnIntermediateAuthorityMayBeTrusted) {
  TlsServer::Settings settings;
  settings.certificate = CertificateFor::kThisHostByAnIntermediate;
  AnyServer peer(GetParam(), Numbered, settings);
  Options options = For(peer);
  {
    Harness harness(options);
    ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
  }
  options.ca_file = IntermediateFile();
  Harness harness(options);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
}

class ChangingCaFile {
 public:
  explicit ChangingCaFile(const std::string& like)
      : path_(testing::TempDir() + "/authorities." + std::to_string(getpid())) {
    CopyFrom(like);
  }
  ~ChangingCaFile() { std::filesystem::remove(path_); }
  void CopyFrom(const std::string& like) const {
    std::filesystem::copy_file(like, path_ + ".new", std::filesystem::copy_options::overwrite_existing);
    std::filesystem::rename(path_ + ".new", path_);
  }
  void Write(const std::string& text) const { std::ofstream(path_) << text; }
  void LinkTo(const std::string& target) const {
    std::filesystem::create_symlink(target, path_ + ".new");
    std::filesystem::rename(path_ + ".new", path_);
  }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

TEST_P(AnyClient, AuthoritiesMayChangeWhileItRuns) {
  AnyServer peer(GetParam(), Numbered);
  const ChangingCaFile file(OtherCaFile());
  const auto authorities = CaFile::Load(file.path());
  ASSERT_TRUE(authorities.ok()) << authorities.status();
  Options options = For(peer);
  options.ca_file = "";
  options.authorities = authorities->get();
  Harness harness(options);
  ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);
  EXPECT_EQ(peer.server.requests, 0);

  file.LinkTo(TestCaFile());
  ExpectNotSent(harness.Ask(), NotSentCause::kUntrusted);  // not read yet
  EXPECT_TRUE((*authorities)->Refresh().value());
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);

  // The last good ones stay.
  file.LinkTo("/nonexistent");
  EXPECT_FALSE((*authorities)->Refresh().ok());
  {
    Harness another(options);
    EXPECT_EQ(another.Ask().fate, Fate::kAnswered);
  }

  file.LinkTo(OtherCaFile());
  EXPECT_TRUE((*authorities)->Refresh().value());
  Harness another(options);
  ExpectNotSent(another.Ask(), NotSentCause::kUntrusted);
  EXPECT_EQ(peer.server.requests, 2);
}

TEST(CaFile, ARefusedFileIsNewsOnceUntilItChanges) {
  const ChangingCaFile file(TestCaFile());
  const auto authorities = CaFile::Load(file.path());
  ASSERT_TRUE(authorities.ok()) << authorities.status();
  const auto good = (*authorities)->Snapshot();
  EXPECT_FALSE((*authorities)->Refresh().value());
  file.Write("no certificate");
  for (const bool news : {true, false, false}) {
    EXPECT_FALSE((*authorities)->Refresh().ok());
    EXPECT_EQ((*authorities)->RefusalIsNews(), news);
  }
  file.Write("no certificate either");
  for (const bool news : {true, false}) {
    EXPECT_FALSE((*authorities)->Refresh().ok());
    EXPECT_EQ((*authorities)->RefusalIsNews(), news);
  }
  EXPECT_EQ((*authorities)->Snapshot(), good);
  file.CopyFrom(TestCaFile());
  EXPECT_FALSE((*authorities)->Refresh().value());
  EXPECT_FALSE((*authorities)->RefusalIsNews());
}

TEST_P(AnyClient, OldTlsIsRefused) {
  TlsServer::Settings settings;
  settings.max_version = TLS1_1_VERSION;
  AnyServer peer(GetParam(), Numbered, settings);
  Harness harness(For(peer));
  ExpectNotSent(harness.Ask(), NotSentCause::kTls);
}

TEST_P(AnyClient, Tls12IsSpoken) {
  TlsServer::Settings settings;
  settings.max_version = TLS1_2_VERSION;
  AnyServer peer(GetParam(), Numbered, settings);
  Harness harness(For(peer));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
}

TEST_P(AnyClient, BrokenHandshakes) {
  for (const bool garbage : {true, false}) {
    std::mutex mutex;
    std::string heard;
    {
      TlsServer server(Mute(), [&](TlsPeer& peer) {
        if (!garbage) return peer.Reset();
        peer.WriteRaw("HTTP/1.1 400 Bad Request\r\n\r\n");
        char buffer[4096];
        for (long n; (n = peer.Read(buffer, sizeof(buffer))) > 0;) {
          const std::lock_guard lock(mutex);
          heard.append(buffer, static_cast<size_t>(n));
        }
      });
      Harness harness(For(server));
      const Outcome& outcome = harness.Ask();
      EXPECT_EQ(outcome.fate, Fate::kNotSent);
      // A reset may overtake the handshake, then it counts as the connection's.
      EXPECT_TRUE(outcome.cause == NotSentCause::kTls || (!garbage && outcome.cause == NotSentCause::kConnect))
          << outcome.detail;
    }
    // The peer counts no request before a handshake; nothing of the request may have come without one either.
    EXPECT_EQ(heard.empty(), !garbage);
    EXPECT_EQ(heard.find("user_intent"), std::string::npos);
    EXPECT_EQ(heard.find(kBody), std::string::npos);
  }
}

TEST_P(AnyClient, ForbiddenAddressIsNotConnectedTo) {
  AnyServer peer(GetParam(), Numbered);
  for (const char* host : {"127.0.0.1", "localhost"}) {
    Options options = For(std::string("https://") + host + ":" + std::to_string(peer.server.port()));
    options.loopback_ok = false;
    Harness harness(options);
    ExpectNotSent(harness.Ask(), NotSentCause::kForbiddenAddress);
  }
  Options options = For("https://0.0.0.0:" + std::to_string(peer.server.port()));
  options.allow_private_address = true;
  Harness harness(options);
  ExpectNotSent(harness.Ask(), NotSentCause::kForbiddenAddress);
  EXPECT_EQ(peer.server.accepted, 0);
}

// Whoever can answer for the name can turn it after it was found good ("DNS rebinding"). What is judged is the address
// that is connected to: one look-up serves both, and an answer that was kept was judged when it came.
TEST_P(AnyClient, ANameThatTurnsToAForbiddenAddressIsNotFollowed) {
  AnyServer peer(GetParam(), Numbered);
  Options options = For("https://turning.example.test:" + std::to_string(peer.server.port()));
  options.loopback_ok = true;
  for (const char* forbidden :
       {"10.0.0.1", "169.254.169.254", "192.168.7.7", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0"}) {
    SCOPED_TRACE(forbidden);
    Harness before(options);
    turning_address = "127.0.0.3";  // nobody is there
    ExpectNotSent(before.Ask(), NotSentCause::kConnect);
    turning_address = forbidden;
    const int looked_up = turning_lookups;
    const Outcome& again = before.Ask();
    const bool asked_anew = turning_lookups > looked_up;
    ExpectNotSent(again, asked_anew ? NotSentCause::kForbiddenAddress : NotSentCause::kConnect);
    EXPECT_LE(turning_lookups, looked_up + 1);
    EXPECT_EQ(asked_anew, GetParam().transport != Transport::kLibcurl);  // which keeps every answer for a minute

    Harness after(options);
    const int looked_up_before = turning_lookups;
    ExpectNotSent(after.Ask(), NotSentCause::kForbiddenAddress);
    EXPECT_EQ(turning_lookups, looked_up_before + 1);
  }
  EXPECT_EQ(peer.server.accepted, 0);
  turning_address = "127.0.0.1";
  Harness harness(options);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
}

// A side-car on loopback under a name of its own: the flag for addresses that are not public opens it.
TEST_P(AnyClient, ANameThatLeadsToLoopbackIsAllowedWithPrivateAddresses) {
  AnyServer peer(GetParam(), Numbered);
  Options options = For("https://localhost:" + std::to_string(peer.server.port()));
  options.loopback_ok = false;
  options.allow_private_address = true;
  Harness harness(options);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(AnyClient, ProxyVariablesAreIgnored) {
  TlsServer proxy([](TlsPeer&) {});
  const std::string address = "http://127.0.0.1:" + std::to_string(proxy.port());
  const char* kNames[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
  for (const char* name : kNames) setenv(name, address.c_str(), 1);
  {
    AnyServer peer(GetParam(), Numbered);
    Harness harness(For(peer));
    EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  }
  for (const char* name : kNames) unsetenv(name);
  EXPECT_EQ(proxy.accepted, 0);
}

TEST_P(AnyClient, RequestsThatCannotBeSentFailOutsideStart) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  Request split = Harness::MakeRequest();
  split.headers.emplace_back("X", "a\r\nY: b");
  Call& first = harness.Start(std::move(split));
  Request misfit = Harness::MakeRequest();  // a POST without a body, or a GET with one
  misfit.body = GetParam().method == Method::kGet ? kBody : "";
  Call& second = harness.Start(std::move(misfit));
  ASSERT_TRUE(harness.client().NextTimer().has_value());
  const SteadyTime due = *harness.client().NextTimer();
  EXPECT_LE(due, SteadyClock::now());
  ExpectNotSent(harness.Finish(first), NotSentCause::kInternal);
  ExpectNotSent(harness.Finish(second), NotSentCause::kInternal);
  EXPECT_EQ(peer.server.accepted, 0);
}

// ---- time and cancelling

// With HTTP/2 on offer libcurl lets the others wait for the first handshake, one after the other.
TEST_P(AnyClient, StalledHandshakeDoesNotAddUpForThoseWhoWait) {
  TlsServer server(Mute(), [](TlsPeer& peer) { peer.WaitForPeerToLeave(); });
  Options options = For(server);
  options.connect_timeout = milliseconds(500);
  options.max_connections = 1;
  Harness harness(options);
  const auto start = SteadyClock::now();
  std::vector<Call*> calls;
  for (int i = 0; i < 40; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) ExpectNotSent(harness.Finish(*call), NotSentCause::kTimeout);
  const auto took = SteadyClock::now() - start;
  EXPECT_GE(took, milliseconds(490));
  EXPECT_LT(took, milliseconds(10000));  // one after the other: 20 s
}

TEST_P(AnyClient, WaitingForABusyPoolIsNotAConnectTimeout) {
  Event release;
  AnyServer peer(
      GetParam(),
      [&](const Arrival& arrival) {
        release.Wait();
        return Numbered(arrival);
      },
      {}, 1);
  Options options = For(peer);
  options.connect_timeout = milliseconds(2000);  // the handshake itself must make it on a busy machine
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  Call& second = harness.Start();
  Call& third = harness.Start();
  harness.RunFor(milliseconds(3000));
  EXPECT_EQ(first.done + second.done + third.done, 0);
  release.Set();
  for (Call* call : {&first, &second, &third}) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 3);
}

TEST_P(AnyClient, WaitingForABusyPoolEndsWithTheExchangeTimeout) {
  AnyServer peer(
      GetParam(),
      [](const Arrival&) {
        return Reply{0, "", Reply::End::kSilence, {}, 0};
      },
      {}, 1);
  Options options = For(peer);
  options.exchange_timeout = milliseconds(1500);
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1 || first.done > 0; }));
  Call& second = harness.Start();
  ExpectMaybeSent(harness.Finish(first));
  EXPECT_TRUE(harness.RunUntil([&] { return second.done == 1; }));
  // When the first one ended, there was room for the second, so it may have been sent in the last moment, whether or
  // not the peer has read it.
  if (second.outcome.fate == Fate::kMaybeSent) return;
  EXPECT_EQ(second.outcome.fate, Fate::kNotSent);
  // Of libcurl's HTTP/2 it may also be the connection that ended with the first one.
  if (!(GetParam().transport == Transport::kLibcurl && GetParam().http2)) {
    ExpectNotSent(second.outcome, NotSentCause::kTimeout);
  }
}

TEST_P(AnyClient, NoAnswerInTimeIsMaybeSent) {
  AnyServer peer(GetParam(), [&](const Arrival&) { return Reply{0, "", Reply::End::kSilence, {}, 0}; });
  Options options = For(peer);
  options.exchange_timeout = milliseconds(1500);
  Harness harness(options);
  Call& call = harness.Start();
  ExpectMaybeSent(harness.Finish(call));
  EXPECT_EQ(call.outcome.detail, "no answer in time");
  EXPECT_EQ(peer.server.requests, 1);
}

TEST_P(AnyClient, TimeoutWithinTheBodyKeepsTheStatus) {
  AnyServer peer(GetParam(), [&](const Arrival&) {
    return Reply{429, "abc", Reply::End::kSilence, {{"retry-after", "3"}}, 0};
  });
  Options options = For(peer);
  options.exchange_timeout = milliseconds(1500);
  Harness harness(options);
  const Outcome& outcome = harness.Ask();
  EXPECT_EQ(outcome.fate, Fate::kAnswered);
  EXPECT_EQ(outcome.status, 429);
  EXPECT_EQ(outcome.retry_after, "3");
  EXPECT_FALSE(outcome.body_complete);
}

TEST_P(AnyClient, CancelBeforeAnythingHappened) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
  Call& call = harness.Start();
  EXPECT_TRUE(harness.client().CancelUnsent(call.id));
  EXPECT_EQ(call.done, 0);
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));
  ExpectNotSent(harness.Finish(call), NotSentCause::kCancelled);
  EXPECT_EQ(peer.server.requests, 0);
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));
  EXPECT_FALSE(harness.client().CancelUnsent(12345));
}

TEST_P(AnyClient, CancelDuringTheHandshake) {
  TlsServer server(Mute(), [](TlsPeer& peer) { peer.WaitForPeerToLeave(); });
  Harness harness(For(server));
  Call& call = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return server.accepted == 1; }));
  EXPECT_TRUE(harness.client().CancelUnsent(call.id));
  ExpectNotSent(harness.Finish(call), NotSentCause::kCancelled);
}

TEST_P(AnyClient, CancelAfterSendingChangesNothing) {
  Event cancelled;
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    cancelled.Wait();
    return Numbered(arrival);
  });
  Harness harness(For(peer));
  Call& call = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  EXPECT_FALSE(harness.client().CancelUnsent(call.id));
  cancelled.Set();
  EXPECT_EQ(harness.Finish(call).fate, Fate::kAnswered);
}

TEST_P(AnyClient, CancelWhileWaitingForABusyPool) {
  Event release;
  AnyServer peer(
      GetParam(),
      [&](const Arrival& arrival) {
        release.Wait();
        return Numbered(arrival);
      },
      {}, 1);
  Options options = For(peer);
  options.max_connections = 1;
  Harness harness(options);
  Call& first = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  harness.RunFor(milliseconds(50));  // libcurl sends before it has read the peer's limits, which have arrived by now
  Call& second = harness.Start();
  Call& third = harness.Start();
  harness.RunFor(milliseconds(50));
  EXPECT_TRUE(harness.client().CancelUnsent(second.id));
  ExpectNotSent(harness.Finish(second), NotSentCause::kCancelled);
  release.Set();
  EXPECT_EQ(harness.Finish(first).fate, Fate::kAnswered);
  EXPECT_EQ(harness.Finish(third).fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 2);
}

TEST_P(AnyClient, CancelAndTimeoutDuringALookupDoNotBlock) {
  Event release;
  slow_lookup = &release;
  lookups_begun = lookups_ended = 0;
  Options options = For("https://slow.example.test:1");
  options.connect_timeout = milliseconds(300);
  auto harness = std::make_unique<Harness>(options);
  Call& cancelled = harness->Start();
  ASSERT_TRUE(harness->RunUntil([] { return lookups_begun == 1; }));
  EXPECT_TRUE(harness->client().CancelUnsent(cancelled.id));
  ExpectNotSent(harness->Finish(cancelled), NotSentCause::kCancelled);
  Call& late = harness->Start();
  ExpectNotSent(harness->Finish(late), NotSentCause::kTimeout);
  harness->Start();
  harness->RunFor(milliseconds(50));
  harness.reset();  // the destructor must not block either
  EXPECT_FALSE(release.IsSet());
  release.Set();
  while (lookups_ended < lookups_begun) std::this_thread::yield();  // detached threads, still inside `release`
  slow_lookup = nullptr;
}

TEST_P(AnyClient, ADeadAddressLeavesTimeForTheNext) {
  AnyServer peer(GetParam(), [&](const Arrival& arrival) {
    Reply reply = Numbered(arrival);
    reply.end = Reply::End::kDrop;  // so that the next exchange connects again
    return reply;
  });
  const BlackHole hole("127.0.0.2", peer.server.port());
  Options options = For("https://two.example.test:" + std::to_string(peer.server.port()));
  options.connect_timeout = milliseconds(3000);
  Harness harness(options);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 2);
}

TEST_P(AnyClient, DoneMayStartAndCancel) {
  AnyServer peer(GetParam(), Numbered);
  Harness harness(For(peer));
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
  EXPECT_EQ(second->fate, Fate::kAnswered);
  ExpectNotSent(*third, NotSentCause::kCancelled);
  EXPECT_EQ(peer.server.requests, 2);
}

TEST_P(AnyClient, DestroyedWithExchangesUnderWay) {
  AnyServer peer(GetParam(), [](const Arrival&) { return Reply{0, "", Reply::End::kSilence, {}, 0}; });
  Options options = For(peer);
  options.max_connections = 2;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 5; ++i) calls.push_back(&harness.Start());
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies >= 2; }));
  calls.push_back(&harness.Start());
  EXPECT_TRUE(harness.client().CancelUnsent(calls.back()->id));
  calls.push_back(&harness.Start());
  harness.DestroyClient();
  for (Call* call : calls) EXPECT_EQ(call->done, 0);
}

// ---- HTTP/2, in the three clients that speak it

class AnyHttp2Client : public AnyClient {};
INSTANTIATE_TEST_SUITE_P(All, AnyHttp2Client, ::testing::ValuesIn(KindsThat([](const Kind& k) { return k.http2; })),
                         [](const auto& param) { return std::string(param.param.name); });

void AnswerH2(H2Peer& h2, int connection, int32_t stream, int count) {
  h2.Answer(stream, 201, std::to_string(connection) + "." + std::to_string(count));
}

// What a peer may do to the stream instead of answering.
struct Loss {
  const char* name;
  bool refused;  // it says that it has not processed it, which libcurl cannot hear
  std::function<void(H2Peer&, int32_t stream)> act;
};
const Loss kLosses[] = {
    {"RefusedStream", true, [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_REFUSED_STREAM); }},
    {"Http11Required", false, [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_HTTP_1_1_REQUIRED); }},
    {"InternalError", false, [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_INTERNAL_ERROR); }},
    {"Cancel", false, [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_CANCEL); }},
    {"NoError", false, [](H2Peer& h2, int32_t stream) { h2.ResetStream(stream, NGHTTP2_NO_ERROR); }},
    {"GoAwayUnseen", true,
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream - 2 < 0 ? 0 : stream - 2, NGHTTP2_NO_ERROR);
       h2.Stop();
     }},
    {"GoAwayUnseenForAnError", true,
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream - 2 < 0 ? 0 : stream - 2, NGHTTP2_ENHANCE_YOUR_CALM);
       h2.Stop();
     }},
    {"GoAwaySeen", false,
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream, NGHTTP2_NO_ERROR);
       h2.Stop();
     }},
    {"GoAwayHttp11Required", false,
     [](H2Peer& h2, int32_t stream) {
       h2.GoAway(stream, NGHTTP2_HTTP_1_1_REQUIRED);
       h2.Stop();
     }},
    {"GoAwayOfEverythingThenClose", false,
     [](H2Peer& h2, int32_t) {
       h2.GoAway(INT32_MAX, NGHTTP2_NO_ERROR);
       h2.Stop();
     }},
    {"Close", false, [](H2Peer& h2, int32_t) { h2.Stop(); }},
};

TEST_P(AnyHttp2Client, LostStreamsArriveOnce) {
  for (const Loss& loss : kLosses) {
    for (const int lost : {0, 1}) {  // on a fresh connection, and on one that was used before
      SCOPED_TRACE(std::string(loss.name) + (lost == 0 ? " fresh" : " reused"));
      H2Server peer([&](H2Peer& h2, int connection, int32_t stream, int count) {
        if (connection == 0 && count == lost) return loss.act(h2, stream);
        AnswerH2(h2, connection, stream, count);
      });
      Harness harness(For(peer.server));
      if (lost == 1) ExpectAnswered(harness.Ask(), 201, "0.0");
      const Outcome& outcome = harness.Ask();
      if (loss.refused && GetParam().transport != Transport::kLibcurl) {
        EXPECT_EQ(outcome.fate, Fate::kRefused) << outcome.detail;
        EXPECT_EQ(outcome.status, 0);
      } else {
        ExpectMaybeSent(outcome);
      }
      EXPECT_EQ(peer.server.requests, lost + 1);
      EXPECT_EQ(peer.server.bodies, lost + 1);
      if (std::string_view(loss.name).ends_with("Http11Required") && GetParam().transport == Transport::kAuto) {
        ExpectNotSent(harness.Ask(), NotSentCause::kTls);  // it asked for HTTP/1.1, and does not take it
      }
      EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);  // and the client is none the worse
      EXPECT_EQ(peer.server.requests, lost + 2);
    }
  }
}

TEST_P(AnyHttp2Client, SharesOneConnection) {
  H2Server peer(AnswerH2);
  Harness harness(For(peer.server));
  std::vector<Call*> calls;
  for (int i = 0; i < 50; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) {
    const Outcome& outcome = harness.Finish(*call);
    EXPECT_EQ(outcome.fate, Fate::kAnswered);
    EXPECT_TRUE(outcome.body_complete);
    EXPECT_TRUE(outcome.request_id.starts_with("h2-"));
  }
  EXPECT_EQ(peer.server.accepted, 1);
  EXPECT_EQ(peer.server.requests, 50);
  EXPECT_EQ(harness.client().stats().connections_opened, 1u);
  EXPECT_EQ(harness.client().stats().reuse_refused, 0u);
}

TEST_P(AnyHttp2Client, TimeoutOfOneStreamLeavesTheOthers) {
  H2Server peer([](H2Peer& h2, int connection, int32_t stream, int count) {
    if (count > 0) AnswerH2(h2, connection, stream, count);
  });
  Options options = For(peer.server);
  options.exchange_timeout = milliseconds(1500);
  Harness harness(options);
  Call& lost = harness.Start();
  ASSERT_TRUE(harness.RunUntil([&] { return peer.server.bodies == 1; }));
  ExpectAnswered(harness.Ask(), 201, "0.1");
  EXPECT_EQ(lost.done, 0);
  ExpectMaybeSent(harness.Finish(lost));
  ExpectAnswered(harness.Ask(), 201, "0.2");
  EXPECT_EQ(peer.server.requests, 3);
  EXPECT_EQ(peer.server.accepted, 1);
}

// ---- who speaks what

TEST(Transports, Nghttp2AloneDoesNotReachAPeerWithoutHttp2) {
  for (const char* alpn : {"http/1.1", ""}) {
    TlsServer::Settings settings;
    settings.alpn = alpn;
    TlsServer server(settings, [](TlsPeer& peer) { peer.ReadRequest(); });
    Options options = Http1(server);
    options.transport = Transport::kNghttp2;
    Harness harness(options);
    const Outcome& outcome = harness.Ask();
    ExpectNotSent(outcome, NotSentCause::kTls);
    EXPECT_EQ(outcome.detail, "peer does not offer HTTP/2");
    EXPECT_EQ(server.requests, 0);
  }
}

TEST(Transports, AutoProbesOnceForAPeerWithoutHttp2) {
  AnyServer peer(kKinds[4], Numbered);
  Options options = Http1(peer.server);
  options.http2 = true;
  options.transport = Transport::kAuto;
  options.reuse_http1 = false;
  Harness harness(options);
  std::vector<Call*> calls;
  for (int i = 0; i < 10; ++i) calls.push_back(&harness.Start());
  for (Call* call : calls) EXPECT_EQ(harness.Finish(*call).fate, Fate::kAnswered);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.requests, 11);
  EXPECT_EQ(peer.server.accepted, 12);
  EXPECT_EQ(harness.client().stats().exchanges, 11u);
}

// The probe finds no HTTP/2, and the connection that follows it gets no further than TCP.
TEST(Transports, WhatAutoHandsOverEndsOnce) {
  TlsServer::Settings settings;
  settings.silent_from = 1;
  for (const char* alpn : {"http/1.1", ""}) {
    settings.alpn = alpn;
    TlsServer server(settings, [](TlsPeer& peer) { peer.WaitForPeerToLeave(); });
    Options options = Http1(server);
    options.http2 = true;
    options.transport = Transport::kAuto;
    options.connect_timeout = milliseconds(1000);
    Harness harness(options);
    Call& cancelled = harness.Start();
    Call& late = harness.Start();
    ASSERT_TRUE(harness.RunUntil([&] { return server.accepted >= 2; }));
    EXPECT_TRUE(harness.client().CancelUnsent(cancelled.id));
    EXPECT_FALSE(harness.client().CancelUnsent(cancelled.id));
    ExpectNotSent(harness.Finish(cancelled), NotSentCause::kCancelled);
    ExpectNotSent(harness.Finish(late), NotSentCause::kTimeout);
    EXPECT_FALSE(harness.client().CancelUnsent(late.id));
    const Call& abandoned = harness.Start();
    const int before = server.accepted;
    ASSERT_TRUE(harness.RunUntil([&] { return server.accepted > before; }));
    harness.DestroyClient();
    EXPECT_EQ(abandoned.done, 0);
    EXPECT_EQ(cancelled.done + late.done, 2);
    EXPECT_EQ(server.requests, 0);
  }
}

TEST(Transports, AutoWithHttp2SwitchedOffIsLibcurl) {
  AnyServer peer(kKinds[3], Numbered);
  Options options = Http1(peer.server);
  options.http2 = false;
  options.transport = Transport::kAuto;
  Harness harness(options);
  EXPECT_EQ(harness.Ask().fate, Fate::kAnswered);
  EXPECT_EQ(peer.server.accepted, 1);
}

}  // namespace
}  // namespace userintent::http
