#include "server/rpc/acceptor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"
#include "server/observe/log.h"
#include "server/rpc/connection_watch.h"
#include "server/rpc/hand_over.h"

// In this file: socket addresses; Listen; the thread (Run, AcceptFrom); the limits that a new connection meets
// (TakeIn).

namespace userintent::rpc {
namespace {

using observe::Level;
using observe::Log;
using observe::SafeText;

constexpr int kAcceptsPerTurn = 64;
constexpr int kSweepEveryMs = 1000;
constexpr int kMemoryEveryMs = 20;  // a fast link brings 25 MB meanwhile
// Open at once, also where there is room for few connections.
constexpr int kFewestHandshakes = 16;
constexpr auto kOutOfDescriptorsPause = std::chrono::milliseconds(10);

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Address V4(const in_addr& ip, uint16_t port) {
  Address address;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  v4.sin_family = AF_INET;
  v4.sin_addr = ip;
  v4.sin_port = htons(port);
  address.size = sizeof v4;
  return address;
}

Address V6(const in6_addr& ip, uint16_t port) {
  Address address;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = ip;
  v6.sin6_port = htons(port);
  address.size = sizeof v6;
  return address;
}

uint16_t PortOf(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

bool IsAny(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr == htonl(INADDR_ANY);
  }
  return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// RST at once: no TIME_WAIT here, and nothing that the peer could mistake for an answer.
void Reset(int fd) {
  const linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

void Set(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); }

// Connections inherit these from their listening socket; they are what libgrpc's own listener has.
void Prepare(int fd) {
  Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 20 * 1000);
}

}  // namespace

std::string AddressText(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof text);
    return absl::StrCat(text, ":", PortOf(address));
  }
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    inet_ntop(AF_INET, &v6.s6_addr[12], text, sizeof text);
    return absl::StrCat(text, ":", PortOf(address));
  }
  inet_ntop(AF_INET6, &v6, text, sizeof text);
  return absl::StrCat("[", text, "]:", PortOf(address));
}

Acceptor::Acceptor(AcceptorOptions options)
    : options_(std::move(options)),
      port_(options_.port),
      table_(options_.max_connections, options_.max_per_address),
      memory_(options_.memory_mark) {}

absl::Status Acceptor::Bind(const sockaddr_storage& address, socklen_t size) {
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::UnavailableError(ErrnoText());
  listeners_.push_back(fd);
  Prepare(fd);
  if (address.ss_family == AF_INET6) Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, IsAny(address) ? 0 : 1);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0 || listen(fd, SOMAXCONN) != 0) {
    const absl::Status status = absl::UnavailableError(ErrnoText());
    close(fd);
    listeners_.pop_back();
    return status;
  }
  sockaddr_storage bound{};
  socklen_t bound_size = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bound_size);
  port_ = PortOf(bound);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(AcceptorOptions options) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(std::move(options)));
  const std::string& host = acceptor->options_.host;
  acceptor->wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  acceptor->spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (acceptor->wake_ < 0 || acceptor->spare_ < 0) return absl::ResourceExhaustedError("out of descriptors");
  const auto bind = [&](const Address& address) { return acceptor->Bind(address.storage, address.size); };

  in_addr v4{};
  in6_addr v6{};
  absl::Status status;
  if (host == "localhost") {
    status = bind(V4({htonl(INADDR_LOOPBACK)}, acceptor->port_));
    // Where there is no IPv6, or another process has the port there, the name leads to the other address.
    if (const absl::Status other = bind(V6(in6addr_loopback, acceptor->port_)); other.ok()) status = other;
  } else if (inet_pton(AF_INET, host.c_str(), &v4) == 1 && v4.s_addr != htonl(INADDR_ANY)) {
    status = bind(V4(v4, acceptor->port_));
  } else if (inet_pton(AF_INET6, host.c_str(), &v6) == 1 && !IN6_IS_ADDR_UNSPECIFIED(&v6)) {
    status = bind(V6(v6, acceptor->port_));
  } else {
    const int with_v6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    status = with_v6 >= 0 ? bind(V6(in6addr_any, acceptor->port_)) : bind(V4({htonl(INADDR_ANY)}, acceptor->port_));
    if (with_v6 >= 0) close(with_v6);
  }
  if (!status.ok()) return status;
  return acceptor;
}

Acceptor::~Acceptor() {
  Stop();
  for (const int fd : listeners_) close(fd);
  if (wake_ >= 0) close(wake_);
  if (spare_ >= 0) close(spare_);
}

