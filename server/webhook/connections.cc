#include "server/webhook/connections.h"

#include <netinet/in.h>

#include <algorithm>

namespace userintent::webhook {

std::string AddressKey(const sockaddr* address) {
  if (address == nullptr) return "";
  if (address->sa_family == AF_INET) {
    const auto* const v4 = reinterpret_cast<const sockaddr_in*>(address);
    return {reinterpret_cast<const char*>(&v4->sin_addr), sizeof v4->sin_addr};
  }
  if (address->sa_family != AF_INET6) return "";
  const in6_addr& v6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
  const auto* const bytes = reinterpret_cast<const char*>(v6.s6_addr);
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return {bytes + 12, 4};
  return {bytes, 8};
}

Connections::Admission Connections::Add(Connection* connection) {
  all_.insert(connection);
  if (Open(&connection->address) > static_cast<size_t>(limit_per_address_)) {
    return {Room::kAddressFull, WhoGoes(&connection->address, connection)};
  }
  if (Open(nullptr) > static_cast<size_t>(limit_)) return {Room::kFull, WhoGoes(nullptr, connection)};
  return {};
}

size_t Connections::Open(const std::string* address) const {
  return static_cast<size_t>(std::count_if(all_.begin(), all_.end(), [address](const Connection* connection) {
    return !connection->cut && (address == nullptr || connection->address == *address);
  }));
}

Connection* Connections::WhoGoes(const std::string* address, Connection* otherwise) const {
  Connection* goes = otherwise;
  const auto later = [](const Connection* a, const Connection* b) {
    return a->proven != b->proven ? a->proven : a->since > b->since;
  };
  for (Connection* const connection : all_) {
    if (connection == otherwise || !connection->waits()) continue;
    if (address != nullptr && connection->address != *address) continue;
    if (goes == otherwise || later(goes, connection)) goes = connection;
  }
  return goes;
}

std::vector<Connection*> Connections::Late(SteadyTime now) const {
  std::vector<Connection*> late;
  for (Connection* const connection : all_) {
    if (!connection->cut && connection->deadline <= now) late.push_back(connection);
  }
  return late;
}

SteadyTime Connections::NextDeadline() const {
  SteadyTime next = SteadyTime::max();
  for (const Connection* const connection : all_) {
    if (!connection->cut) next = std::min(next, connection->deadline);
  }
  return next;
}

}  // namespace userintent::webhook
