// What libgrpc does not let one see or set of its TLS sessions, done with OpenSSL's own hooks.
//
// * Each handshake takes the certificate, key and authorities that are current when it begins (tls::ServerCertificate,
//   tls::ClientAuthorities), so that new files need no restart. Connections that stand go on as they are.
// * A handshake that is refused is one log line (tls_handshake_refused) with the peer's address and the reason; each is
//   counted by its result.
// * Sessions are never resumed: a resumed one skips the certificate, so an expired one would live on (with tickets that
//   renew each other, for hours). A full handshake for each connection is what that costs. Nor are they renegotiated.
//
// How: OpenSSL tells of each TLS context and each session that is made, on the thread that makes it. libgrpc makes its
// context while the server is built (TlsContextScope); whose session it makes then, hand_over.h knows. Contexts that
// are made outside of this scope, such as those to Astra, and their sessions are left alone.
#pragma once

#include <array>
#include <cstdint>

#include "server/rpc/handshake_result.h"
#include "server/tls/files.h"

namespace userintent::rpc {

// Handshakes since the process began, by what became of them; without the server's own probes. Any thread.
std::array<uint64_t, kHandshakeResults> Handshakes();

uint64_t RefusedHandshakes();  // those that did not succeed

// Around ServerBuilder::BuildAndStart, on its thread. The destructor configures the contexts that were made meanwhile,
// which keep `files` for as long as they live; no connection may be handed to the server before that.
class TlsContextScope {
 public:
  explicit TlsContextScope(tls::Files files);
  ~TlsContextScope();
  TlsContextScope(const TlsContextScope&) = delete;
  TlsContextScope& operator=(const TlsContextScope&) = delete;

 private:
  const tls::Files files_;
};

}  // namespace userintent::rpc
