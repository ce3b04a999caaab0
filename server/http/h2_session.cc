#include "server/http/h2_session.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "server/base/crash_point.h"
#include "server/http/exchange_text.h"
#include "server/http/wiping_memory.h"

// In this file: exchanges; frames of the peer; nghttp2's callbacks for what is received, and for what is sent.

namespace userintent::http {
namespace {

constexpr int32_t kConnectionWindow = 1 << 20;  // answers are read at once, so this bounds nothing but round trips
constexpr size_t kMostStreamWindow = 1 << 20;

// nghttp2's allocator.
void* Allocate(size_t size, void*) { return std::malloc(size); }
void* AllocateCleared(size_t count, size_t size, void*) { return std::calloc(count, size); }
void Free(void* p, void*) { WipingFree(p); }
void* Reallocate(void* p, size_t size, void*) { return WipingRealloc(p, size); }
nghttp2_mem wiping_memory{nullptr, &Allocate, &Free, &AllocateCleared, &Reallocate};

std::string_view View(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// nghttp2 takes no const pointers, but does not write through them.
nghttp2_nv Field(std::string_view name, std::string_view value, uint8_t flags) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(), flags};
}

}  // namespace

bool H2Session::Begin() {
  nghttp2_option* option = nullptr;
  if (nghttp2_option_new(&option) != 0) return false;
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_no_http_messaging(option, 1);  // AnswerHead knows more than yes and no
  nghttp2_option_set_max_continuations(option, 8);
  nghttp2_option_set_max_outbound_ack(option, 1000);
  nghttp2_option_set_max_settings(option, 32);
  const int rc = nghttp2_session_client_new3(&session_, Callbacks(), this, option, &wiping_memory);
  nghttp2_option_del(option);
  if (rc != 0) return false;
  const Options& options = settings_.options;
  const auto window = static_cast<uint32_t>(
      std::max<size_t>(NGHTTP2_INITIAL_WINDOW_SIZE, std::min(options.max_answer_bytes + 1, kMostStreamWindow)));
  const nghttp2_settings_entry entries[] = {
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
       static_cast<uint32_t>(std::min<size_t>(options.max_header_bytes, UINT32_MAX))},
  };
  if (nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, entries, std::size(entries)) != 0 ||
      nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow) != 0) {
    return false;
  }
  const int32_t first = settings_.tuning.first_stream;
  return first == 0 || nghttp2_session_set_next_stream_id(session_, first) == 0;
}

bool H2Session::Receive(const uint8_t* data, size_t size) {
  return nghttp2_session_mem_recv(session_, data, size) >= 0;
}

bool H2Session::Collect() {
  TakeBackOverdue();
  for (;;) {
    const uint8_t* data = nullptr;
    const ssize_t n = nghttp2_session_mem_send(session_, &data);
    if (n < 0) return false;
    if (n == 0) return true;
    scratch_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
    if (scratch_.size() >= settings_.tuning.max_unsent && unoffered_ == 0) return true;
  }
}

void H2Session::SayGoodbye() {
  nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
  const uint8_t* data = nullptr;
  ssize_t n;
  while ((n = nghttp2_session_mem_send(session_, &data)) > 0) {
    scratch_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(n));
  }
}

// ---- exchanges

size_t H2Session::Capacity(SteadyTime now) const {
  if (retired_) return 0;
  const size_t at_once = std::min(Limit(), pace_.AtOnce(now));
  const size_t in_all = pace_.InAll(now);
  if (at_once <= streams_ || in_all <= submitted_) return 0;
  return std::min(at_once - streams_, in_all - submitted_);
}

