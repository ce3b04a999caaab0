// The HTTP/2 side of TlsPeer: runs nghttp2's server session over the connection and asks the test what to do with each
// request. On the connection's thread throughout.
#pragma once

#include <nghttp2/nghttp2.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/http/tls_peer.h"

namespace userintent::http {

class H2Peer {
 public:
  // A whole request has come; `count` is how many came before it on this connection.
  using OnRequest = std::function<void(H2Peer&, int32_t stream, int count)>;

  using Headers = std::vector<std::pair<std::string, std::string>>;

  H2Peer(TlsServer& server, TlsPeer& peer, OnRequest on_request);
  ~H2Peer();
  H2Peer(const H2Peer&) = delete;
  H2Peer& operator=(const H2Peer&) = delete;

  void Set(int32_t setting, uint32_t value) { settings_.push_back({setting, value}); }  // before Run()
  void Run();  // until the peer leaves, or Stop()

  // What came so far; the head is a line `name: value` for each field.
  const ReceivedRequest& Received(int32_t stream) { return received_[stream]; }

  void Interim(int32_t stream, int status, const Headers& headers = {});
  void Answer(int32_t stream, int status, std::string body, bool end = true, const Headers& headers = {});
  void ResetStream(int32_t stream, uint32_t error);
  void GoAway(int32_t last_stream, uint32_t error);
  void Stop() { stop_ = true; }  // after what was submitted has been written

 private:
  static ssize_t Send(nghttp2_session*, const uint8_t* data, size_t size, int, void* self);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t flags, void* self);
  static int OnData(nghttp2_session*, uint8_t flags, int32_t stream, const uint8_t* data, size_t size, void* self);
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
  std::vector<nghttp2_settings_entry> settings_;
  std::map<int32_t, ReceivedRequest> received_;
};

}  // namespace userintent::http
