#include "server/rpc/health_door.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "server/base/errno_text.h"

namespace userintent::rpc {
namespace {

struct Name {
  sockaddr_un address{};
  socklen_t size = 0;
};

// An abstract name begins with a zero byte; the longest IPv6 address with its port fits well.
Name NameOf(const std::string& address) {
  Name name;
  const std::string text = absl::StrCat("userintent-health/", address);
  name.address.sun_family = AF_UNIX;
  const size_t size = std::min(text.size(), sizeof name.address.sun_path - 1);
  std::memcpy(name.address.sun_path + 1, text.data(), size);
  name.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  return name;
}

absl::Status Failure(const char* what) { return absl::UnavailableError(absl::StrCat(what, ": ", ErrnoText())); }

// Anybody of this machine may take the name while no server has it; what such a one says counts for nothing. Root may
// ask every user's server, and root's server may be asked by every user.
bool Trusted(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HealthDoor>> HealthDoor::Open(const std::string& address,
                                                             std::function<std::string()> state) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener < 0) return Failure("the health check's socket");
  absl::Cleanup close_it = [listener] { close(listener); };
  const Name name = NameOf(address);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&name.address), name.size) != 0 || listen(listener, 128) != 0) {
    return Failure("the health check's socket");
  }
  const int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake < 0) return Failure("the health check's socket");
  std::move(close_it).Cancel();
  return std::unique_ptr<HealthDoor>(new HealthDoor(listener, wake, std::move(state)));
}

HealthDoor::HealthDoor(int listener, int wake, std::function<std::string()> state)
    : listener_(listener), wake_(wake), state_(std::move(state)), thread_([this] { Run(); }) {}

HealthDoor::~HealthDoor() {
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof one);
  thread_.join();
  close(listener_);
  close(wake_);
}

void HealthDoor::Run() {
  pollfd waits[] = {{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
  for (;;) {
    if (poll(waits, 2, -1) < 0) continue;
    if (waits[1].revents != 0) return;
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno != EAGAIN) std::this_thread::sleep_for(std::chrono::milliseconds(10));  // no descriptor is free
      continue;
    }
    const std::string line = state_();
    (void)!send(fd, line.data(), line.size(), MSG_NOSIGNAL);  // fits into an empty socket's buffer
    close(fd);
  }
}

absl::Status HealthDoor::Ask(const std::string& address, std::chrono::milliseconds timeout) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::NotFoundError("no descriptor is free");
  const absl::Cleanup close_it = [fd] { close(fd); };
  // The limit holds for the connection as well, which waits where the door's queue is full.
  timeval limit{};
  limit.tv_sec = timeout.count() / 1000;
  limit.tv_usec = static_cast<suseconds_t>(timeout.count() % 1000 * 1000);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  const Name name = NameOf(address);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&name.address), name.size) != 0) {
    if (errno == EAGAIN) return absl::UnavailableError("the server does not answer its health check");
    return absl::NotFoundError("no server listens there");
  }
  if (!Trusted(fd)) return absl::NotFoundError("the health check's socket belongs to another user");
  std::string line;
  char buffer[256];
  ssize_t n;
  while (line.size() < sizeof buffer && (n = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    line.append(buffer, static_cast<size_t>(n));
  }
  if (line == kServing) return absl::OkStatus();
  if (line.empty()) return absl::UnavailableError("the server does not answer its health check");
  return absl::UnavailableError(absl::StrCat("the server is not serving: ", line));
}

}  // namespace userintent::rpc