bool H2Session::Submit(H2Exchange& exchange) {
  constexpr uint8_t kNoCopy = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  const bool has_body = exchange.request.method == Method::kPost;
  const std::string length = std::to_string(exchange.request.body.size());
  fields_.clear();
  fields_.push_back(Field(":method", has_body ? "POST" : "GET", kNoCopy));
  fields_.push_back(Field(":scheme", "https", kNoCopy));
  fields_.push_back(Field(":authority", settings_.authority, kNoCopy));
  fields_.push_back(Field(":path", exchange.request.path, kNoCopy));
  for (const auto& [name, value] : exchange.request.headers) {
    // A secret stays out of the compression table (RFC 7541 section 7.1.3).
    const uint8_t secret = name == "authorization" ? NGHTTP2_NV_FLAG_NO_INDEX : 0;
    fields_.push_back(Field(name, value, kNoCopy | secret));
  }
  if (has_body) fields_.push_back(Field("content-length", length, NGHTTP2_NV_FLAG_NO_COPY_NAME));
  nghttp2_data_provider body{};
  body.source.ptr = &exchange;
  body.read_callback = &OnReadBody;
  CrashPoint("after-connect");
  const int32_t stream =
      nghttp2_submit_request(session_, nullptr, fields_.data(), fields_.size(), has_body ? &body : nullptr, &exchange);
  if (stream < 0) {
    retired_ = true;
    return false;
  }
  exchange.sending = Exchange::Sending::kReleased;
  exchange.stream = stream;
  exchange.sent = now_;
  ++submitted_;
  ++streams_;
  ++unoffered_;
  if (exchange.request.lease != nullptr) leased_.push_back(&exchange);
  return true;
}

void H2Session::Abandon(H2Exchange& exchange) {
  const int32_t stream = exchange.stream;
  LetGo(exchange);
  // Of a request that waits in nghttp2 this takes the HEADERS back.
  if (session_ != nullptr) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
}

// As late as can be: once nghttp2 has compressed a head, it must leave.
void H2Session::TakeBackOverdue() {
  for (H2Exchange* const exchange : leased_) {
    if (!exchange->LeaseOver()) continue;
    exchange->sending = Exchange::Sending::kUnsent;
    Abandon(*exchange);
    --unoffered_;
    owner_.OnLeaseOver(*exchange);
  }
  leased_.clear();
}

void H2Session::End(H2Exchange& exchange, Exchange::End end, std::string_view detail) {
  LetGo(exchange);
  owner_.OnEnded(exchange, end, detail);
}

// The answer is whole. A peer need not have read the request for it.
void H2Session::Complete(H2Exchange& exchange) {
  if (!exchange.request.body.empty()) {
    const int32_t stream = exchange.stream;
    LetGo(exchange);
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  }
  End(exchange, Exchange::End::kComplete, "answered");
}

// The answer is malformed. The status of a head that was whole still holds.
void H2Session::Reject(H2Exchange& exchange) {
  exchange.fault = exchange.head.fault();
  const int32_t stream = exchange.stream;
  LetGo(exchange);
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_PROTOCOL_ERROR);
  owner_.OnEnded(exchange, Exchange::End::kBroken, exchange.fault);
}

// ---- frames of the peer

void H2Session::Moved() {
  moved_ = now_;
  idle_frames_ = 0;
  has_moved_ = true;
}

void H2Session::OnSettings() {
  peer_streams_ = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  if (settled_) return;
  settled_ = true;
  idle_since_ = now_;
}

// nghttp2 ends the streams that were left out once this has returned.
void H2Session::OnGoAway(int32_t last_stream, uint32_t error) {
  retired_ = true;
  last_processed_ = std::min(last_processed_, last_stream);
  const int32_t first = settings_.tuning.first_stream == 0 ? 1 : settings_.tuning.first_stream;
  const auto taken = last_processed_ < first ? 0 : static_cast<size_t>((last_processed_ - first) / 2 + 1);
  if (taken < submitted_) pace_.OnGoAway(taken, now_);
  if (error == NGHTTP2_HTTP_1_1_REQUIRED) owner_.OnHttp1Required();
}

