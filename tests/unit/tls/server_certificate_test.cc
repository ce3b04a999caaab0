// What is shown is what fits; everything else leaves the last good pair.
#include "server/tls/server_certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <string>

#include "tests/unit/base/temporary_directory.h"
#include "tests/unit/tls/certificates.h"

namespace userintent::tls {
namespace {

using test::KeyText;
using test::NewKey;
using test::SelfSigned;
using testing::HasSubstr;
using testing::StartsWith;

class ServerCertificateTest : public testing::Test {
 protected:
  void Write(const test::KeyPtr& key, const std::string& certificate) {
    directory_.Write("crt", certificate, 0644);
    directory_.Write("key", KeyText(key.get()));
  }
  absl::StatusOr<std::unique_ptr<ServerCertificate>> Load() {
    return ServerCertificate::Load(directory_.Path("crt"), directory_.Path("key"));
  }
  std::string Refused() { return std::string(Load().status().message()); }

  TemporaryDirectory directory_;
  const test::KeyPtr key_ = NewKey();
  const std::string first_ = SelfSigned(key_.get());
};

TEST_F(ServerCertificateTest, WhatDoesNotFitIsRefused) {
  Write(NewKey(), first_);
  EXPECT_THAT(Refused(), StartsWith("--tls_key_file: is not the key of the first certificate in --tls_cert_file"));
  Write(key_, "text");
  EXPECT_THAT(Refused(), StartsWith("--tls_cert_file: holds no certificate"));
  directory_.Write("crt", first_, 0644);
  directory_.Write("key", "text");
  EXPECT_THAT(Refused(), StartsWith("--tls_key_file: holds no private key"));
  EXPECT_EQ(ERR_peek_error(), 0u);
}

TEST_F(ServerCertificateTest, WhatOpensslWouldNotUseIsRefused) {
  const test::KeyPtr weak(EVP_RSA_gen(1024), EVP_PKEY_free);
  Write(weak, SelfSigned(weak.get()));
  EXPECT_THAT(Refused(), StartsWith("--tls_cert_file: OpenSSL does not use it: "));
  EXPECT_EQ(ERR_peek_error(), 0u);
}

TEST_F(ServerCertificateTest, TheChainIsInTheOrderOfTheFile) {
  const std::string second = SelfSigned(NewKey().get());
  Write(key_, first_ + second);
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto pair = (*loaded)->Snapshot();
  EXPECT_EQ(X509_check_private_key(pair->own(), pair->key.get()), 1);
  ASSERT_EQ(sk_X509_num(pair->chain.get()), 1);
  EXPECT_EQ(sk_X509_value(pair->chain.get(), 0), pair->certificates.parsed[1].get());
}

TEST_F(ServerCertificateTest, AChangeIsTakenOnceAndOldSnapshotsLiveOn) {
  Write(key_, first_);
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto before = (*loaded)->Snapshot();
  EXPECT_EQ((*loaded)->Refresh().value(), false);
  const test::KeyPtr other = NewKey();
  Write(other, SelfSigned(other.get()));
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  EXPECT_EQ((*loaded)->Refresh().value(), false);
  const auto after = (*loaded)->Snapshot();
  EXPECT_EQ(X509_check_private_key(after->own(), other.get()), 1);
  EXPECT_EQ(X509_check_private_key(before->own(), key_.get()), 1);
}

TEST_F(ServerCertificateTest, ARefusedPairIsNewsOnceAndLeavesTheLastGoodOne) {
  Write(key_, first_);
  const auto loaded = Load();
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto before = (*loaded)->Snapshot();
  directory_.Write("crt", SelfSigned(NewKey().get()), 0644);
  EXPECT_FALSE((*loaded)->Refresh().ok());
  EXPECT_TRUE((*loaded)->RefusalIsNews());
  EXPECT_FALSE((*loaded)->Refresh().ok());
  EXPECT_FALSE((*loaded)->RefusalIsNews());
  directory_.Write("key", "text");
  EXPECT_FALSE((*loaded)->Refresh().ok());
  EXPECT_TRUE((*loaded)->RefusalIsNews());
  EXPECT_EQ((*loaded)->Snapshot(), before);
  Write(key_, first_);
  EXPECT_EQ((*loaded)->Refresh().value(), false);
  EXPECT_FALSE((*loaded)->RefusalIsNews());
}

TEST_F(ServerCertificateTest, AnExpiredOneReplacesOnlyAnExpiredOne) {
  Write(key_, SelfSigned(key_.get(), -7200, -3600));
  const auto loaded = Load();  // nothing better is there
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  Write(key_, SelfSigned(key_.get(), -7200, -1800));
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  Write(key_, first_);
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  const auto before = (*loaded)->Snapshot();
  Write(key_, SelfSigned(key_.get(), -7200, -3600));
  EXPECT_THAT(std::string((*loaded)->Refresh().status().message()),
              HasSubstr("--tls_cert_file: the certificate has expired"));
  EXPECT_EQ((*loaded)->Snapshot(), before);
}

TEST(TimeOf, ReadsWhatCertificatesHold) {
  const std::unique_ptr<ASN1_TIME, decltype(&ASN1_TIME_free)> time(ASN1_TIME_new(), ASN1_TIME_free);
  ASSERT_EQ(ASN1_TIME_set_string(time.get(), "20300101000000Z"), 1);
  EXPECT_EQ(std::chrono::system_clock::to_time_t(TimeOf(time.get())), 1893456000);
  ASSERT_EQ(ASN1_TIME_set_string(time.get(), "99991231235959Z"), 1);
  EXPECT_EQ(std::chrono::system_clock::to_time_t(TimeOf(time.get())), 4102444800);
  EXPECT_EQ(TimeOf(nullptr), SystemTime());
}

}  // namespace
}  // namespace userintent::tls
