// Who is vouched for, by what the files hold now.
#include "server/tls/client_authorities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <string>
#include <vector>

#include "server/tls/verify_rules.h"
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

absl::StatusOr<std::unique_ptr<ClientAuthorities>> Load(const ClientFiles& files) {
  return ClientAuthorities::Load(files);
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
  const auto loaded = Load({File("ca", one_.pem() + two_.pem()), "", {}});
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
  const auto loaded = Load({File("ca", between.pem()), "", {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between).get()), X509_V_OK);
  EXPECT_NE(Verdict(*(*loaded)->Snapshot(), Leaf(one_).get()), X509_V_OK);
}

TEST_F(ClientAuthoritiesTest, ANewFileCountsFromTheNextRefreshAndABadOneNever) {
  const auto loaded = Load({File("ca", one_.pem()), "", {}});
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
  const auto loaded = Load({File("ca", one_.pem() + one_.pem()), "", {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(one_).get()), X509_V_OK);
  EXPECT_EQ(ERR_peek_error(), 0u);
}

// ---- lists of revoked certificates

TEST_F(ClientAuthoritiesTest, WhatAListNamesIsRevoked) {
  const Authority between("between", &one_);
  File("ca", one_.pem() + between.pem() + two_.pem());
  File("crl", one_.Revoked({7}) + between.Revoked({8}) + two_.Revoked({}));
  const auto loaded = Load({directory_.Path("ca"), directory_.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto trust = (*loaded)->Snapshot();
  struct {
    const Authority& authority;
    long serial;  // NOLINT: OpenSSL's type
    bool revoked;
  } const cases[] = {{one_, 7, true},     {one_, 8, false}, {between, 8, true},
                     {between, 7, false}, {two_, 7, false}, {two_, 8, false}};
  for (const auto& [authority, serial, revoked] : cases) {
    const CertificatePtr leaf = Leaf(authority, {.serial = serial, .extensions = {}});
    EXPECT_EQ(Verdict(*trust, leaf.get()), revoked ? X509_V_ERR_CERT_REVOKED : X509_V_OK) << serial;
    EXPECT_EQ(trust->Revoked(*leaf), revoked) << serial;
  }
  // Another authority of the same name: its numbers are its own.
  EXPECT_FALSE(trust->Revoked(*Leaf(Authority("one"), {.serial = 7, .extensions = {}})));
}

TEST_F(ClientAuthoritiesTest, ARevokedAuthorityBetweenVouchesForNobody) {
  const Authority between("between", &one_);
  File("ca", one_.pem() + between.pem());
  File("crl", one_.Revoked({2000}) + between.Revoked({}));
  const auto loaded = Load({directory_.Path("ca"), directory_.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between).get()), X509_V_ERR_CERT_REVOKED);
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(one_).get()), X509_V_OK);
}

TEST_F(ClientAuthoritiesTest, NorBesideOneWithoutItsRoot) {
  const Authority between("between", &one_), good("good", &one_), orphan("orphan", &two_);
  File("ca", one_.pem() + between.pem() + good.pem() + orphan.pem());
  File("crl", one_.Revoked({2001}) + between.Revoked({}) + good.Revoked({}) + orphan.Revoked({8}));
  const auto loaded = Load({directory_.Path("ca"), directory_.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto trust = (*loaded)->Snapshot();
  EXPECT_EQ(Verdict(*trust, Leaf(between).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*trust, Leaf(orphan).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*trust, Leaf(orphan, {.serial = 8, .extensions = {}}).get()), X509_V_ERR_CERT_REVOKED);
  File("crl", one_.Revoked({2000}) + between.Revoked({}) + good.Revoked({}) + orphan.Revoked({8}));
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  const auto after = (*loaded)->Snapshot();
  EXPECT_NE(Verdict(*after, Leaf(between).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*after, Leaf(between).get(), {between.certificate()}), X509_V_ERR_CERT_REVOKED);
  EXPECT_EQ(Verdict(*after, Leaf(orphan).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*after, Leaf(one_).get()), X509_V_OK);
}

TEST_F(ClientAuthoritiesTest, AnAuthorityBetweenWithoutItsRootNeedsNoListOfTheRoot) {
  const Authority between("between", &one_);
  const auto loaded = Load({File("ca", between.pem()), File("crl", between.Revoked({8})), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between).get()), X509_V_OK);
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between, {.serial = 8, .extensions = {}}).get()),
            X509_V_ERR_CERT_REVOKED);
}

