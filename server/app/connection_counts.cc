#include "server/app/connection_counts.h"

#include <utility>

#include "server/rpc/tls_watch.h"

namespace userintent {

using observe::EndedConnection;
using observe::RefusedConnection;

void ConnectionCounts::Count(const rpc::Acceptor& acceptor, observe::Metrics& metrics) {
  const rpc::Refusals now = acceptor.refusals();
  const rpc::Refusals before = std::exchange(refused_, now);
  const uint64_t handshakes = rpc::RefusedHandshakes();
  metrics.SetConnections(acceptor.connections());
  metrics.AddRefusedConnections(RefusedConnection::kFull, now.full - before.full);
  metrics.AddRefusedConnections(RefusedConnection::kAddressFull, now.address_full - before.address_full);
  metrics.AddRefusedConnections(RefusedConnection::kNoDescriptor, now.no_descriptor - before.no_descriptor);
  metrics.AddRefusedConnections(RefusedConnection::kMemory, now.memory - before.memory);
  metrics.AddRefusedConnections(RefusedConnection::kTls, handshakes - std::exchange(handshakes_, handshakes));

  const rpc::Endings ends = rpc::EndedConnections();
  const rpc::Endings old = std::exchange(ended_, ends);
  metrics.AddEndedConnections(EndedConnection::kStreams, ends.streams - old.streams);
  metrics.AddEndedConnections(EndedConnection::kHeaderBlock, ends.header_block - old.header_block);
  metrics.AddEndedConnections(EndedConnection::kUnfinished, ends.unfinished - old.unfinished);
  metrics.AddEndedConnections(EndedConnection::kResets, ends.resets - old.resets);
  metrics.AddEndedConnections(EndedConnection::kIdleFrames, ends.idle_frames - old.idle_frames);
  metrics.AddEndedConnections(EndedConnection::kSlow, ends.slow - old.slow);
  metrics.AddEndedConnections(EndedConnection::kMemory, ends.memory - old.memory);
  metrics.AddEndedConnections(EndedConnection::kHandshakes, ends.handshakes - old.handshakes);
}

}  // namespace userintent
