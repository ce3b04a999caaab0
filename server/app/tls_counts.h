// TlsCounts: what became of handshakes, and when certificates in files end, from where they are known into the metrics.
//
// Used by server.cc, once a second on main's thread. What it is given outlives it.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "server/app/watched_files.h"
#include "server/observe/metrics.h"
#include "server/rpc/handshake_result.h"
#include "server/rpc/tls_watch.h"

namespace userintent {

class TlsCounts {
 public:
  // What other servers of the process did before is none of this one's.
  TlsCounts(const WatchedFiles& files, observe::Metrics& metrics)
      : files_(files), metrics_(metrics), handshakes_(rpc::Handshakes()) {}

  void Count();

 private:
  const WatchedFiles& files_;
  observe::Metrics& metrics_;
  std::array<uint64_t, rpc::kHandshakeResults> handshakes_;  // that are in the metrics already
};

}  // namespace userintent
