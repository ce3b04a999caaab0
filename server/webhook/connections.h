// Connections: the webhook door's open connections: how many there may be, how long each may take, and which one goes
// when there are too many.
//
// A stranger may open as many as it likes and say nothing. A new connection is therefore never refused for want of a
// place while one is open that only waits: the one that waits longest goes, those that once brought a good signature
// last. Genuine senders say what they have to say at once, so they get through.
//
// One thread's. Linear in the number of connections, which is small.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "server/base/loop.h"

namespace userintent::webhook {

enum class Phase {
  kReading,    // a request comes in, or the first one is awaited
  kAsking,     // the ledger is asked
  kAnswering,  // an answer goes out
  kIdle,       // between two requests
};

struct Connection {
  int fd = -1;
  std::string address;  // see AddressKey
  Phase phase = Phase::kReading;
  SteadyTime since{};     // when the phase began
  SteadyTime deadline{};  // when it must have ended
  bool proven = false;    // it brought a good signature
  bool cut = false;       // it is being closed

  // May go for another's sake.
  bool waits() const { return !cut && (phase == Phase::kReading || phase == Phase::kIdle); }
};

// What counts as one address: an IPv4 address, or the /64 of an IPv6 one.
std::string AddressKey(const sockaddr* address);

class Connections {
 public:
  Connections(int limit, int limit_per_address) : limit_(limit), limit_per_address_(limit_per_address) {}

  enum class Room { kFree, kFull, kAddressFull };
  struct Admission {
    Room room = Room::kFree;     // which limit is reached
    Connection* goes = nullptr;  // whom the caller cuts for it; the new one where no other can go
  };
  // Takes `connection` in; it lives until Remove.
  Admission Add(Connection* connection);
  void Remove(Connection* connection) { all_.erase(connection); }

  // Those whose time is up. Each is told again until it is cut or has a new deadline.
  std::vector<Connection*> Late(SteadyTime now) const;
  // The first deadline of all; SteadyTime::max() where there is none.
  SteadyTime NextDeadline() const;

  const absl::flat_hash_set<Connection*>& all() const { return all_; }

 private:
  // Those that count against the limit: all that are not being closed.
  size_t Open(const std::string* address) const;
  Connection* WhoGoes(const std::string* address, Connection* otherwise) const;

  const int limit_, limit_per_address_;
  absl::flat_hash_set<Connection*> all_;
};

}  // namespace userintent::webhook
