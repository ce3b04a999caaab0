#include "server/rpc/handshake_result.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <set>
#include <string_view>

namespace userintent::rpc {
namespace {

TEST(HandshakeResult, EveryOneHasAWordOfItsOwn) {
  const std::set<std::string_view> words(std::begin(kHandshakeResultNames), std::end(kHandshakeResultNames));
  EXPECT_EQ(words.size(), kHandshakeResults);
  EXPECT_FALSE(words.contains(""));
}

TEST(HandshakeResult, OfACertificate) {
  using enum HandshakeResult;
  EXPECT_EQ(OfVerifyResult(X509_V_OK), kSuccess);
  EXPECT_EQ(OfVerifyResult(X509_V_ERR_CERT_HAS_EXPIRED), kCertificateExpired);
  EXPECT_EQ(OfVerifyResult(X509_V_ERR_CERT_REVOKED), kCertificateRevoked);
  EXPECT_EQ(OfVerifyResult(X509_V_ERR_INVALID_PURPOSE), kCertificateMalformed);
  EXPECT_EQ(OfVerifyResult(X509_V_ERR_PERMITTED_VIOLATION), kCertificateVerificationFailed);
  EXPECT_EQ(OfVerifyResult(123456), kCertificateVerificationFailed);
}

TEST(HandshakeResult, OfAnError) {
  using enum HandshakeResult;
  EXPECT_EQ(OfSslError(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)), kPeerCertificateMissing);
  EXPECT_EQ(OfSslError(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_UNSUPPORTED_PROTOCOL)), kProtocolVersionUnsupported);
  EXPECT_EQ(OfSslError(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_NO_SHARED_CIPHER)), kCipherSuiteMismatch);
  // The same number means something else in another part of OpenSSL.
  EXPECT_EQ(OfSslError(ERR_PACK(ERR_LIB_X509, 0, SSL_R_NO_SHARED_CIPHER)), kUnknownFailure);
  EXPECT_EQ(OfSslError(0), kUnknownFailure);
}

}  // namespace
}  // namespace userintent::rpc
