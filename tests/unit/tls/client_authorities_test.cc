// Who is vouched for, by what the files hold now.
#include "server/tls/client_authorities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <string>
#include <vector>

#include "tests/unit/base/temporary_directory.h"
#include "tests/unit/tls/certificates.h"

namespace userintent::tls {
namespace {

using test::Authority;
using test::CertificatePtr;
using test::NewKey;
using testing::StartsWith;

// What OpenSSL says of a caller's certificate in a handshake; X509_V_OK: it gets in.
int Verdict(const ClientAuthorities::Trust& trust, X509* leaf, const std::vector<X509*>& sent = {}) {
  STACK_OF(X509)* untrusted = sk_X509_new_null();
  for (X509* certificate : sent) sk_X509_push(untrusted, certificate);
  X509_STORE_CTX* context = X509_STORE_CTX_new();
  X509_STORE_CTX_init(context, trust.store.get(), leaf, untrusted);
  X509_STORE_CTX_set_default(context, "ssl_client");
  const bool good = X509_verify_cert(context) == 1;
  const int error = X509_STORE_CTX_get_error(context);
  EXPECT_EQ(good, error == X509_V_OK) << error;
  X509_STORE_CTX_free(context);
  sk_X509_free(untrusted);
  ERR_clear_error();
  return error;
}

class ClientAuthoritiesTest : public testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& content) {
    return directory_.Write(name, content, 0644);
  }
  static CertificatePtr Leaf(const Authority& authority, const test::CertificateOptions& options = {}) {
    return authority.Issue(NewKey().get(), options);
  }

  TemporaryDirectory directory_;
  const Authority one_{"one"};
  const Authority two_{"two"};
};

TEST_F(ClientAuthoritiesTest, EveryAuthorityOfTheFileIsBelieved) {
  const auto loaded = ClientAuthorities::Load(File("ca", one_.pem() + two_.pem()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto trust = (*loaded)->Snapshot();
  EXPECT_EQ(Verdict(*trust, Leaf(one_).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*trust, Leaf(two_).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*trust, Leaf(Authority("one")).get()), X509_V_ERR_CERT_SIGNATURE_FAILURE);
  EXPECT_EQ(Verdict(*trust, Leaf(Authority("three")).get()), X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
  EXPECT_EQ(sk_X509_NAME_num(trust->names.get()), 2);
}

TEST_F(ClientAuthoritiesTest, AnAuthorityBetweenIsBelievedWithoutItsRoot) {
  const Authority between("between", &one_);
  const auto loaded = ClientAuthorities::Load(File("ca", between.pem()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between).get()), X509_V_OK);
  EXPECT_NE(Verdict(*(*loaded)->Snapshot(), Leaf(one_).get()), X509_V_OK);
}

TEST_F(ClientAuthoritiesTest, ANewFileCountsFromTheNextRefreshAndABadOneNever) {
  const auto loaded = ClientAuthorities::Load(File("ca", one_.pem()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto before = (*loaded)->Snapshot();
  EXPECT_EQ((*loaded)->Refresh().value(), false);
  File("ca", two_.pem());
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  const auto after = (*loaded)->Snapshot();
  EXPECT_EQ(Verdict(*before, Leaf(one_).get()), X509_V_OK);
  EXPECT_NE(Verdict(*after, Leaf(one_).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*after, Leaf(two_).get()), X509_V_OK);
  File("ca", "text");
  EXPECT_THAT(std::string((*loaded)->Refresh().status().message()),
              StartsWith("--tls_client_ca_file: holds no certificate"));
  EXPECT_TRUE((*loaded)->RefusalIsNews());
  EXPECT_FALSE((*loaded)->Refresh().ok());
  EXPECT_FALSE((*loaded)->RefusalIsNews());
  EXPECT_EQ((*loaded)->Snapshot(), after);
}

TEST_F(ClientAuthoritiesTest, TheSameCertificateTwiceIsNoFault) {
  const auto loaded = ClientAuthorities::Load(File("ca", one_.pem() + one_.pem()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(one_).get()), X509_V_OK);
  EXPECT_EQ(ERR_peek_error(), 0u);
}

}  // namespace
}  // namespace userintent::tls
