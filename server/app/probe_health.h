// What `userintent-server --healthcheck` does. Called by main.
#pragma once

#include "absl/status/status.h"
#include "server/config/settings.h"

namespace userintent {

// Asks a running server, found by the same settings, whether it serves: at its health door, and where there is none at
// its port. Blocks for at most a few seconds.
absl::Status ProbeHealth(const config::Settings& settings);

}  // namespace userintent
