// What tests of calls begin from, and look at: a policy of one rule, and what an error says.
#pragma once

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <optional>
#include <vector>

#include "server/policy/policy.h"

namespace userintent::rpc {

// Of the caller that there is without TLS.
inline std::shared_ptr<const policy::Policy> OneRule(policy::Method method, bool listed, bool enforce) {
  policy::Rule rule;
  rule.name = "local";
  rule.methods[static_cast<size_t>(method)] = listed;
  rule.enforce = enforce;
  return std::make_shared<const policy::Policy>(std::vector{rule});
}

// The ErrorInfo among a status's details, which is the first of them.
inline std::optional<google::rpc::ErrorInfo> InfoOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (!details.ParseFromString(status.error_details()) || details.details().empty()) return std::nullopt;
  return details.details(0).UnpackTo(&info) ? std::optional(info) : std::nullopt;
}

}  // namespace userintent::rpc
