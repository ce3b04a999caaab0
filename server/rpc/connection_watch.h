// What callers' TLS connections carry, watched while libgrpc works on them: a FrameGuard for each, and an end for those
// that go too far.
//
// How: libgrpc calls SSL_read and SSL_write of OpenSSL's shared library. The program has functions of these names of
// its own (connection_watch.cc), which the loader finds first: they call OpenSSL's and look at what went through.
// OpenSSL has callbacks for records and handshakes, but none for what a record holds, and libgrpc has none at all. Only
// the sessions of a HandOver are looked at; all others, such as those to Astra, pass. A connection
// that is ended hears nothing: its next read fails as a broken record does, so libgrpc closes it, and its calls end as
// those of a lost connection do. Connections without TLS are not watched: they come from this machine or from a proxy
// that speaks HTTP/2 itself.
//
// Counting costs a call 0.1 us (docs/decisions/0016-frames-are-counted.md). Any thread, unless said otherwise.
#pragma once

#include <cstdint>

#include "server/base/loop.h"

namespace userintent::rpc {

// Must come before the first session that is to be watched.
void StartWatching();

// Ends connections with a request that began before `then` and has not ended.
void EndUnfinishedSince(SteadyTime then);

// Ends the connections that hold most, as far as can be told, until about `bytes` are let go; those that hold little
// are spared. How much that may be.
int64_t EndLargest(int64_t bytes);

// Why connections were ended, since the start.
struct Endings {
  uint64_t streams = 0;
  uint64_t header_block = 0;
  uint64_t unfinished = 0;
  uint64_t resets = 0;
  uint64_t idle_frames = 0;
  uint64_t slow = 0;        // EndUnfinishedSince
  uint64_t memory = 0;      // EndLargest
  uint64_t handshakes = 0;  // MakeRoomForHandshake
};
Endings EndedConnections();

// Makes room for one more handshake where `most` are open, by ending the oldest of the address that has most: so
// strangers who begin and do not end push one another out, and a caller, who needs milliseconds, comes in.
void MakeRoomForHandshake(int most);

}  // namespace userintent::rpc
