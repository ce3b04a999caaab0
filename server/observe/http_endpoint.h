// HttpEndpoint: the plain HTTP side door for operators: /metrics, /livez, /readyz and /status, nothing else.
//
// Serves on threads of its own from Start() until it is destroyed; the owner destroys it before the objects that the
// functions in Options use. Those run on the endpoint's threads, possibly several at once. There is no TLS and no
// access control: it listens on loopback unless it is told otherwise, and shows fixed words, numbers, and on /status
// the names of callers and random ids.
//
// /readyz is a JSON object: {"ready":false,"reasons":["the ledger cannot be written"]}, {"ready":true,"reasons":[]}.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

struct mg_context;

namespace userintent::observe {

class HttpEndpoint {
 public:
  struct Options {
    std::string host = "127.0.0.1";        // an IP address without brackets, or "localhost"
    uint16_t port = 0;                     // 0: any free one, see port()
    std::function<std::string()> metrics;  // the text of /metrics
    // Why /readyz answers 503, in words that are shown; empty: it answers 200.
    std::function<std::vector<std::string>()> reasons_not_ready;
    std::function<std::string()> status = {};  // the page of /status, HTML in UTF-8; may be empty: there is none
    std::function<bool()> alive = {};          // true: /livez answers 200, false: 503; may be empty: always
  };

  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Start(Options options);

  // Stops listening and waits for answers under way.
  ~HttpEndpoint();
  HttpEndpoint(const HttpEndpoint&) = delete;
  HttpEndpoint& operator=(const HttpEndpoint&) = delete;

  uint16_t port() const { return port_; }

  // For the server library below: answers one request. Never throws.
  int Handle(void* connection) noexcept;

 private:
  explicit HttpEndpoint(Options options);

  const Options options_;
  mg_context* context_ = nullptr;
  uint16_t port_ = 0;
};

}  // namespace userintent::observe
