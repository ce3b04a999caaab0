#include "server/rpc/connection_table.h"

#include <netinet/in.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace userintent::rpc {
namespace {

// A flood at the limit must not cost a sweep for every connection.
constexpr auto kSweepAgain = std::chrono::milliseconds(50);

std::optional<ino_t> InodeOf(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) return std::nullopt;
  return status.st_ino;
}

}  // namespace

std::string PlaceOf(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return {reinterpret_cast<const char*>(&v4.sin_addr), 4};
  }
  if (address.ss_family != AF_INET6) return {};
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return {reinterpret_cast<const char*>(&v6.s6_addr[12]), 4};
  return {reinterpret_cast<const char*>(&v6), 8};
}

bool SameAddress(const sockaddr_storage& a, const sockaddr_storage& b) {
  if (a.ss_family != AF_INET6 || b.ss_family != AF_INET6) return PlaceOf(a) == PlaceOf(b);
  return std::memcmp(&reinterpret_cast<const sockaddr_in6&>(a).sin6_addr,
                     &reinterpret_cast<const sockaddr_in6&>(b).sin6_addr, sizeof(in6_addr)) == 0;
}

ConnectionTable::Open::iterator ConnectionTable::Forget(Open::iterator entry) {
  const auto place = by_place_.find(entry->second.place);
  if (--place->second == 0) by_place_.erase(place);
  return open_.erase(entry);
}

ConnectionTable::Verdict ConnectionTable::Judge(const std::string& place) const {
  if (size() >= max_) return Verdict::kFull;
  const auto found = by_place_.find(place);
  return found != by_place_.end() && found->second >= max_per_place_ ? Verdict::kPlaceFull : Verdict::kAdmitted;
}

ConnectionTable::Verdict ConnectionTable::Admit(int fd, const std::string& place) {
  const std::optional<ino_t> inode = InodeOf(fd);
  if (!inode) return Verdict::kFull;
  if (const auto old = open_.find(fd); old != open_.end()) Forget(old);  // its number is used again: it was closed
  Verdict verdict = Judge(place);
  if (verdict != Verdict::kAdmitted && SteadyClock::now() - swept_ >= kSweepAgain) {
    Sweep();
    verdict = Judge(place);
  }
  if (verdict != Verdict::kAdmitted) return verdict;
  open_.emplace(fd, Entry{*inode, place});
  ++by_place_[place];
  return verdict;
}

void ConnectionTable::Sweep() {
  for (auto entry = open_.begin(); entry != open_.end();) {
    entry = InodeOf(entry->first) == entry->second.inode ? std::next(entry) : Forget(entry);
  }
  swept_ = SteadyClock::now();
}

}  // namespace userintent::rpc
