#include "server/rpc/identity.h"

#include <grpc/grpc_security_constants.h>

#include <algorithm>

namespace userintent::rpc {
namespace {

bool Usable(grpc::string_ref name) {
  return !name.empty() && name.size() <= 512 &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

}  // namespace

std::optional<std::string> CallerOf(const grpc::AuthContext& context, bool require_tls) {
  if (!require_tls) return kLocalCaller;
  const auto uris = context.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
  if (uris.size() > 1) return std::nullopt;
  if (uris.size() == 1) {
    if (!Usable(uris[0])) return std::nullopt;
    return "uri:" + std::string(uris[0].begin(), uris[0].end());
  }
  const auto names = context.FindPropertyValues(GRPC_PEER_DNS_PROPERTY_NAME);
  if (names.empty() || !Usable(names[0])) return std::nullopt;
  return "dns:" + std::string(names[0].begin(), names[0].end());
}

}  // namespace userintent::rpc
