#include "server/rpc/port_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "server/observe/log.h"

namespace userintent::rpc {
namespace {

using Clock = std::chrono::steady_clock;

// A ClientHello, made by a client that will never read the answer.
std::string ClientHello() {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!context) return {};
  SSL* const ssl = SSL_new(context.get());
  if (ssl == nullptr) return {};
  const absl::Cleanup free = [ssl] { SSL_free(ssl); };
  static constexpr unsigned char kH2[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl, kH2, sizeof kH2);
  BIO* const out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);  // ssl owns both
  SSL_connect(ssl);                             // says hello, and stops where it would wait
  char* data = nullptr;
  const long size = BIO_get_mem_data(out, &data);
  return {data, static_cast<size_t>(size)};
}

// Where a client of this machine finds a server that listens on `host`. "Any address" is both families, and "localhost"
// may be one of them alone: a container may be without ::1 though its kernel speaks IPv6.
std::vector<std::string> PlacesOf(const std::string& host) {
  if (host == "0.0.0.0" || host == "localhost") return {"127.0.0.1", "::1"};
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6)) return {"::1", "127.0.0.1"};
  return {host};
}

// True when the event came before `end`.
bool WaitFor(int fd, short event, Clock::time_point end) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{fd, event, 0};
    const int ready = poll(&wait, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

}  // namespace

PortProbe::PortProbe(PortProbeOptions options)
    : options_(std::move(options)), hello_(options_.tls ? ClientHello() : ""), thread_([this] { Run(); }) {}

PortProbe::~PortProbe() { Stop(); }

void PortProbe::Stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  stop_.NotifyOne();
  if (thread_.joinable()) thread_.join();
}

bool PortProbe::Ask() const {
  const auto end = Clock::now() + options_.patience;
  const std::vector<std::string> places = PlacesOf(options_.host);
  // Where one is not there, that shows at once; silence takes all of the time.
  if (std::none_of(places.begin(), places.end(), [&](const std::string& place) { return AskAt(place, end); })) {
    return false;
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
  return !options_.call || options_.call(std::max(left, std::chrono::milliseconds(1)));
}

bool PortProbe::AskAt(const std::string& place, Clock::time_point end) const {
  sockaddr_storage to{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(to);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(to);
  socklen_t size = sizeof v4;
  if (inet_pton(AF_INET, place.c_str(), &v4.sin_addr) == 1) {
    to.ss_family = AF_INET;
  } else if (inet_pton(AF_INET6, place.c_str(), &v6.sin6_addr) == 1) {
    to.ss_family = AF_INET6;
    size = sizeof v6;
  }

  const int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const absl::Cleanup close_it = [fd] { close(fd); };
  // The local port is fixed and told before the server can see the connection.
  sockaddr_storage from{};
  from.ss_family = to.ss_family;
  socklen_t from_size = size;
  if (bind(fd, reinterpret_cast<const sockaddr*>(&from), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&from), &from_size) != 0) {
    return false;
  }
  if (options_.announce) options_.announce(ntohs(reinterpret_cast<const sockaddr_in&>(from).sin_port));  // as in v6

  v4.sin_port = htons(options_.port);  // the same place in both
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), size) != 0 && errno != EINPROGRESS) return false;
  if (!WaitFor(fd, POLLOUT, end)) return false;
  if (!hello_.empty() && send(fd, hello_.data(), hello_.size(), MSG_NOSIGNAL) < 0) return false;
  char byte;
  return WaitFor(fd, POLLIN, end) && recv(fd, &byte, 1, 0) == 1;
}

void PortProbe::Run() {
  int silent = 0;
  auto next = Clock::now() + options_.every;
  MutexLock lock(mutex_);
  for (;;) {
    while (!stopping_ && stop_.WaitUntil(mutex_, next)) continue;
    if (stopping_) return;
    next = Clock::now() + options_.every;  // a silence that took longer is followed by the next question at once
    lock.Unlock();
    silent = Ask() ? 0 : silent + 1;
    const bool alive = silent < options_.silences;
    if (alive != alive_.exchange(alive, std::memory_order_acq_rel)) {
      observe::Log(alive ? observe::Level::kInfo : observe::Level::kError,
                   alive ? observe::Event("port_answers_again") : observe::Event("port_deaf"), {{"count", silent}});
    }
    lock.Lock();
  }
}

}  // namespace userintent::rpc
