#include "userintent/channel.h"

#include "absl/strings/str_cat.h"
#include "grpc/grpc.h"
#include "userintent/client.h"

namespace userintent {

grpc::ChannelArguments ChannelArguments() {
  grpc::ChannelArguments arguments;
  // Repeats are this library's business: gRPC's own do not know which errors may be repeated, and when.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // The gateway pings every 60 s and allows pings every 10 s, also without calls.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A gateway that was restarted is back in seconds.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // Connections are a client's own, not shared by all channels of the process with the same settings.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, 32 * 1024);
  arguments.SetUserAgentPrefix(absl::StrCat("userintent-cpp/", kVersion));
  return arguments;
}

}  // namespace userintent
