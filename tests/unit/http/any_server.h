// Peers of any client: one that speaks whichever HTTP version a Kind asks for, and one of HTTP/2 alone. Each request is
// handled on its connection's thread, one after the other.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "tests/unit/http/client_harness.h"
#include "tests/unit/http/h2_peer.h"
#include "tests/unit/http/tls_peer.h"

namespace userintent::http {

// What a peer does with one request.
struct Reply {
  enum class End {
    kWhole,
    kDrop,     // the connection goes once all that is here has been written
    kSilence,  // nothing follows
  };
  int status = 0;  // 0: no answer
  std::string body;
  End end = End::kWhole;
  H2Peer::Headers headers;
  int interim = 0;  // how many heads of 103 come first
};
struct Arrival {
  int connection;  // how many came before
  int count;       // how many requests came before on this connection
  std::string head;
  std::string body;
};
using Handler = std::function<Reply(const Arrival&)>;

inline Reply Numbered(const Arrival& arrival) {
  return {201, std::to_string(arrival.connection) + "." + std::to_string(arrival.count), Reply::End::kWhole, {}, 0};
}

class AnyServer {
 public:
  AnyServer(const Kind& kind, Handler handler, TlsServer::Settings settings = {}, uint32_t max_streams = 100)
      : handler_(std::move(handler)),
        max_streams_(max_streams),
        server(WithAlpn(kind, std::move(settings)), [this](TlsPeer& peer) { Serve(peer); }) {}

 private:
  static TlsServer::Settings WithAlpn(const Kind& kind, TlsServer::Settings settings) {
    settings.alpn = kind.http2 ? "h2,http/1.1" : "http/1.1";
    return settings;
  }
  void Serve(TlsPeer& peer) {
    if (peer.alpn() == "h2") {
      H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int count) {
        const ReceivedRequest& request = h.Received(stream);
        const Reply reply = handler_({peer.index(), count, request.head, request.body});
        for (int i = 0; i < reply.interim; ++i) h.Interim(stream, 103, {{"retry-after", "99"}});
        if (reply.status != 0) {
          h.Answer(stream, reply.status, reply.body, reply.end == Reply::End::kWhole, reply.headers);
        }
        if (reply.end == Reply::End::kDrop) h.Stop();
      });
      h2.Set(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, max_streams_);
      return h2.Run();
    }
    ReceivedRequest request;
    for (int count = 0; peer.ReadRequest(&request); ++count) {
      const Reply reply = handler_({peer.index(), count, request.head, request.body});
      std::string text;
      for (int i = 0; i < reply.interim; ++i) text += "HTTP/1.1 103 Early Hints\r\nRetry-After: 99\r\n\r\n";
      if (reply.status != 0) {
        text += "HTTP/1.1 " + std::to_string(reply.status) + " X\r\n";
        for (const auto& [name, value] : reply.headers) text.append(name).append(": ").append(value).append("\r\n");
        const size_t size = reply.body.size() + (reply.end == Reply::End::kWhole ? 0 : 10);
        text += "Content-Length: " + std::to_string(size) + "\r\n\r\n" + reply.body;
      }
      for (size_t at = 0; at < text.size(); at += 16000) {
        if (!peer.Write(std::string_view(text).substr(at, 16000))) return;
      }
      if (reply.end == Reply::End::kDrop) return peer.CloseNotify();
      if (reply.end == Reply::End::kSilence) return peer.WaitForPeerToLeave();
    }
  }

  const Handler handler_;
  const uint32_t max_streams_;

 public:
  TlsServer server;
};

struct H2Server {
  using Act = std::function<void(H2Peer&, int connection, int32_t stream, int count)>;
  explicit H2Server(Act act)
      : server(Settings(), [this, act](TlsPeer& peer) {
          H2Peer h2(server, peer, [&](H2Peer& h, int32_t stream, int count) { act(h, peer.index(), stream, count); });
          h2.Run();
        }) {}
  static TlsServer::Settings Settings() {
    TlsServer::Settings settings;
    settings.alpn = "h2";
    return settings;
  }
  TlsServer server;
};

}  // namespace userintent::http
