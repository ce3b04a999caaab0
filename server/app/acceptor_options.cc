#include "server/app/acceptor_options.h"

#include <algorithm>
#include <chrono>

#include "server/base/process.h"
#include "server/rpc/memory_watch.h"

namespace userintent {

rpc::AcceptorOptions AcceptorOptionsFor(const config::Settings& settings) {
  constexpr int kDefaultPlaces = 2000;
  const auto limit = static_cast<int>(std::min<rlim_t>(RaiseDescriptorLimit(), 1 << 24));
  const int others = settings.upstream_connections + 128;
  const int possible = std::max(limit / 4, limit - others);
  rpc::AcceptorOptions options;
  options.host = settings.listen.host;
  options.port = settings.listen.port;
  options.max_connections =
      std::min(settings.max_connections == 0 ? kDefaultPlaces : settings.max_connections, possible);
  // On loopback every caller, a mesh's proxy above all, has the one address.
  const int fair = settings.listen.loopback() ? options.max_connections : std::max(1, options.max_connections / 2);
  options.max_per_address = settings.max_connections_per_address == 0 ? fair : settings.max_connections_per_address;
  options.memory_mark =
      settings.memory_watermark == 0 ? rpc::DefaultMemoryMark() : static_cast<int64_t>(settings.memory_watermark) << 20;
  // No client sends 64 KiB slower, and a request without its end holds memory. A question to reflection may stay open.
  if (!settings.reflection_on()) options.longest_request = std::chrono::seconds(30);
  return options;
}

}  // namespace userintent