// A HEADERS or DATA frame is whole.
void H2Session::OnAnswerFrame(const nghttp2_frame& frame) {
  H2Exchange* const exchange = Find(frame.hd.stream_id);
  if (exchange == nullptr) return;
  const bool end = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  AnswerHead& head = exchange->head;
  bool fine = frame.hd.type == NGHTTP2_DATA || head.EndHead(end);
  if (fine && head.done() && exchange->answer < Exchange::Answer::kHead) {
    exchange->TakeStatus(head.status());
    exchange->answer = Exchange::Answer::kHead;
    CrashPoint("after-status");
  }
  if (fine && end) fine = head.EndBody();
  if (!fine) {
    Reject(*exchange);
  } else if (end) {
    Complete(*exchange);
  }
}

// ---- nghttp2's callbacks for what is received

nghttp2_session_callbacks* H2Session::Callbacks() {
  static nghttp2_session_callbacks* const callbacks = [] {
    nghttp2_session_callbacks* made = nullptr;
    if (nghttp2_session_callbacks_new(&made) != 0) std::abort();
    nghttp2_session_callbacks_set_on_begin_frame_callback(made, &OnBeginFrame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(made, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(made, &OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnStreamClose);
    nghttp2_session_callbacks_set_before_frame_send_callback(made, &BeforeFrameSend);
    nghttp2_session_callbacks_set_on_frame_send_callback(made, &OnFrameSend);
    nghttp2_session_callbacks_set_send_data_callback(made, &OnSendBody);
    return made;
  }();
  return callbacks;
}

int H2Session::OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  // Switched off by our SETTINGS, whether or not the peer has read them.
  if (head->type == NGHTTP2_PUSH_PROMISE) return NGHTTP2_ERR_CALLBACK_FAILURE;
  return ++self.idle_frames_ > self.settings_.tuning.max_idle_frames ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

int H2Session::OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  if (H2Exchange* exchange = self.Find(frame->hd.stream_id)) {
    if (exchange->answer == Exchange::Answer::kNone) exchange->answer = Exchange::Answer::kBegun;
    exchange->head.Begin();
    self.Moved();
  }
  return 0;
}

int H2Session::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                        const uint8_t* value, size_t value_size, uint8_t, void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  H2Exchange* const exchange = self.Find(frame->hd.stream_id);
  if (exchange == nullptr) return 0;
  AnswerHead& head = exchange->head;
  const std::string_view field = View(name, name_size);
  std::string_view text = View(value, value_size);
  switch (head.Read(field, &text)) {
    case AnswerHead::Field::kTake:
      exchange->TakeField(head.status(), field, text);
      break;
    case AnswerHead::Field::kSkip:
      break;
    case AnswerHead::Field::kIgnore:
      self.owner_.OnFieldIgnored();
      break;
    case AnswerHead::Field::kMalformed:
      self.Reject(*exchange);
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // nghttp2 reads the rest for its tables, and says no more of it
  }
  // RFC 9113 section 6.5.2 counts 32 more for each field.
  if (exchange->TakeHeadBytes(name_size + value_size + 32, self.settings_.options.max_header_bytes)) return 0;
  // What came so far is well-formed, and it begins with the status.
  if (!head.done() && head.status() >= 200) exchange->TakeStatus(head.status());
  self.End(*exchange, Exchange::End::kBroken, "answer head over the limit");
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // nghttp2 resets the stream and keeps its tables right
}

int H2Session::OnData(nghttp2_session* session, uint8_t, int32_t stream, const uint8_t* data, size_t size,
                      void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  H2Exchange* const exchange = self.Find(stream);
  if (exchange == nullptr) return 0;
  self.Moved();
  if (!exchange->head.ReadBody(size)) {
    self.Reject(*exchange);
    return 0;
  }
  if (exchange->TakeBody(View(data, size), self.settings_.options.max_answer_bytes)) return 0;
  self.End(*exchange, Exchange::End::kBroken, "answer body over the limit");
  return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL) == 0
             ? 0
             : NGHTTP2_ERR_CALLBACK_FAILURE;
}

