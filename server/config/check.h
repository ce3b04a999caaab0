// The checks of values, alone and with each other, that need no look into a file. Called by load.cc.
//
// Each adds a line for every flag that is wrong. They look at names in the file system (stat), change nothing and do
// not touch the network.
#pragma once

#include "server/config/problems.h"
#include "server/config/settings.h"
#include "server/policy/policy.h"

namespace userintent::config {

// --listen, --allow_plaintext, and that the three --tls_ flags go together.
void CheckListener(const Settings& settings, Problems& problems);

// --environment, and that --astra_base_url, --astra_app_url and --ledger go with it.
void CheckEnvironment(const Settings& settings, Problems& problems);

// --astra_base_url, --upstream_transport, and that --upstream_min_limit is no more than --upstream_connections carry.
void CheckUpstream(const Settings& settings, Problems& problems);

// --astra_app_url, where the policy or, without one (null), --oauth_redirect_uri needs it.
void CheckAuthorization(const Settings& settings, const policy::Policy* policy, Problems& problems);

// Every number and every duration.
void CheckRanges(const Settings& settings, Problems& problems);

// --ledger, --ledger_must_exist, --ledger_restored, --retention, --released_retention.
void CheckLedger(const Settings& settings, Problems& problems);

// --metrics_listen.
void CheckMetrics(const Settings& settings, Problems& problems);
void CheckTraces(const Settings& settings, Problems& problems);

// The --webhook_ flags that are no numbers.
void CheckWebhooks(const Settings& settings, Problems& problems);

}  // namespace userintent::config
