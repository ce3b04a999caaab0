// How many connections of callers there may be, by the settings and by what the machine allows. Called by server.cc at
// the start.
#pragma once

#include "server/config/settings.h"
#include "server/rpc/acceptor.h"

namespace userintent {

// Measured, a connection costs 16 KiB before its TLS handshake and 85 KiB afterwards, so the default keeps within a
// container of 256 MiB. Whatever is asked for, descriptors are left over for the ledger, Astra and the rest.
rpc::AcceptorOptions AcceptorOptionsFor(const config::Settings& settings);

}  // namespace userintent
