// The HTTP/2 side of TlsPeer: runs nghttp2's server session over the connection and asks the test what to do with each
// request. On the connection's thread throughout.
#pragma once

#include <nghttp2/nghttp2.h>

#include <functional>
#include <string>

#include "tests/unit/http/tls_peer.h"

namespace userintent::http {

class H2Peer {
 public:
  // A whole request has come; `count` is how many came before it on this connection.
  using OnRequest = std::function<void(H2Peer&, int32_t stream, int count)>;

  H2Peer(TlsServer& server, TlsPeer& peer, OnRequest on_request);
  ~H2Peer();
  H2Peer(const H2Peer&) = delete;
  H2Peer& operator=(const H2Peer&) = delete;

  void Run();  // until the peer leaves, or Stop()

  void Answer(int32_t stream, int status, std::string body, bool end = true);
  void ResetStream(int32_t stream, uint32_t error);
  void GoAway(int32_t last_stream, uint32_t error);
  void Stop() { stop_ = true; }  // after what was submitted has been written

 private:
  static ssize_t Send(nghttp2_session*, const uint8_t* data, size_t size, int, void* self);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static ssize_t ReadAnswer(nghttp2_session*, int32_t stream, uint8_t* out, size_t size, uint32_t* flags,
                            nghttp2_data_source* source, void* self);

  TlsServer& server_;
  TlsPeer& peer_;
  OnRequest on_request_;
  nghttp2_session* session_ = nullptr;
  int count_ = 0;
  bool stop_ = false;
  struct Body {
    std::string text;
    size_t offset = 0;
    bool end = true;
  };
  std::list<Body> bodies_;
};

}  // namespace userintent::http
