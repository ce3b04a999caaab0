// ConnectionCounts: what became of callers' connections, from the listener into the metrics.
//
// Used by server.cc, once a second on main's thread.
#pragma once

#include <cstdint>

#include "server/observe/metrics.h"
#include "server/rpc/acceptor.h"
#include "server/rpc/connection_watch.h"

namespace userintent {

class ConnectionCounts {
 public:
  void Count(const rpc::Acceptor& acceptor, observe::Metrics& metrics);

 private:
  // What is in the metrics already.
  rpc::Refusals refused_;
  rpc::Endings ended_;
  uint64_t handshakes_ = 0;
};

}  // namespace userintent