TEST_F(ClientAuthoritiesTest, AnAuthorityThatOnlyTheCallerSendsNeedsAListToo) {
  const Authority between("between", &one_);
  const auto loaded = Load({File("ca", one_.pem()), File("crl", one_.Revoked({})), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), Leaf(between).get(), {between.certificate()}),
            X509_V_ERR_UNABLE_TO_GET_CRL);
}

TEST_F(ClientAuthoritiesTest, ListsThatDoNotFitAreRefused) {
  File("ca", one_.pem());
  const auto refused = [&](const std::string& lists) {
    const auto loaded = Load({directory_.Path("ca"), File("crl", lists), {}});
    EXPECT_EQ(ERR_peek_error(), 0u);
    return std::string(loaded.status().message());
  };
  EXPECT_EQ(refused(one_.Revoked({})), "");
  EXPECT_THAT(refused(""), StartsWith("--tls_client_crl_file: holds no list"));
  EXPECT_THAT(refused("text"), StartsWith("--tls_client_crl_file: holds no list"));
  EXPECT_THAT(refused(one_.Revoked({}).insert(60, "*")), StartsWith("--tls_client_crl_file: holds a damaged list"));
  EXPECT_THAT(refused(two_.Revoked({})), StartsWith("--tls_client_crl_file: holds a list that no authority"));
  EXPECT_THAT(refused(Authority("one").Revoked({})),
              StartsWith("--tls_client_crl_file: holds a list that no authority"));
  EXPECT_THAT(refused(one_.Revoked({}, -3600, -60)),
              StartsWith("--tls_client_crl_file: holds a list that has expired"));
  EXPECT_THAT(refused(one_.Revoked({}, 60, 3600)),
              StartsWith("--tls_client_crl_file: holds a list that is not valid yet"));
  File("ca", one_.pem() + two_.pem());
  EXPECT_THAT(refused(one_.Revoked({})), StartsWith("--tls_client_crl_file: holds no list of an authority"));
  EXPECT_THAT(std::string(Load({directory_.Path("ca"), "/nowhere", {}}).status().message()),
              StartsWith("--tls_client_crl_file: cannot open"));
}