int H2Session::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) self.OnSettings();
      return 0;
    case NGHTTP2_GOAWAY:
      self.OnGoAway(frame->goaway.last_stream_id, frame->goaway.error_code);
      return 0;
    case NGHTTP2_RST_STREAM:
      if (frame->rst_stream.error_code == NGHTTP2_HTTP_1_1_REQUIRED) self.owner_.OnHttp1Required();
      if (H2Exchange* exchange = self.Find(frame->hd.stream_id)) {
        exchange->reset_as_refused = frame->rst_stream.error_code == NGHTTP2_REFUSED_STREAM;
      }
      return 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
      self.OnAnswerFrame(*frame);
      return 0;
    default:
      return 0;
  }
}

int H2Session::OnStreamClose(nghttp2_session*, int32_t stream, uint32_t, void* user) noexcept {
  auto& self = *static_cast<H2Session*>(user);
  if (self.streams_ > 0) --self.streams_;
  if (self.streams_ == 0) self.idle_since_ = self.now_;
  H2Exchange* const exchange = self.Find(stream);
  if (exchange == nullptr) return 0;
  if (exchange->reset_as_refused) self.pace_.OnRefused(self.streams_, self.now_);
  // Either way in which a peer refuses counts only while it has answered nothing (RFC 9113 section 8.7).
  const bool refused =
      (exchange->reset_as_refused || stream > self.last_processed_) && exchange->answer == Exchange::Answer::kNone;
  self.End(*exchange, refused ? Exchange::End::kRefused : Exchange::End::kBroken,
           "HTTP/2 stream ended without an answer");
  return 0;
}

// ---- nghttp2's callbacks for what is sent

// The frame is about to be given to TLS.
int H2Session::BeforeFrameSend(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  auto& self = *static_cast<H2Session*>(user);
  if (self.unoffered_ > 0) --self.unoffered_;
  H2Exchange* const exchange = self.Find(frame->hd.stream_id);
  // Cannot be, because nghttp2 drops what was given up earlier. Dropping it here would put its compression out of step.
  if (exchange == nullptr) return NGHTTP2_ERR_CALLBACK_FAILURE;
  exchange->sending = Exchange::Sending::kMaybeSent;
  return 0;
}

int H2Session::OnFrameSend(nghttp2_session*, const nghttp2_frame* frame, void* user) noexcept {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (H2Exchange* exchange = static_cast<H2Session*>(user)->Find(frame->hd.stream_id)) {
    for (auto& [name, value] : exchange->request.headers) Wipe(value);  // they are compressed now
  }
  return 0;
}

// Only says how much; OnSendBody() copies, so that nghttp2's buffers never hold a body.
ssize_t H2Session::OnReadBody(nghttp2_session*, int32_t stream, uint8_t*, size_t size, uint32_t* flags,
                              nghttp2_data_source* source, void* user) noexcept {
  if (static_cast<H2Session*>(user)->Find(stream) == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const auto& exchange = *static_cast<H2Exchange*>(source->ptr);
  const size_t left = exchange.request.body.size() - exchange.body_offset;
  const size_t n = std::min(size, left);
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (n == left) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(n);
}

int H2Session::OnSendBody(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                          nghttp2_data_source* source, void* user) noexcept {
  constexpr size_t kFrameHead = 9;
  auto& self = *static_cast<H2Session*>(user);
  if (self.Find(frame->hd.stream_id) == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (self.scratch_.size() >= self.settings_.tuning.max_unsent) return NGHTTP2_ERR_WOULDBLOCK;  // after the next write
  auto& exchange = *static_cast<H2Exchange*>(source->ptr);
  std::string& body = exchange.request.body;
  self.scratch_.append(reinterpret_cast<const char*>(head), kFrameHead);
  self.scratch_.append(body, exchange.body_offset, size);
  exchange.body_offset += size;
  CrashPoint(exchange.body_offset < body.size() ? "after-first-body-byte" : "after-body");
  if (exchange.body_offset == body.size()) {
    Wipe(body);
    exchange.body_offset = 0;
  }
  return 0;
}

}  // namespace userintent::http
