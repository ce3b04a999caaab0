// CurlExchange: one exchange of the client on libcurl, with the lines that libcurl sends and what its callbacks saw.
#pragma once

#include <curl/curl.h>
#include <openssl/ssl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/ca_file.h"
#include "server/http/exchange.h"
#include "server/http/exchanges.h"

namespace userintent::http {

class CurlClient;

// What the head of an answer over HTTP/1.1 says about where its body ends.
struct BodyLength {
  int announced = 0;               // how often, by Content-Length
  std::optional<uint64_t> length;  // the last announced; nullopt: none that can be read
  bool transfer_encoding = false;

  void TakeField(std::string_view name, std::string_view value);
  // The end is unmistakable. libcurl notices bytes beyond the answer only behind a body of known size; beyond a chunked
  // or an empty one it drops them and keeps the connection.
  bool ClearEnd() const { return announced == 1 && length.value_or(0) > 0 && !transfer_encoding; }
  bool Fits(size_t size) const { return announced == 0 || length == size; }
};

struct CurlExchange : Exchange {
  // Why a callback stopped libcurl, or the client gave it up. The latest counts.
  enum class Stop {
    kNone,
    kInternal,       // no memory, no descriptor, no TLS state, or the multi handle broke
    kNoHttp1Alpn,    // HTTP/1.1 had to be agreed upon, and was not
    kNotQuiet,       // the pooled connection was not quiet when it was to be used
    kSpokeEarly,     // it was, but then spoke before the body was sent
    kSecondSending,  // libcurl wanted to send the request again
    kLeaseOver,      // the request's lease did not hold when it was about to leave
  };
  // The connection that it is on; valid from the pre-request callback until the handle is removed.
  struct OnConnection {
    SSL* ssl = nullptr;
    int fd = -1;
    bool reused_http1 = false;
  };

  // Makes the lines that libcurl is given of the request's headers, which are gone then.
  void PrepareLines(const std::string& origin);
  void WipeLines();
  // The request has left: wipes what the lines hold, while libcurl still points to them.
  void BlankLines();
  bool RequestLeft() const { return body_offset == request.body.size(); }

  // An answer on a reused connection to a request that has not been sent answers something else.
  bool SpeaksEarly() const { return on.reused_http1 && sending != Sending::kMaybeSent; }
  bool NoBodyAllowed() const { return outcome.status == 204 || outcome.status == 304; }

  // What libcurl's result means, if nothing was sent, and for logs.
  NotSentCause CauseOf(CURLcode code) const;
  std::string_view DetailFor(CURLcode code, NotSentCause cause) const;

  CurlClient* client = nullptr;
  CURL* easy = nullptr;
  Link<CurlExchange> in_waiting;
  Link<CurlExchange> in_connecting;  // looking up, connecting or shaking hands
  SteadyTime connecting_since;
  Link<CurlExchange> in_pending;  // it waits for another one's connection

  // libcurl points into these, so they stay put until the handle has left the multi.
  std::string url;
  std::shared_ptr<const Certificates> authorities;
  std::vector<std::string> header_lines;
  std::vector<curl_slist> header_nodes;
  size_t body_offset = 0;  // how much of the body libcurl has taken

  Stop stop = Stop::kNone;
  bool fresh_connection = false;  // it had met one that was not quiet, so it gets one of its own
  int forbidden_addresses = 0;
  int allowed_addresses = 0;
  OnConnection on;
  BodyLength body_length;
};

}  // namespace userintent::http
