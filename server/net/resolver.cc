#include "server/net/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "server/base/mutex.h"

namespace userintent::net {
namespace {

constexpr std::chrono::seconds kRemembered{60};
constexpr size_t kMostAddresses = 16;

void LookUp(const std::string& host, int port, std::vector<Address>* found) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* list = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list) != 0) return;
  for (const addrinfo* at = list; at != nullptr && found->size() < kMostAddresses; at = at->ai_next) {
    if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
    Address& address = found->emplace_back();
    std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
    address.size = at->ai_addrlen;
  }
  freeaddrinfo(list);
}

}  // namespace

// Shared by the resolver and the thread of a look-up. The last of the two closes the eventfd.
struct Resolver::Lookup {
  ~Lookup() {
    if (event >= 0) close(event);
  }

  const int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  Mutex mutex;
  bool done ABSL_GUARDED_BY(mutex) = false;
  std::vector<Address> found ABSL_GUARDED_BY(mutex);
};

Resolver::Resolver(std::string host, int port) : host_(std::move(host)), port_(port) {
  Address address;
  auto& in = reinterpret_cast<sockaddr_in&>(address.storage);
  auto& in6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  if (inet_pton(AF_INET, host_.c_str(), &in.sin_addr) == 1) {
    in.sin_family = AF_INET;
    in.sin_port = htons(static_cast<uint16_t>(port_));
    address.size = sizeof(in);
  } else if (inet_pton(AF_INET6, host_.c_str(), &in6.sin6_addr) == 1) {
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons(static_cast<uint16_t>(port_));
    address.size = sizeof(in6);
  } else {
    return;
  }
  literal_ = true;
  addresses_.push_back(address);
}

Resolver::~Resolver() = default;

const std::vector<Address>* Resolver::Known(SteadyTime now) const {
  return literal_ || now < known_until_ ? &addresses_ : nullptr;
}

bool Resolver::Begin() {
  if (running_) return true;
  if (lookup_ == nullptr) lookup_ = std::make_shared<Lookup>();
  if (lookup_->event < 0) {
    lookup_.reset();
    return false;
  }
  try {
    std::thread([lookup = lookup_, host = host_, port = port_] {
      std::vector<Address> found;
      LookUp(host, port, &found);
      const MutexLock lock(lookup->mutex);
      lookup->found = std::move(found);
      lookup->done = true;
      const uint64_t one = 1;
      (void)!write(lookup->event, &one, sizeof(one));
    }).detach();
  } catch (const std::system_error&) {  // no thread to be had
    return false;
  }
  running_ = true;
  return true;
}

int Resolver::PollFd() const { return lookup_ == nullptr ? -1 : lookup_->event; }

Resolver::Result Resolver::Take(SteadyTime now) {
  if (!running_) return Result::kRunning;
  {
    const MutexLock lock(lookup_->mutex);
    if (!lookup_->done) return Result::kRunning;
    uint64_t count;
    (void)!read(lookup_->event, &count, sizeof(count));
    lookup_->done = false;
    addresses_ = std::move(lookup_->found);
    lookup_->found.clear();
  }
  running_ = false;
  if (addresses_.empty()) {
    known_until_ = {};
    return Result::kFailed;
  }
  known_until_ = now + kRemembered;
  return Result::kFound;
}

void Resolver::Forget() { known_until_ = {}; }

}  // namespace userintent::net
