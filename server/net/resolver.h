// Resolver: looks one host name up without blocking the thread that asks.
//
// Belongs to one thread, like the client that owns it. A look-up runs getaddrinfo() on a thread of its own, because
// nothing else takes part in the system's name services; that thread shares only a small block with the resolver, so
// the resolver may be destroyed while a look-up hangs. At most one look-up runs at a time.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/base/loop.h"

namespace userintent::net {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

class Resolver {
 public:
  // `host` is a name or an address literal (IPv6 without brackets).
  Resolver(std::string host, int port);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  bool literal() const { return literal_; }

  // The addresses if they are known: of a literal always, of a name for a short time after a look-up.
  const std::vector<Address>* Known(SteadyTime now) const;

  // Begins a look-up unless one is running. False if that is impossible (out of threads or descriptors).
  bool Begin();

  // Readable when the look-up that was begun has ended; -1 before the first Begin().
  int PollFd() const;

  enum class Result { kRunning, kFailed, kFound };
  // To be called when PollFd() is readable. With kFound, Known() has the addresses.
  Result Take(SteadyTime now);

  // The addresses led nowhere: the next attempt looks the name up again.
  void Forget();

 private:
  struct Lookup;

  const std::string host_;
  const int port_;
  bool literal_ = false;
  bool running_ = false;
  std::vector<Address> addresses_;
  SteadyTime known_until_{};
  std::shared_ptr<Lookup> lookup_;
};

}  // namespace userintent::net
