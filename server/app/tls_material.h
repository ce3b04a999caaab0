// From what config read to what rpc shows. Pure; any thread.
#pragma once

#include <utility>

#include "server/config/load.h"
#include "server/rpc/listener.h"

namespace userintent {

inline rpc::TlsMaterial TlsMaterialOf(config::TlsMaterial tls) {
  return {std::move(tls.chain.pem), std::move(tls.private_key), std::move(tls.client_authorities.pem)};
}

}  // namespace userintent
