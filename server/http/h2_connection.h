// H2Connection: one connection to the origin, from the TCP connect to the last frame: TCP, TLS, nghttp2's session, and
// the exchanges that are on it as streams.
//
// Belongs to one thread, like the H2Client that owns it and every exchange. Nothing in here calls a Done; exchanges
// that end are handed to the Owner. A connection that failed is kDead and does nothing any more: its owner asks why,
// ends the exchanges that it still carried and deletes it.
#pragma once

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include <array>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/base/loop.h"
#include "server/http/answer_head.h"
#include "server/http/client.h"
#include "server/http/connection_limits.h"
#include "server/http/pace.h"
#include "server/http/tls_context.h"
#include "server/net/resolver.h"

namespace userintent::http {

class H2Connection;

// One exchange, from Start() until its outcome is ready.
struct H2Exchange {
  Client::ExchangeId id = 0;
  Client::Done done;
  Request request;  // header names in lower case; each part is wiped as soon as it has been taken
  Outcome outcome;  // status is set once a final head is whole
  SteadyTime start;
  SteadyTime sent;
  std::list<H2Exchange>::iterator self;

  H2Connection* connection = nullptr;  // null: waits to be sent
  int32_t stream = 0;
  size_t body_offset = 0;    // how much of the body was offered to the connection; all of it: the body is wiped
  size_t header_bytes = 0;   // of all heads and trailers
  AnswerHead head;           // of the answer
  bool offered = false;      // a byte of its HEADERS may have been given to TLS: the end of "not sent"
  bool heard = false;        // the peer answered something, if only an interim head: the end of "refused"
  bool refused = false;      // the peer refused it unprocessed
  bool headers_cut = false;  // over the limit
  bool body_cut = false;     // over the limit
};

// Times and limits that Options does not name. Tests shorten them.
struct H2Tuning {
  // A connection with streams that is silent for so long is asked for a sign of life, and broken if none comes.
  std::chrono::milliseconds ping_after{10000};
  std::chrono::milliseconds ping_timeout{10000};
  std::chrono::milliseconds idle_limit = kIdleLimit;
  std::chrono::milliseconds age_limit = kAgeLimit;
  // How long one address may keep the next one waiting (RFC 8305).
  std::chrono::milliseconds race_after{250};
  // How soon a failed attempt at one more connection is followed by the next while others are in use.
  std::chrono::milliseconds reconnect_after{1000};
  uint32_t max_streams = 256;  // on one connection, if the peer allows as many
  int32_t first_stream = 0;    // 0: as nghttp2 counts
  // What a peer may send that does nothing for an exchange before the next thing that does.
  int max_idle_frames = 10000;
  size_t max_idle_bytes = 4 << 20;
  size_t max_unsent = 64 << 10;  // plain bytes that are collected for one write
};

// What all connections of a client have in common.
struct H2Settings {
  Options options;
  H2Tuning tuning;
  std::string authority;  // of the request, without the default port
};

class H2Connection {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The connection has let go of the exchange. `complete`: the answer came to its proper end.
    virtual void OnEnded(H2Exchange& exchange, bool complete, std::string_view detail) = 0;
    // A field of an answer was against the rules, and ignored.
    virtual void OnFieldIgnored() = 0;
    // The peer wants to be spoken to in HTTP/1.1 (RFC 9113 section 7).
    virtual void OnHttp1Required() = 0;
  };

  enum class State {
    kConnecting,   // TCP
    kHandshaking,  // TLS
    kSettling,     // waits for the peer's SETTINGS: no request leaves before its limits are known
    kReady,
    kDead,
  };

  // Why it is dead; the cause counts for exchanges that were not sent.
  struct Failure {
    NotSentCause cause = NotSentCause::kConnect;
    std::string_view detail;
    bool no_http2 = false;  // the peer does not offer HTTP/2
  };

  // `scratch` is the client's: empty between calls. All must outlive the connection.
  H2Connection(const H2Settings& settings, TlsContext& tls, int epoll, Owner& owner, Pace& pace, std::string& scratch);
  ~H2Connection();
  H2Connection(const H2Connection&) = delete;
  H2Connection& operator=(const H2Connection&) = delete;

  // Begins; the first address that accepts is taken. Gives up at `deadline`.
  void Connect(std::vector<net::Address> addresses, SteadyTime now, SteadyTime deadline);

  void OnEvent(SteadyTime now);  // its descriptor is ready
  void OnTimer(SteadyTime now);
  std::optional<SteadyTime> NextTimer() const;  // nullopt: none. Always in the future after OnTimer()

