// TlsCounts: what became of handshakes, and when certificates end, from the listener into the metrics.
//
// Used by server.cc, once a second on main's thread. What it is given outlives it.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "server/observe/metrics.h"
#include "server/rpc/handshake_result.h"
#include "server/rpc/tls_watch.h"
#include "server/tls/files.h"

namespace userintent {

class TlsCounts {
 public:
  // `tls` null: the listener is in plaintext. What other servers of the process did before is none of this one's.
  TlsCounts(tls::Files tls, observe::Metrics& metrics)
      : tls_(std::move(tls)), metrics_(metrics), handshakes_(rpc::Handshakes()) {}

  void Count();

 private:
  const tls::Files tls_;
  observe::Metrics& metrics_;
  std::array<uint64_t, rpc::kHandshakeResults> handshakes_;  // that are in the metrics already
};

}  // namespace userintent
