// http::Client: sends one request (POST or GET) to one origin and says exactly how sure it is about what became of it.
//
// Knows nothing of gRPC, protobuf or Astra. One client belongs to one thread (a shard), which owns it and is the only
// one to call it; nothing in it is locked. The owner waits until PollFd() is readable or NextTimer() is due, then
// calls Turn(). Start() and Turn() never block.
//
// The promise: a request leaves at most once for each Start(), whatever connections, HTTP versions and libraries do.
// There is no hidden re-send and no retry in here, for a GET neither. Another try is another Start(); for a POST it
// needs Fate::kNotSent, kRefused or an answer that allows it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "server/base/lease.h"
#include "server/base/loop.h"

namespace userintent::http {

class CaFile;

// What is proved about the request of one exchange, weakest claim last.
enum class Fate {
  // Proof: the peer cannot have the request. Over nghttp2 no byte of its HEADERS was handed to a connection. Over
  // libcurl
  // no byte of a POST's body was (the read callback never ran), and for a GET no connection was released for sending
  // (the
  // pre-request callback never said yes).
  kNotSent,
  // Proof: the peer said that it did not process the stream (RFC 9113 section 8.7: REFUSED_STREAM, or a GOAWAY with a
  // lower last stream id). libcurl cannot tell, so its client never says so.
  kRefused,
  kAnswered,   // a final status line (>= 200) came; the body may be cut, see Outcome::body_complete
  kMaybeSent,  // anything else
};

// Why nothing was sent. Meaningful with Fate::kNotSent only.
enum class NotSentCause {
  kNone,
  kResolve,           // the host name did not resolve
  kConnect,           // refused, unreachable
  kTimeout,           // no connection within the connect timeout (resolve + TCP + TLS + waiting for a free one)
  kTls,               // the handshake broke
  kUntrusted,         // the certificate or its host name was not accepted: repeating is pointless
  kForbiddenAddress,  // the host resolved to an address that is not allowed: repeating is pointless
  kCancelled,         // CancelUnsent()
  kLeaseOver,         // Request::lease did not hold when the first byte was about to leave: repeating is pointless
  kInternal,          // the client could not even begin (out of memory, ...)
};

struct Outcome {
  Fate fate = Fate::kMaybeSent;
  NotSentCause cause = NotSentCause::kNone;
  int status = 0;              // with kAnswered
  bool body_complete = false;  // the whole body came and was within the size limit
  std::string body;            // at most Options::max_answer_bytes; possibly personal data: never log it
  std::string request_id;      // header Request-Id, as it came but for blanks around it
  std::string retry_after;     // header Retry-After, the same
  std::string date;            // header Date, the same; of answers from 300 on only, where a date has a use
  std::string_view detail;     // fixed text for logs: which step failed, never peer-supplied bytes
};

enum class Method { kPost, kGet };

struct Request {
  std::string path;                                          // "/v1/user_intent"; trusted text, not escaped
  std::vector<std::pair<std::string, std::string>> headers;  // wiped after use; without CR and LF
  std::string body;                                          // of a POST never empty, of a GET empty; wiped after use
  // For libcurl: nothing is sent unless the peer picks http/1.1 by ALPN (kNotSent, kTls).
  bool needs_http1_alpn = false;
  Method method = Method::kPost;
  // Of a POST: if `done` ran because the exchange had had its time, while the whole request had left, it is listened to
  // on (Options::late_window). Then this runs, at most once, with the answer or refusal that came after all.
  absl::AnyInvocable<void(Outcome)> on_late = nullptr;
  // Looked at by Start(), and again right before the first byte of the request is given to TLS; over libcurl also
  // before the first one of its body. Where it does not hold, nothing leaves: kNotSent, kLeaseOver. Null: no limit.
  std::shared_ptr<const Lease> lease = nullptr;
};

// Which library speaks HTTP; CreateClient() in auto_client.h chooses by it.
enum class Transport {
  kAuto,     // nghttp2 if the origin offers HTTP/2, else libcurl
  kNghttp2,  // nghttp2; an origin without HTTP/2 is not reached
  kLibcurl,
};

// What clients of one origin know together about its HTTP/2 (Transport::kAuto). Any thread.
struct Http1Period {
  std::atomic<SteadyTime::rep> until{0};  // HTTP/1.1 is spoken until then
  std::atomic<bool> takes_h2{false};      // though ALPN would say h2: it asked for HTTP/1.1, or keeps refusing
};

struct Options {
  std::string origin;                   // "https://host:port"
  std::string ca_file;                  // empty: the system's
  const CaFile* authorities = nullptr;  // counts instead of ca_file, and may change; outlives the client
  bool allow_private_address = false;   // see Options::loopback_ok
  bool loopback_ok = false;             // the configured host is "localhost" or a loopback literal
  bool http2 = true;                    // offer h2 by ALPN; false: HTTP/1.1 only, which libcurl speaks
  Transport transport = Transport::kAuto;
  // Whether an HTTP/1.1 connection may carry another request. Nothing in HTTP/1.1 tells an answer that came too late
  // from the answer to the next request, so a caller for which they must never be mixed up says no.
  bool reuse_http1 = true;
  std::chrono::milliseconds connect_timeout{3000};
  std::chrono::milliseconds exchange_timeout{30000};
  // For how long after its timeout an exchange with `on_late` is listened to, and how many at once; beyond it the
  // oldest give way. They also give way to exchanges that wait for their place, and none of them counts as being under
  // way. 0: an exchange ends with its timeout.
  std::chrono::milliseconds late_window{0};
  size_t max_late = 1000;
  int max_connections = 32;
  std::shared_ptr<Http1Period> http1_period;  // null: the client's own
  size_t max_answer_bytes = 64 * 1024;
  size_t max_header_bytes = 32 * 1024;
};

struct Stats {  // since the start, but for `late_now` and `peer_end`; for metrics and benchmarks
  uint64_t exchanges = 0;
  uint64_t connections_opened = 0;
  // When the certificate ends that the peer showed on the newest of them. The epoch: there was none yet.
  std::chrono::system_clock::time_point peer_end;
  uint64_t reuse_refused = 0;    // pooled connections thrown away because they held unsolicited bytes or were closed
  uint64_t resend_refused = 0;   // hidden re-sends by the library that were stopped
  uint64_t headers_ignored = 0;  // fields of answers over HTTP/2 that were against its rules (see answer_head.h)
  uint64_t late_now = 0;         // exchanges that are listened to after their timeout
  uint64_t late_silent = 0;      // of those no longer listened to, and without `on_late`: nothing came in the window
  uint64_t late_lost = 0;        // their connection or stream ended
  uint64_t late_gave_way = 0;    // to the limit, or to one that waited for their place
};

class Client {
 public:
  using ExchangeId = uint64_t;
  using Done = absl::AnyInvocable<void(Outcome)>;

  virtual ~Client() = default;

  // Begins one exchange. `done` runs exactly once, from a later Turn() (never from inside Start), unless the client is
  // destroyed first, in which case it never runs; nor does `on_late` then.
  virtual ExchangeId Start(Request request, Done done) = 0;

  // If it is proved that nothing of the exchange has been sent: ends it, and `done` runs in a later Turn() with
  // kNotSent/kCancelled; returns true. Otherwise changes nothing and returns false.
  virtual bool CancelUnsent(ExchangeId id) = 0;

  virtual int PollFd() const = 0;
  virtual std::optional<SteadyTime> NextTimer() const = 0;
  virtual void Turn() = 0;

  virtual const Stats& stats() const = 0;
};

}  // namespace userintent::http