TEST_F(ClientAuthoritiesTest, ANewListCountsAndGrowsTheGeneration) {
  File("ca", one_.pem());
  File("crl", one_.Revoked({}));
  const auto loaded = Load({directory_.Path("ca"), directory_.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const CertificatePtr leaf = Leaf(one_, {.serial = 7, .extensions = {}});
  const uint64_t before = (*loaded)->generation();
  EXPECT_EQ((*loaded)->Refresh().value(), false);
  EXPECT_EQ((*loaded)->generation(), before);
  EXPECT_FALSE((*loaded)->Snapshot()->Revoked(*leaf));
  File("crl", one_.Revoked({7}));
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  EXPECT_GT((*loaded)->generation(), before);
  EXPECT_TRUE((*loaded)->Snapshot()->Revoked(*leaf));
  File("crl", one_.Revoked({}, -3600, -60));
  EXPECT_FALSE((*loaded)->Refresh().ok());
  EXPECT_TRUE((*loaded)->Snapshot()->Revoked(*leaf));
}

TEST_F(ClientAuthoritiesTest, TheSoonestEndsAreTold) {
  File("ca", one_.pem() + two_.pem());
  File("crl", one_.Revoked({}, -10, 500) + two_.Revoked({}, -10, 900));
  const auto loaded = Load({directory_.Path("ca"), directory_.Path("crl"), {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto trust = (*loaded)->Snapshot();
  const SystemTime now = std::chrono::system_clock::now();
  EXPECT_LT(*trust->lists_end, now + std::chrono::seconds(510));
  EXPECT_GT(*trust->lists_end, now + std::chrono::seconds(400));
  EXPECT_LT(trust->not_after, now + std::chrono::seconds(3610));
}

// ---- trust domains

TEST_F(ClientAuthoritiesTest, NamesArePinnedToDomainsAndThoseToAuthorities) {
  const Authority between("between", &one_), foreign("foreign", &two_);
  File("ca", one_.pem() + two_.pem());
  const auto loaded = Load({directory_.Path("ca"), "", {{{"one.test", File("one", one_.pem())}, {"any.test", ""}}}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const auto trust = (*loaded)->Snapshot();
  const auto verdict = [&](const Authority& authority, const std::string& san, const std::string& basic = "CA:FALSE") {
    test::CertificateOptions options;
    options.extensions = {{"basicConstraints", basic}};
    if (!san.empty()) options.extensions.emplace_back("subjectAltName", san);
    const CertificatePtr leaf = Leaf(authority, options);
    return Verdict(*trust, leaf.get(), {between.certificate(), foreign.certificate()});
  };
  EXPECT_EQ(verdict(one_, "URI:spiffe://one.test/a"), X509_V_OK);
  EXPECT_EQ(verdict(between, "URI:spiffe://one.test/a"), X509_V_OK);
  EXPECT_EQ(verdict(two_, "URI:spiffe://one.test/a"), kWrongAuthority);
  EXPECT_EQ(verdict(foreign, "URI:spiffe://one.test/a"), kWrongAuthority);
  EXPECT_EQ(verdict(one_, "URI:spiffe://any.test/a"), X509_V_OK);
  EXPECT_EQ(verdict(two_, "URI:spiffe://any.test/a"), X509_V_OK);
  EXPECT_EQ(verdict(one_, "URI:spiffe://any.test/a,DNS:a.test"), X509_V_OK);
  for (const char* san : {"", "DNS:one.test", "URI:spiffe://other.test/a", "URI:https://one.test/a",
                          "URI:spiffe://one.test/a,URI:spiffe://any.test/a", "URI:spiffe://one.test.x/a"}) {
    EXPECT_EQ(verdict(one_, san), kWrongTrustDomain) << san;
  }
  EXPECT_EQ(verdict(one_, "URI:spiffe://one.test/a", "critical,CA:TRUE"), X509_V_ERR_INVALID_NON_CA);
  EXPECT_STRNE(VerifyErrorText(kWrongAuthority), VerifyErrorText(kWrongTrustDomain));
  EXPECT_STREQ(VerifyErrorText(X509_V_ERR_CERT_REVOKED), X509_verify_cert_error_string(X509_V_ERR_CERT_REVOKED));
}

// A renewed certificate of the authority has its key and name, and so its rights.
TEST_F(ClientAuthoritiesTest, AnAuthorityIsItsNameAndKey) {
  EXPECT_TRUE(SameAuthority(one_.certificate(), one_.certificate()));
  EXPECT_FALSE(SameAuthority(one_.certificate(), Authority("one").certificate()));
  EXPECT_FALSE(SameAuthority(one_.certificate(), two_.certificate()));
}

TEST_F(ClientAuthoritiesTest, TheFilesOfDomainsAreReadAgainToo) {
  File("ca", one_.pem() + two_.pem());
  const auto loaded = Load({directory_.Path("ca"), "", {{{"one.test", File("one", one_.pem())}}}});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  test::CertificateOptions options;
  options.extensions = {{"subjectAltName", "URI:spiffe://one.test/a"}};
  const CertificatePtr leaf = Leaf(two_, options);
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), leaf.get()), kWrongAuthority);
  File("one", two_.pem());
  EXPECT_EQ((*loaded)->Refresh().value(), true);
  EXPECT_EQ(Verdict(*(*loaded)->Snapshot(), leaf.get()), X509_V_OK);
  File("one", "text");
  EXPECT_THAT(std::string((*loaded)->Refresh().status().message()), StartsWith("--trust_domain: holds no certificate"));
}

}  // namespace
}  // namespace userintent::tls