  State state() const { return state_; }
  bool ever_ready() const { return ever_ready_; }
  // It died, and as an attempt to connect it had failed: it never was ready, or went at once, before any use.
  bool Failed() const;
  bool TakeNews() { return std::exchange(news_, false); }  // true once, after it became ready
  const Failure& failure() const { return failure_; }

  // How many exchanges it takes at once: at present, and when what was written has left.
  size_t Room(SteadyTime now) const { return wire_.empty() ? Capacity(now) : 0; }
  size_t Capacity(SteadyTime now) const;
  // How many it would take in all, 0 before the peer has said.
  size_t Limit() const;
  bool Usable() const { return state_ == State::kReady && !retired_; }
  bool Aged(SteadyTime now) const { return now >= ready_since_ + settings_.tuning.age_limit; }
  void Retire() { retired_ = true; }  // no new exchanges; it closes when the last one has ended
  size_t streams() const { return streams_; }

  // Takes the exchange and prepares its frames; Flush() must follow before anything else happens. False: it takes none
  // any more (stream ids used up), and the exchange is as it was.
  bool Submit(H2Exchange& exchange, SteadyTime now);

  // Lets go of an exchange that shall end: a stream that was begun is reset, one that was not is never sent.
  void Abandon(H2Exchange& exchange);

  // Writes all that is to be written, as far as the socket takes it.
  void Flush(SteadyTime now);

 private:
  // nghttp2's and OpenSSL's callbacks. They are C and know no exceptions: what throws in here ends the process.
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
  static BIO_METHOD* Wire();
  static int WireWrite(BIO* bio, const char* data, int size) noexcept;
  static int WireRead(BIO* bio, char* out, int size) noexcept;

  void Race(SteadyTime now);
  bool StartNext(SteadyTime now);
  void TakeSocket(int fd, SteadyTime now);
  void Handshake(SteadyTime now);
  bool BeginSession();
  void Receive(SteadyTime now);
  bool SendWire();
  void Watch(bool writable);
  void Complete(H2Exchange& exchange);
  void Reject(H2Exchange& exchange);
  void OnGoAway(int32_t last_stream, uint32_t error);
  void Moved();
  void LetGo(H2Exchange& exchange);
  void Fail(NotSentCause cause, std::string_view detail);
  void FailHandshake();
  void CloseSockets();
  void SayGoodbye();
  H2Exchange* Find(int32_t stream) const;

  const H2Settings& settings_;
  TlsContext& tls_;
  const int epoll_;
  Owner& owner_;
  Pace& pace_;
  std::string& scratch_;

  State state_ = State::kConnecting;
  Failure failure_;
  bool ever_ready_ = false;
  bool news_ = false;
  bool retired_ = false;

  // While connecting.
  std::vector<net::Address> addresses_;
  size_t next_address_ = 0;
  std::vector<int> racing_;
  SteadyTime next_race_{};
  SteadyTime deadline_{};

  int fd_ = -1;
  SSL* ssl_ = nullptr;
  nghttp2_session* session_ = nullptr;
  bool watching_writable_ = false;
  bool drained_ = false;     // the socket had no more when it was last read, or has had its turn
  size_t read_ = 0;          // in this turn
  bool lost_ = false;        // the socket takes no more; what the peer had said before is being read
  std::string wire_;         // TLS records that the socket did not take yet
  size_t wire_sent_ = 0;     // how much of it has left
  SteadyTime wire_since_{};  // when wire_ began to wait for the socket

  size_t submitted_ = 0;                // exchanges that were put on it, in all
  size_t streams_ = 0;                  // open in nghttp2, with or without an exchange
  size_t unoffered_ = 0;                // of them, whose HEADERS are still to be written
  uint32_t peer_streams_ = 0;           // the peer's limit
  int32_t last_processed_ = INT32_MAX;  // of its GOAWAY
  int idle_frames_ = 0;                 // since an exchange moved
  size_t idle_bytes_ = 0;               // the same; of TLS, so that its own messages count
  SteadyTime now_{};
  SteadyTime ready_since_{};
  SteadyTime heard_{};       // when the last byte came
  SteadyTime moved_{};       // when the last exchange moved
  SteadyTime idle_since_{};  // when the last stream ended
  std::optional<SteadyTime> pinged_;
  std::vector<nghttp2_nv> fields_;
};

}  // namespace userintent::http
