// Acceptor: takes callers' connections in and hands them to libgrpc.
//
// libgrpc 1.51 can listen by itself, but after one accept() without a free descriptor it never accepts again
// (CVE-2023-4785), and it takes in as many connections as there are descriptors. Here a lack of descriptors passes, and
// there are never more connections than there are places: what comes beyond is closed at once, with RST, which a client
// sees as UNAVAILABLE and tries again. The server's own probe (port_probe.h) always finds a place.
//
// A thread of its own from Start() to Stop(). Made, started and stopped by server.cc; the numbers may be read by any
// thread.
#pragma once

#include <grpcpp/server_builder.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "server/base/loop.h"
#include "server/rpc/connection_table.h"
#include "server/rpc/memory_watch.h"

namespace userintent::rpc {

// Why connections were not taken in, since the start.
struct Refusals {
  uint64_t full = 0;
  uint64_t address_full = 0;
  uint64_t no_descriptor = 0;
  uint64_t memory = 0;
};

struct AcceptorOptions {
  std::string host = "127.0.0.1";  // an IP address without brackets, or "localhost"
  uint16_t port = 0;               // 0: any free one
  int max_connections = 1000;
  int max_per_address = 500;  // an IPv6 address counts with its /64
  // From a request's first byte to its last, where that can be seen (connection_watch.h); zero: no limit.
  SteadyClock::duration longest_request{};
  int64_t memory_mark = 0;  // see MemoryWatch
};

class Acceptor {
 public:
  // Binds and listens, but accepts nothing yet. As libgrpc does, "any address" of either family is both families, where
  // the machine has them.
  static absl::StatusOr<std::unique_ptr<Acceptor>> Listen(AcceptorOptions options);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  uint16_t port() const { return port_; }

  // Once, when the server is built; `sink` is from its builder.
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> sink);

  // Closes the port. Before grpc::Server::Shutdown, which would leak what it is handed afterwards.
  void Stop();

  // Open connections, as of the last second; and what was sent away. Any thread.
  int connections() const { return connections_.load(std::memory_order_relaxed); }
  Refusals refusals() const;

  // The local port that the probe connects from next: such a connection from this machine counts for nothing.
  void ExpectProbeFrom(uint16_t port) { probe_port_.store(port, std::memory_order_release); }

 private:
  explicit Acceptor(AcceptorOptions options);

  absl::Status Bind(const sockaddr_storage& address, socklen_t size);
  void Run();
  void AcceptFrom(int listener);
  void TakeIn(int listener, int fd, const sockaddr_storage& peer);
  void RefuseForDescriptors(int listener);
  void RefuseForMemory(int fd);
  bool IsProbe(int fd, const sockaddr_storage& peer) const;

  const AcceptorOptions options_;
  uint16_t port_ = 0;
  std::vector<int> listeners_;
  int wake_ = -1;   // eventfd: Stop() was called
  int spare_ = -1;  // given up for a moment where no descriptor is free
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> sink_;
  ConnectionTable table_;
  MemoryWatch memory_;
  bool memory_short_ = false;
  std::atomic<uint16_t> probe_port_{0};
  std::atomic<int> connections_{0};
  std::atomic<uint64_t> full_{0};
  std::atomic<uint64_t> address_full_{0};
  std::atomic<uint64_t> no_descriptor_{0};
  std::atomic<uint64_t> no_memory_{0};
  std::thread thread_;
};

// A peer's address as text: "192.0.2.1:443", "[2001:db8::1]:443".
std::string AddressText(const sockaddr_storage& address);

}  // namespace userintent::rpc
