// ConnectionTable: how many callers' connections are open, in all and by address, and whether one more may come in.
//
// libgrpc owns a connection's descriptor from the moment it gets it and does not tell when it closes it. So the table
// remembers descriptor and inode: a number that has another inode now, or none, is a connection that was closed
// (inodes of sockets are not used again before the kernel's 32-bit counter has gone round). Used by one thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <string>
#include <unordered_map>

#include "server/base/loop.h"

namespace userintent::rpc {

// What connections from one place have in common: the IPv4 address, also where it is mapped into IPv6; the first 64
// bits of an IPv6 address, because the holder of one such network has all of its addresses.
std::string PlaceOf(const sockaddr_storage& address);

// Whether both are one and the same address, whatever the ports.
bool SameAddress(const sockaddr_storage& a, const sockaddr_storage& b);

class ConnectionTable {
 public:
  enum class Verdict { kAdmitted, kFull, kPlaceFull };

  ConnectionTable(int max_connections, int max_per_place) : max_(max_connections), max_per_place_(max_per_place) {}

  // Takes the open socket `fd` in, or says why not; then it stays the caller's.
  Verdict Admit(int fd, const std::string& place);

  // Forgets what was closed. A few tenths of a microsecond for each connection.
  void Sweep();

  int size() const { return static_cast<int>(open_.size()); }

 private:
  struct Entry {
    ino_t inode;
    std::string place;
  };
  using Open = std::unordered_map<int, Entry>;

  Open::iterator Forget(Open::iterator entry);
  Verdict Judge(const std::string& place) const;

  const int max_;
  const int max_per_place_;
  Open open_;
  std::unordered_map<std::string, int> by_place_;
  SteadyTime swept_{};
};

}  // namespace userintent::rpc
