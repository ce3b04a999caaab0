// Who calls: the name in the client certificate (contract section 2). Never a header.
//
// CallerOf is pure; any thread. A CertificateClock belongs to one shard's thread.
#pragma once

#include <grpcpp/security/auth_context.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "server/tls/client_authorities.h"

namespace userintent::rpc {

// The caller on a connection without TLS.
inline constexpr char kLocalCaller[] = "local";

// The certificate's only URI SAN, else its first DNS SAN; nothing when there is neither, when there are several URI
// SANs (SPIFFE allows one: with two, which one speaks?), or when the name is not 1-512 printable ASCII characters.
// URI and DNS names never collide. `require_tls`: the listener has TLS, so a connection without a peer identity has
// none.
std::optional<std::string> CallerOf(const grpc::AuthContext& context, bool require_tls);

// Whether the caller's certificate still holds: it was checked when the connection began, and a connection lives for
// half an hour and more. A certificate is read once, and again when the lists of revoked ones changed; other calls find
// it by its text.
class CertificateClock {
 public:
  using SystemTime = std::chrono::system_clock::time_point;

  // `authorities` null: nothing is revoked.
  explicit CertificateClock(std::shared_ptr<const tls::ClientAuthorities> authorities = nullptr)
      : authorities_(std::move(authorities)) {}

  // Whether the certificate on the connection is past its end at `now`, or was revoked. What cannot be read has ended.
  bool Ended(const grpc::AuthContext& context, SystemTime now);

  size_t size() const { return known_.size(); }

  // The end (notAfter) of a certificate in PEM; nothing when it cannot be read.
  static std::optional<SystemTime> EndOf(const std::string& pem);

 private:
  struct Known {
    SystemTime end;
    uint64_t generation = 0;  // of the authorities that `revoked` is by
    bool revoked = false;
  };

  std::shared_ptr<const tls::ClientAuthorities> authorities_;
  std::unordered_map<std::string, Known> known_;  // by PEM
};

}  // namespace userintent::rpc
