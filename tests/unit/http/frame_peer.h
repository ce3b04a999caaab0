// The HTTP/2 side of TlsPeer, frame by frame and by hand: for what no library would send. On the connection's thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/unit/http/tls_peer.h"

namespace userintent::http {

struct Frame {
  enum Type : uint8_t {
    kData,
    kHeaders,
    kPriority,
    kRstStream,
    kSettings,
    kPushPromise,
    kPing,
    kGoAway,
    kWindow,
    kContinuation
  };
  enum Flag : uint8_t { kEndStream = 1, kAck = 1, kEndHeaders = 4, kPadded = 8 };
  uint8_t type = 0;
  uint8_t flags = 0;
  int32_t stream = 0;
  std::string payload;

  std::string Bytes() const;
};

std::string Number32(uint32_t value);
// One HPACK field as a literal, without any table; a head with a status in front.
std::string Literal(std::string_view name, std::string_view value);
std::string Head(int status);

class FramePeer {
 public:
  using Settings = std::vector<std::pair<uint16_t, uint32_t>>;

  FramePeer(TlsServer& server, TlsPeer& peer) : server_(server), peer_(peer) {}

  bool Begin(const Settings& settings = {});  // reads the preface, sends SETTINGS
  bool Send(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload);
  bool Write(std::string_view bytes);  // any length
  bool SendTicket() { return peer_.SendTicket(); }
  bool Next(Frame* frame);  // false: the peer has left
  // Reads until a whole request has come, or one of the other type; acknowledges SETTINGS and PING.
  bool NextRequest(int32_t* stream);
  bool NextOf(uint8_t type, Frame* frame);
  void Answer(int32_t stream, int status, std::string_view body);
  void Drain();  // until the peer leaves

 private:
  void Acknowledge(const Frame& frame);

  TlsServer& server_;
  TlsPeer& peer_;
  std::string pending_;
};

}  // namespace userintent::http