void Acceptor::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> sink) {
  sink_ = std::move(sink);
  StartWatching();
  thread_ = std::thread([this] { Run(); });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    (void)!write(wake_, &one, sizeof one);
    thread_.join();
  }
  for (const int fd : std::exchange(listeners_, {})) close(fd);
}

Refusals Acceptor::refusals() const {
  return {full_.load(), address_full_.load(), no_descriptor_.load(), no_memory_.load()};
}

void Acceptor::Run() {
  std::vector<pollfd> waits;
  for (const int fd : listeners_) waits.push_back({fd, POLLIN, 0});
  waits.push_back({wake_, POLLIN, 0});
  SteadyTime next_sweep{};
  for (;;) {
    const int ready = poll(waits.data(), waits.size(), memory_.on() ? kMemoryEveryMs : kSweepEveryMs);
    if (ready > 0 && waits.back().revents != 0) return;
    memory_short_ = memory_.Look(SteadyClock::now());
    for (size_t i = 0; ready > 0 && i < listeners_.size(); ++i) {
      if (waits[i].revents != 0) AcceptFrom(listeners_[i]);
    }
    if (const SteadyTime now = SteadyClock::now(); now >= next_sweep) {
      next_sweep = now + std::chrono::milliseconds(kSweepEveryMs);
      table_.Sweep();
      if (options_.longest_request > options_.longest_request.zero())
        EndUnfinishedSince(now - options_.longest_request);
      connections_.store(table_.size(), std::memory_order_relaxed);
    }
  }
}

void Acceptor::AcceptFrom(int listener) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      TakeIn(listener, fd, peer);
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return;
      case EMFILE:
      case ENFILE:
        return RefuseForDescriptors(listener);
      case ENOBUFS:
      case ENOMEM:
        std::this_thread::sleep_for(kOutOfDescriptorsPause);
        return;
      default:  // the connection died in the queue, or the network is down for a moment
        break;
    }
  }
}

// A peer that is left in the queue waits there, and wakes this thread for ever. The spare descriptor takes it in for as
// long as it needs to be sent away.
void Acceptor::RefuseForDescriptors(int listener) {
  close(std::exchange(spare_, -1));
  if (const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); fd >= 0) {
    Reset(fd);
    no_descriptor_.fetch_add(1, std::memory_order_relaxed);
  } else {
    std::this_thread::sleep_for(kOutOfDescriptorsPause);  // another thread was quicker to take the descriptor
  }
  spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  static observe::LogLimiter limiter(std::chrono::seconds(10));
  if (const auto held = limiter.Allow()) {
    Log(Level::kError, "connection_refused", {{"detail", "no descriptor is free"}, {"suppressed", *held}});
  }
}

// Those who are connected are served on; a refusal is an invitation to come again.
void Acceptor::RefuseForMemory(int fd) {
  Reset(fd);
  no_memory_.fetch_add(1, std::memory_order_relaxed);
}

bool Acceptor::IsProbe(int fd, const sockaddr_storage& peer) const {
  if (PortOf(peer) != probe_port_.load(std::memory_order_acquire)) return false;
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size);
  return SameAddress(own, peer);  // not just the same network: no other peer can have it
}

void Acceptor::TakeIn(int listener, int fd, const sockaddr_storage& peer) {
  const bool probe = IsProbe(fd, peer);
  if (memory_short_ && !probe) return RefuseForMemory(fd);
  const auto verdict = probe ? ConnectionTable::Verdict::kAdmitted : table_.Admit(fd, PlaceOf(peer));
  if (verdict != ConnectionTable::Verdict::kAdmitted) {
    Reset(fd);
    const bool full = verdict == ConnectionTable::Verdict::kFull;
    (full ? full_ : address_full_).fetch_add(1, std::memory_order_relaxed);
    static observe::LogLimiter limiter(std::chrono::seconds(10));
    if (const auto held = limiter.Allow()) {
      Log(Level::kWarn, "connection_refused",
          {{"peer", SafeText(AddressText(peer))},
           {"flag", full ? observe::FixedText("max_connections") : observe::FixedText("max_connections_per_address")},
           {"connections", table_.size()},
           {"suppressed", *held}});
    }
    return;
  }
  MakeRoomForHandshake(std::max(kFewestHandshakes, options_.max_connections / 4));
  const HandOver scope({fd, AddressText(peer), probe});
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = listener;
  connection.fd = fd;
  sink_->HandleNewConnection(&connection);
}

}  // namespace userintent::rpc
