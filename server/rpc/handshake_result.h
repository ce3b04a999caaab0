// What became of a TLS handshake, in the words of gRPC's proposal A118 (TLS telemetry), which are the labels of
// grpc_server_tls_handshakes_total. Pure; any thread.
//
// The words are those of the proposal, with the four that gRPC's own code adds to them (a missing certificate, three of
// revocation lists); the last two are ours, because the operator of a listener must tell them from all others: the peer
// refuses this server, and the peer's name is of a trust domain that it may not have.
#pragma once

#include <cstddef>
#include <iterator>
#include <string_view>

namespace userintent::rpc {

enum class HandshakeResult {
  kSuccess,
  kUnknownFailure,
  kCertificateVerificationFailed,
  kCertificateRevoked,
  kCertificateExpired,
  kCertificateNotYetValid,
  kCertificateAuthorityInvalid,
  kCertificateMalformed,
  kPeerCertificateMissing,
  kCrlNotFound,
  kCrlExpired,
  kCrlSignatureFailure,
  kCipherSuiteMismatch,
  kProtocolVersionUnsupported,
  kInappropriateFallback,
  kNoApplicationProtocol,
  kSignatureVerificationFailed,
  kDecryptionFailed,
  kKeyExchangeFailure,
  kUnexpectedMessage,
  kHandshakeTimeout,
  kPeerConnectionClosed,
  kRefusedByPeer,
  kTrustDomainMismatch,
};

// Indexed by HandshakeResult.
inline constexpr std::string_view kHandshakeResultNames[] = {
    "SUCCESS",
    "UNKNOWN_FAILURE",
    "CERTIFICATE_VERIFICATION_FAILED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_NOT_YET_VALID",
    "CERTIFICATE_AUTHORITY_INVALID",
    "CERTIFICATE_MALFORMED",
    "PEER_CERTIFICATE_REQUIRED_BUT_MISSING",
    "CRL_NOT_FOUND",
    "CRL_EXPIRED",
    "CRL_SIGNATURE_FAILURE",
    "CIPHER_SUITE_MISMATCH",
    "PROTOCOL_VERSION_UNSUPPORTED",
    "INAPPROPRIATE_FALLBACK",
    "NO_APPLICATION_PROTOCOL",
    "SIGNATURE_VERIFICATION_FAILED",
    "DECRYPTION_FAILED",
    "KEY_EXCHANGE_FAILURE",
    "UNEXPECTED_MESSAGE",
    "HANDSHAKE_TIMEOUT",
    "PEER_CONNECTION_CLOSED",
    "REFUSED_BY_PEER",
    "TRUST_DOMAIN_MISMATCH",
};
inline constexpr size_t kHandshakeResults = static_cast<size_t>(HandshakeResult::kTrustDomainMismatch) + 1;
static_assert(std::size(kHandshakeResultNames) == kHandshakeResults);

// Of what OpenSSL says of the peer's certificate (SSL_get_verify_result); kSuccess for X509_V_OK.
HandshakeResult OfVerifyResult(long verify_result);  // NOLINT: OpenSSL's type

// Of what OpenSSL did not like otherwise (ERR_peek_last_error).
HandshakeResult OfSslError(unsigned long error);  // NOLINT: OpenSSL's type

}  // namespace userintent::rpc
