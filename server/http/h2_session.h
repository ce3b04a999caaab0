// H2Session: HTTP/2 on one connection, by nghttp2: frames in, frames out, and the exchanges that are on it as streams.
//
// Knows nothing of sockets and TLS. Belongs to an H2Connection and its thread. Nothing in here calls a Done; exchanges
// that end are handed to the Owner.
#pragma once

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/loop.h"
#include "server/http/h2_exchange.h"
#include "server/http/h2_settings.h"
#include "server/http/pace.h"

namespace userintent::http {

class H2Session {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The session has let go of the exchange.
    virtual void OnEnded(H2Exchange& exchange, Exchange::End end, std::string_view detail) = 0;
    // The same, from Collect(): the lease was over, and nothing of the exchange has left or will.
    virtual void OnLeaseOver(H2Exchange& exchange) = 0;
    // A field of an answer was against the rules, and ignored.
    virtual void OnFieldIgnored() = 0;
    // The peer wants to be spoken to in HTTP/1.1 (RFC 9113 section 7).
    virtual void OnHttp1Required() = 0;
  };

  // `scratch` is the client's: empty between calls. `now` is the time of the connection's turn. All outlive the
  // session.
  H2Session(const H2Settings& settings, Owner& owner, Pace& pace, std::string& scratch, const SteadyTime& now)
      : settings_(settings), owner_(owner), pace_(pace), scratch_(scratch), now_(now) {}
  ~H2Session() { nghttp2_session_del(session_); }
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

  bool Begin();  // prepares the preface and our SETTINGS; false: out of memory

  // ---- frames. False: the protocol is broken
  bool Receive(const uint8_t* data, size_t size);
  // Appends to the scratch what is to be written next: about `max_unsent` bytes, and every HEADERS frame there is, but
  // for exchanges whose lease is over. It is to be given to TLS at once.
  bool Collect();
  // The session is over: neither side will say more.
  bool Over() const { return nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0; }
  void Ping() { nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); }
  void SayGoodbye();  // appends a GOAWAY to the scratch

  // ---- exchanges
  // Takes the exchange and prepares its frames. False: it takes none any more (stream ids used up), and the exchange is
  // as it was. Collect() must follow before anything else happens.
  bool Submit(H2Exchange& exchange);
  // The exchange has had its time. If none has moved since it was sent, then whatever the peer is busy with, no more of
  // it.
  void Suspect(const H2Exchange& exchange) {
    if (exchange.sending == Exchange::Sending::kMaybeSent && moved_ <= exchange.sent) retired_ = true;
  }
  // Lets go of an exchange that shall end: a stream that was begun is reset, one that was not is never sent.
  void Abandon(H2Exchange& exchange);
  void Retire() { retired_ = true; }  // no new exchanges

  // ---- state
  bool begun() const { return session_ != nullptr; }
  bool settled() const { return settled_; }  // the peer's SETTINGS have come
  bool retired() const { return retired_; }
  bool told_to_go() const { return last_processed_ != INT32_MAX; }  // by a GOAWAY
  size_t streams() const { return streams_; }
  size_t submitted() const { return submitted_; }  // exchanges that were put on it, in all
  size_t Limit() const { return std::min<size_t>(peer_streams_, settings_.tuning.max_streams); }  // 0: not said yet
  size_t Capacity(SteadyTime now) const;  // how many more streams it would take now
  // It would take one more, if one of its streams ended.
  bool Full(SteadyTime now) const {
    return !retired_ && std::min(Limit(), pace_.AtOnce(now)) <= streams_ && pace_.InAll(now) > submitted_;
  }
  SteadyTime idle_since() const { return idle_since_; }  // when the last stream ended
  // True if an exchange has moved since it was last asked.
  bool TakeMoved() { return std::exchange(has_moved_, false); }

 private:
  // nghttp2's callbacks. They are C and know no exceptions: what throws in here ends the process.
  static int OnBeginFrame(nghttp2_session*, const nghttp2_frame_hd* head, void* self) noexcept;
  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* self) noexcept;
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                      const uint8_t* value, size_t value_size, uint8_t flags, void* self) noexcept;
  static int OnData(nghttp2_session* session, uint8_t flags, int32_t stream, const uint8_t* data, size_t size,
                    void* self) noexcept;
  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* self) noexcept;
  static int OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t error, void* self) noexcept;
  static int BeforeFrameSend(nghttp2_session* session, const nghttp2_frame* frame, void* self) noexcept;
  static int OnFrameSend(nghttp2_session* session, const nghttp2_frame* frame, void* self) noexcept;
  static ssize_t OnReadBody(nghttp2_session*, int32_t stream, uint8_t* out, size_t size, uint32_t* flags,
                            nghttp2_data_source* source, void* self) noexcept;
  static int OnSendBody(nghttp2_session*, nghttp2_frame* frame, const uint8_t* head, size_t size,
                        nghttp2_data_source* source, void* self) noexcept;
  static nghttp2_session_callbacks* Callbacks();

  void TakeBackOverdue();
  void OnSettings();
  void OnGoAway(int32_t last_stream, uint32_t error);
  void OnAnswerFrame(const nghttp2_frame& frame);
  void Moved();
  void LetGo(H2Exchange& exchange) {
    if (session_ != nullptr) nghttp2_session_set_stream_user_data(session_, exchange.stream, nullptr);
  }
  void End(H2Exchange& exchange, Exchange::End end, std::string_view detail);
  void Complete(H2Exchange& exchange);
  void Reject(H2Exchange& exchange);
  H2Exchange* Find(int32_t stream) const {
    return stream == 0 ? nullptr : static_cast<H2Exchange*>(nghttp2_session_get_stream_user_data(session_, stream));
  }

  const H2Settings& settings_;
  Owner& owner_;
  Pace& pace_;
  std::string& scratch_;
  const SteadyTime& now_;
  nghttp2_session* session_ = nullptr;

  bool settled_ = false;
  bool retired_ = false;
  size_t submitted_ = 0;
  size_t streams_ = 0;                  // open in nghttp2, with or without an exchange
  size_t unoffered_ = 0;                // of them, whose HEADERS are still to be written
  std::vector<H2Exchange*> leased_;     // of them, those with a lease; empty after Collect()
  uint32_t peer_streams_ = 0;           // the peer's limit
  int32_t last_processed_ = INT32_MAX;  // of its GOAWAY
  int idle_frames_ = 0;                 // since an exchange moved
  bool has_moved_ = false;
  SteadyTime moved_{};  // when the last exchange moved
  SteadyTime idle_since_{};
  std::vector<nghttp2_nv> fields_;
};

}  // namespace userintent::http
