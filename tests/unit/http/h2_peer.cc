#include "tests/unit/http/h2_peer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace userintent::http {
namespace {

nghttp2_nv Header(std::string_view name, const std::string& value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

H2Peer::H2Peer(TlsServer& server, TlsPeer& peer, OnRequest on_request)
    : server_(server), peer_(peer), on_request_(std::move(on_request)) {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_send_callback(callbacks, &Send);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &OnFrame);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  nghttp2_session_server_new(&session_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
}

H2Peer::~H2Peer() { nghttp2_session_del(session_); }

ssize_t H2Peer::Send(nghttp2_session*, const uint8_t* data, size_t size, int, void* self) {
  auto& peer = *static_cast<H2Peer*>(self);
  const size_t n = std::min<size_t>(size, 16 * 1024);
  if (!peer.peer_.Write(std::string_view(reinterpret_cast<const char*>(data), n))) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  return static_cast<ssize_t>(n);
}

int H2Peer::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  auto& peer = *static_cast<H2Peer*>(self);
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) ++peer.server_.requests;
  if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
      (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
    ++peer.server_.bodies;
    peer.on_request_(peer, frame->hd.stream_id, peer.count_++);
  }
  return 0;
}

ssize_t H2Peer::ReadAnswer(nghttp2_session*, int32_t, uint8_t* out, size_t size, uint32_t* flags,
                           nghttp2_data_source* source, void*) {
  auto& body = *static_cast<Body*>(source->ptr);
  const size_t n = std::min(size, body.text.size() - body.offset);
  std::copy_n(body.text.data() + body.offset, n, out);
  body.offset += n;
  if (body.offset == body.text.size()) {
    if (n == 0 && !body.end) return NGHTTP2_ERR_DEFERRED;
    if (body.end) *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  return static_cast<ssize_t>(n);
}

int H2Peer::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                     const uint8_t* value, size_t value_size, uint8_t, void* self) {
  std::string& head = static_cast<H2Peer*>(self)->received_[frame->hd.stream_id].head;
  head.append(reinterpret_cast<const char*>(name), name_size).append(": ");
  head.append(reinterpret_cast<const char*>(value), value_size).append("\n");
  return 0;
}

int H2Peer::OnData(nghttp2_session*, uint8_t, int32_t stream, const uint8_t* data, size_t size, void* self) {
  static_cast<H2Peer*>(self)->received_[stream].body.append(reinterpret_cast<const char*>(data), size);
  return 0;
}

void H2Peer::Interim(int32_t stream, int status, const Headers& headers) {
  const std::string status_text = std::to_string(status);
  std::vector<nghttp2_nv> fields = {Header(":status", status_text)};
  for (const auto& [name, value] : headers) fields.push_back(Header(name, value));
  nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, stream, nullptr, fields.data(), fields.size(), nullptr);
}

void H2Peer::Answer(int32_t stream, int status, std::string body, bool end, const Headers& headers) {
  bodies_.push_back({std::move(body), 0, end});
  const std::string status_text = std::to_string(status);
  const std::string request_id = "h2-" + std::to_string(stream);
  std::vector<nghttp2_nv> fields = {Header(":status", status_text)};
  for (const auto& [name, value] : headers) fields.push_back(Header(name, value));
  fields.push_back(Header("request-id", request_id));
  nghttp2_data_provider provider{};
  provider.source.ptr = &bodies_.back();
  provider.read_callback = &ReadAnswer;
  nghttp2_submit_response(session_, stream, fields.data(), fields.size(), &provider);
}

void H2Peer::ResetStream(int32_t stream, uint32_t error) {
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, error);
}

void H2Peer::GoAway(int32_t last_stream, uint32_t error) {
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, last_stream, error, nullptr, 0);
}

void H2Peer::Run() {
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings_.data(), settings_.size());
  char buffer[16 * 1024];
  for (;;) {
    if (nghttp2_session_send(session_) != 0 || stop_) return;
    const long n = peer_.Read(buffer, sizeof(buffer));
    if (n <= 0) return;
    if (nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer), static_cast<size_t>(n)) < 0) {
      return;
    }
  }
}

}  // namespace userintent::http
