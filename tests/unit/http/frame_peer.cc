#include "tests/unit/http/frame_peer.h"

namespace userintent::http {
namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr size_t kFrameHead = 9;

char Byte(uint32_t value) { return static_cast<char>(value & 0xff); }

std::string Length(size_t size) {  // an HPACK string's, without Huffman
  if (size < 127) return std::string(1, static_cast<char>(size));
  std::string text(1, 127);
  for (size -= 127; size >= 128; size /= 128) text.push_back(static_cast<char>(128 + size % 128));
  text.push_back(static_cast<char>(size));
  return text;
}

bool EndsRequest(const Frame& frame) {
  return (frame.type == Frame::kData || frame.type == Frame::kHeaders) && (frame.flags & Frame::kEndStream) != 0;
}

}  // namespace

std::string Number32(uint32_t value) { return {Byte(value >> 24), Byte(value >> 16), Byte(value >> 8), Byte(value)}; }

std::string Frame::Bytes() const {
  const auto size = static_cast<uint32_t>(payload.size());
  std::string bytes{Byte(size >> 16), Byte(size >> 8), Byte(size), Byte(type), Byte(flags)};
  return bytes + Number32(static_cast<uint32_t>(stream)) + payload;
}

std::string Literal(std::string_view name, std::string_view value) {
  return std::string(1, '\0').append(Length(name.size())).append(name).append(Length(value.size())).append(value);
}

std::string Head(int status) { return "\x08\x03" + std::to_string(status); }  // :status is 8 in the static table

bool FramePeer::Begin(const Settings& settings) {
  std::string payload;
  for (const auto& [id, value] : settings) {
    payload += {Byte(id >> 8u), Byte(id)};
    payload += Number32(value);
  }
  if (!Send(Frame::kSettings, 0, 0, payload)) return false;
  while (pending_.size() < kPreface.size()) {
    char buffer[4096];
    const long n = peer_.Read(buffer, sizeof(buffer));
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
  }
  if (!pending_.starts_with(kPreface)) return false;
  pending_.erase(0, kPreface.size());
  return true;
}

bool FramePeer::Write(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size(); at += 16384) {
    if (!peer_.Write(bytes.substr(at, 16384))) return false;
  }
  return true;
}

bool FramePeer::Send(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload) {
  return Write(Frame{type, flags, stream, std::string(payload)}.Bytes());
}

bool FramePeer::Next(Frame* frame) {
  const auto at = [this](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(pending_[i])); };
  for (;;) {
    if (pending_.size() >= kFrameHead) {
      const size_t size = (at(0) << 16) + (at(1) << 8) + at(2);
      if (pending_.size() >= kFrameHead + size) {
        frame->type = static_cast<uint8_t>(at(3));
        frame->flags = static_cast<uint8_t>(at(4));
        frame->stream = static_cast<int32_t>(((at(5) & 0x7f) << 24) + (at(6) << 16) + (at(7) << 8) + at(8));
        frame->payload = pending_.substr(kFrameHead, size);
        pending_.erase(0, kFrameHead + size);
        if (frame->type == Frame::kHeaders) ++server_.requests;
        if (EndsRequest(*frame)) ++server_.bodies;
        return true;
      }
    }
    char buffer[16384];
    const long n = peer_.Read(buffer, sizeof(buffer));
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
  }
}

void FramePeer::Acknowledge(const Frame& frame) {
  if (frame.type == Frame::kSettings && frame.flags == 0) Send(Frame::kSettings, Frame::kAck, 0, "");
  if (frame.type == Frame::kPing && frame.flags == 0) Send(Frame::kPing, Frame::kAck, 0, frame.payload);
}

bool FramePeer::NextOf(uint8_t type, Frame* frame) {
  while (Next(frame)) {
    if (frame->type == type) return true;
    Acknowledge(*frame);
  }
  return false;
}

bool FramePeer::NextRequest(int32_t* stream) {
  Frame frame;
  while (Next(&frame)) {
    if (EndsRequest(frame)) {
      *stream = frame.stream;
      return true;
    }
    Acknowledge(frame);
  }
  return false;
}

void FramePeer::Answer(int32_t stream, int status, std::string_view body) {
  Send(Frame::kHeaders, Frame::kEndHeaders, stream, Head(status));
  Send(Frame::kData, Frame::kEndStream, stream, body);
}

void FramePeer::Drain() {
  Frame frame;
  while (Next(&frame)) {
  }
}

}  // namespace userintent::http
