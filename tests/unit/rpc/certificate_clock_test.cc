#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <string>
#include <vector>

#include "server/rpc/identity.h"
#include "server/tls/client_authorities.h"
#include "tests/unit/base/temporary_directory.h"
#include "tests/unit/rpc/peer.h"
#include "tests/unit/tls/certificates.h"

namespace userintent::rpc {
namespace {

std::string CertificateUntil(const char* end) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_set_pubkey(certificate.get(), key.get());
  ASN1_TIME_set_string(X509_getm_notBefore(certificate.get()), "20200101000000Z");
  EXPECT_EQ(ASN1_TIME_set_string(X509_getm_notAfter(certificate.get()), end), 1);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const std::unique_ptr<BIO, decltype(&BIO_free)> out(BIO_new(BIO_s_mem()), BIO_free);
  PEM_write_bio_X509(out.get(), certificate.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<size_t>(size)};
}

// On a connection that shows these certificates.
Peer With(std::vector<std::string> pems) { return Peer({{"x509_pem_cert", std::move(pems)}}); }

CertificateClock::SystemTime At(time_t seconds) { return std::chrono::system_clock::from_time_t(seconds); }

constexpr time_t kNewYear2030 = 1893456000;

TEST(CertificateClock, ACertificateHoldsUntilItsEnd) {
  CertificateClock clock;
  const Peer peer = With({CertificateUntil("20300101000000Z")});
  for (int i = 0; i < 2; ++i) {  // read the first time, remembered the second
    EXPECT_FALSE(clock.Ended(peer, At(kNewYear2030 - 1)));
    EXPECT_FALSE(clock.Ended(peer, At(kNewYear2030)));
    EXPECT_TRUE(clock.Ended(peer, At(kNewYear2030 + 1)));
  }
}

TEST(CertificateClock, NoEndMeansNoEnd) {
  CertificateClock clock;
  EXPECT_FALSE(clock.Ended(With({CertificateUntil("99991231235959Z")}), At(kNewYear2030)));
  EXPECT_TRUE(clock.Ended(With({CertificateUntil("19500101000000Z")}), At(kNewYear2030)));
}

TEST(CertificateClock, WhatCannotBeReadHasEnded) {
  CertificateClock clock;
  EXPECT_TRUE(clock.Ended(With({}), At(kNewYear2030)));
  EXPECT_TRUE(clock.Ended(With({"no certificate"}), At(kNewYear2030)));
  const std::string good = CertificateUntil("20400101000000Z");
  EXPECT_TRUE(clock.Ended(With({good, good}), At(kNewYear2030)));
}

TEST(CertificateClock, ManyCertificatesAreNotKeptForEver) {
  CertificateClock clock;
  const Peer good = With({CertificateUntil("20400101000000Z")});
  for (int i = 0; i < 3000; ++i) {
    EXPECT_TRUE(clock.Ended(With({"no certificate " + std::to_string(i)}), At(kNewYear2030)));
  }
  EXPECT_LE(clock.size(), 1000u);
  EXPECT_FALSE(clock.Ended(good, At(kNewYear2030)));
}

TEST(CertificateClock, ARevokedCertificateHasEndedFromTheNextListOn) {
  const test::Authority authority;
  const TemporaryDirectory directory;
  directory.Write("ca", authority.pem(), 0644);
  directory.Write("crl", authority.Revoked({1}), 0644);
  auto loaded = tls::ClientAuthorities::Load({directory.Path("ca"), directory.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::shared_ptr<tls::ClientAuthorities> authorities = *std::move(loaded);
  CertificateClock clock(authorities);
  const auto peer = [&](long serial) {  // NOLINT: OpenSSL's type
    return With({test::PemOf(authority.Issue(test::NewKey().get(), {.serial = serial, .extensions = {}}).get())});
  };
  const Peer first = peer(1), second = peer(2);
  const CertificateClock::SystemTime now = std::chrono::system_clock::now();
  EXPECT_TRUE(clock.Ended(first, now));
  EXPECT_FALSE(clock.Ended(second, now));
  directory.Write("crl", authority.Revoked({2}), 0644);
  EXPECT_EQ(authorities->Refresh().value(), true);
  EXPECT_FALSE(clock.Ended(first, now));
  EXPECT_TRUE(clock.Ended(second, now));
}

}  // namespace
}  // namespace userintent::rpc
