#include "server/app/probe_health.h"

#include <chrono>
#include <string>
#include <vector>

#include "server/config/load.h"
#include "server/rpc/health_door.h"
#include "server/rpc/healthcheck.h"

namespace userintent {
namespace {

// A server on every address has its door under that name, whichever address of the machine is given here.
std::vector<std::string> DoorHosts(const std::string& host) {
  std::vector<std::string> hosts{host, "0.0.0.0", "::"};
  if (host == "127.0.0.1" || host == "::1") hosts.push_back("localhost");
  if (host == "localhost") hosts.push_back("127.0.0.1");
  return hosts;
}

// A server on every address is asked on loopback.
net::HostPort PortOf(net::HostPort listen) {
  if (listen.host == "0.0.0.0") listen.host = "127.0.0.1";
  if (listen.host == "::") listen.host = "::1";
  return listen;
}

}  // namespace

absl::Status ProbeHealth(const config::Settings& settings) {
  // The server's own door needs no certificate.
  for (const std::string& host : DoorHosts(settings.listen.host)) {
    const std::string address = net::HostPort{host, settings.listen.port}.Text();
    const absl::Status status = rpc::HealthDoor::Ask(address, std::chrono::seconds(3));
    if (!absl::IsNotFound(status)) return status;
  }
  // No door: nothing runs here, or in another network name space. The port itself tells.
  const absl::StatusOr<tls::Files> files = config::LoadTls(settings);
  if (!files.ok()) return files.status();
  return rpc::CheckHealth(PortOf(settings.listen).Text(), *files, absl::Seconds(3));
}

}  // namespace userintent
