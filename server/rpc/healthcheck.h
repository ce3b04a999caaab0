// The gateway's own health probe, for containers without a shell: `userintent-server --healthcheck`.
//
// Blocks; called from main only.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/tls/files.h"

namespace userintent::rpc {

// Asks grpc.health.v1 of the server at `target` ("127.0.0.1:50051") for its overall state. With `tls` it shows the
// server's own certificate as client certificate, and trusts the authorities of clients; the certificate must then
// allow both uses.
absl::Status CheckHealth(const std::string& target, const tls::Files& tls, absl::Duration timeout);

}  // namespace userintent::rpc
