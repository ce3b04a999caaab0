// Who calls: the name in the client certificate (contract section 2). Never a header.
//
// CallerOf is pure; any thread. A CertificateClock belongs to one shard's thread.
#pragma once

#include <grpcpp/security/auth_context.h>

#include <chrono>
#include <optional>
#include <string>
#include <unordered_map>

namespace userintent::rpc {

// The caller on a connection without TLS.
inline constexpr char kLocalCaller[] = "local";

// The certificate's only URI SAN, else its first DNS SAN; nothing when there is neither, when there are several URI
// SANs (SPIFFE allows one: with two, which one speaks?), or when the name is not 1-512 printable ASCII characters.
// URI and DNS names never collide. `require_tls`: the listener has TLS, so a connection without a peer identity has
// none.
std::optional<std::string> CallerOf(const grpc::AuthContext& context, bool require_tls);

// Whether the caller's certificate still holds: it was checked when the connection began, and a connection lives for
// half an hour and more. A certificate is read once; later calls find it by its text.
class CertificateClock {
 public:
  using SystemTime = std::chrono::system_clock::time_point;

  // Whether the certificate on the connection is past its end at `now`. What cannot be read has ended.
  bool Ended(const grpc::AuthContext& context, SystemTime now);

  size_t size() const { return ends_.size(); }

  // The end (notAfter) of a certificate in PEM; nothing when it cannot be read.
  static std::optional<SystemTime> EndOf(const std::string& pem);

 private:
  std::unordered_map<std::string, SystemTime> ends_;  // by PEM
};

}  // namespace userintent::rpc
