// What a connection shows of its caller, as libgrpc tells it: values by the name of the property.
#pragma once

#include <grpcpp/security/auth_context.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace userintent::rpc {

// The library lets nobody else make one.
class NoProperties final : public grpc::AuthPropertyIterator {
 public:
  NoProperties() = default;
};

class Peer final : public grpc::AuthContext {
 public:
  using Values = std::map<std::string, std::vector<std::string>>;

  explicit Peer(Values values) : values_(std::move(values)) {}
  bool IsPeerAuthenticated() const override { return true; }
  std::vector<grpc::string_ref> GetPeerIdentity() const override { return {}; }
  std::string GetPeerIdentityPropertyName() const override { return {}; }
  std::vector<grpc::string_ref> FindPropertyValues(const std::string& name) const override {
    const auto found = values_.find(name);
    if (found == values_.end()) return {};
    return {found->second.begin(), found->second.end()};
  }
  grpc::AuthPropertyIterator begin() const override { return NoProperties(); }
  grpc::AuthPropertyIterator end() const override { return NoProperties(); }
  void AddProperty(const std::string&, const grpc::string_ref&) override {}
  bool SetPeerIdentityPropertyName(const std::string&) override { return false; }

 private:
  const Values values_;
};

}  // namespace userintent::rpc
