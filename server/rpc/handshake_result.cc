#include "server/rpc/handshake_result.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <unordered_map>

#include "server/tls/client_authorities.h"

namespace userintent::rpc {

HandshakeResult OfVerifyResult(long verify_result) {  // NOLINT: OpenSSL's type
  using enum HandshakeResult;
  static const auto& table = *new std::unordered_map<long, HandshakeResult>{
      // NOLINT: OpenSSL's type
      {X509_V_OK, kSuccess},
      {tls::kWrongTrustDomain, kTrustDomainMismatch},
      {tls::kWrongAuthority, kTrustDomainMismatch},
      {X509_V_ERR_CERT_REVOKED, kCertificateRevoked},
      {X509_V_ERR_CERT_HAS_EXPIRED, kCertificateExpired},
      {X509_V_ERR_CERT_NOT_YET_VALID, kCertificateNotYetValid},
      {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, kCertificateAuthorityInvalid},
      {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, kCertificateAuthorityInvalid},
      {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, kCertificateAuthorityInvalid},
      {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, kCertificateAuthorityInvalid},
      {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, kCertificateAuthorityInvalid},
      {X509_V_ERR_UNABLE_TO_GET_CRL, kCrlNotFound},
      {X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER, kCrlNotFound},
      {X509_V_ERR_DIFFERENT_CRL_SCOPE, kCrlNotFound},
      {X509_V_ERR_CRL_HAS_EXPIRED, kCrlExpired},
      {X509_V_ERR_CRL_NOT_YET_VALID, kCrlExpired},
      {X509_V_ERR_CRL_SIGNATURE_FAILURE, kCrlSignatureFailure},
      {X509_V_ERR_INVALID_CA, kCertificateMalformed},
      {X509_V_ERR_INVALID_NON_CA, kCertificateMalformed},
      {X509_V_ERR_INVALID_PURPOSE, kCertificateMalformed},
      {X509_V_ERR_ERROR_IN_CERT_NOT_BEFORE_FIELD, kCertificateMalformed},
      {X509_V_ERR_ERROR_IN_CERT_NOT_AFTER_FIELD, kCertificateMalformed},
      {X509_V_ERR_CERT_SIGNATURE_FAILURE, kSignatureVerificationFailed},
  };
  const auto found = table.find(verify_result);
  return found != table.end() ? found->second : kCertificateVerificationFailed;
}

HandshakeResult OfSslError(unsigned long error) {  // NOLINT: OpenSSL's type
  using enum HandshakeResult;
  static const auto& table = *new std::unordered_map<int, HandshakeResult>{
      {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, kPeerCertificateMissing},
      {SSL_R_NO_SHARED_CIPHER, kCipherSuiteMismatch},
      {SSL_R_NO_CIPHERS_AVAILABLE, kCipherSuiteMismatch},
      {SSL_R_NO_CIPHERS_SPECIFIED, kCipherSuiteMismatch},
      {SSL_R_WRONG_CIPHER_RETURNED, kCipherSuiteMismatch},
      {SSL_R_UNSUPPORTED_PROTOCOL, kProtocolVersionUnsupported},
      {SSL_R_UNKNOWN_PROTOCOL, kProtocolVersionUnsupported},
      {SSL_R_UNKNOWN_SSL_VERSION, kProtocolVersionUnsupported},
      {SSL_R_WRONG_SSL_VERSION, kProtocolVersionUnsupported},
      {SSL_R_WRONG_VERSION_NUMBER, kProtocolVersionUnsupported},
      {SSL_R_VERSION_TOO_LOW, kProtocolVersionUnsupported},
      {SSL_R_INAPPROPRIATE_FALLBACK, kInappropriateFallback},
      {SSL_R_NO_APPLICATION_PROTOCOL, kNoApplicationProtocol},
      {SSL_R_BAD_SIGNATURE, kSignatureVerificationFailed},
      {SSL_R_WRONG_SIGNATURE_TYPE, kSignatureVerificationFailed},
      {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, kSignatureVerificationFailed},
      {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, kSignatureVerificationFailed},
      {SSL_R_DECRYPTION_FAILED, kDecryptionFailed},
      {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, kDecryptionFailed},
      {SSL_R_WRONG_CURVE, kKeyExchangeFailure},
      {SSL_R_BAD_ECPOINT, kKeyExchangeFailure},
      {SSL_R_NO_SUITABLE_KEY_SHARE, kKeyExchangeFailure},
      {SSL_R_NO_SHARED_GROUPS, kKeyExchangeFailure},
      {SSL_R_UNEXPECTED_MESSAGE, kUnexpectedMessage},
      {SSL_R_UNEXPECTED_RECORD, kUnexpectedMessage},
      {SSL_R_APP_DATA_IN_HANDSHAKE, kUnexpectedMessage},
      {SSL_R_HTTP_REQUEST, kUnexpectedMessage},
      // The certificate is too weak for the level of security, or its list is damaged.
      {SSL_R_EE_KEY_TOO_SMALL, kCertificateVerificationFailed},
      {SSL_R_CA_KEY_TOO_SMALL, kCertificateVerificationFailed},
      {SSL_R_CA_MD_TOO_WEAK, kCertificateVerificationFailed},
      {SSL_R_CERTIFICATE_VERIFY_FAILED, kCertificateVerificationFailed},
      {SSL_R_LENGTH_MISMATCH, kCertificateMalformed},
      {SSL_R_CERT_LENGTH_MISMATCH, kCertificateMalformed},
  };
  if (ERR_GET_LIB(error) != ERR_LIB_SSL) return kUnknownFailure;
  const auto found = table.find(ERR_GET_REASON(error));
  return found != table.end() ? found->second : kUnknownFailure;
}

}  // namespace userintent::rpc
