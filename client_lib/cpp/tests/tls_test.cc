// TLS: files that are replaced, and files that cannot be used. The certificates are made here.
#include "src/tls.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "src/connection.h"
#include "tests/fake_gateway.h"

namespace userintent {
namespace {

using ::testing::HasSubstr;

struct Free {
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
};

std::string Text(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

// A key and a certificate for it.
struct Identity {
  std::unique_ptr<EVP_PKEY, Free> key;
  std::unique_ptr<X509, Free> certificate;
  std::string key_pem;
  std::string certificate_pem;

  // issuer: null for one that signs itself.
  Identity(const char* name, const Identity* issuer, const char* sans)
      : key(EVP_EC_gen("P-256")), certificate(X509_new()) {
    X509_set_version(certificate.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_NAME* subject = X509_get_subject_name(certificate.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
    X509_set_issuer_name(certificate.get(),
                         X509_get_subject_name(issuer == nullptr ? certificate.get() : issuer->certificate.get()));
    X509_set_pubkey(certificate.get(), key.get());
    Extend(NID_basic_constraints, issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
    if (sans != nullptr) Extend(NID_subject_alt_name, sans);
    X509_sign(certificate.get(), issuer == nullptr ? key.get() : issuer->key.get(), EVP_sha256());
    const std::unique_ptr<BIO, Free> out(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    key_pem = Text(out.get());
    const std::unique_ptr<BIO, Free> more(BIO_new(BIO_s_mem()));
    PEM_write_bio_X509(more.get(), certificate.get());
    certificate_pem = Text(more.get());
  }

  void Extend(int nid, const char* value) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    X509_add_ext(certificate.get(), extension, -1);
    X509_EXTENSION_free(extension);
  }
};

void Write(const std::string& path, const std::string& data) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << data;
}

class TlsTest : public testing::Test {
 protected:
  TlsTest()
      : authority_("authority", nullptr, nullptr),
        gateway_("gateway", &authority_, "DNS:gateway.test"),
        first_("first", &authority_, "URI:spiffe://example.test/first"),
        second_("second", &authority_, "URI:spiffe://example.test/second") {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    const std::string base = absl::StrCat(testing::TempDir(), "/userintent-", test->name(), "-", getpid());
    files_ = {base + ".ca", base + ".crt", base + ".key", "gateway.test"};
    Write(files_.ca_file, authority_.certificate_pem);
    Use(first_);
  }

  ~TlsTest() override {
    for (const std::string& path : {files_.ca_file, files_.cert_file, files_.key_file}) std::remove(path.c_str());
  }

  void Use(const Identity& identity) {
    Write(files_.cert_file, identity.certificate_pem);
    Write(files_.key_file, identity.key_pem);
  }

  std::shared_ptr<grpc::ServerCredentials> ServerTls() const {
    grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    options.pem_root_certs = authority_.certificate_pem;
    options.pem_key_cert_pairs.push_back({gateway_.key_pem, gateway_.certificate_pem});
    return grpc::SslServerCredentials(options);
  }

  ClientOptions Options(const FakeGateway& gateway) const {
    ClientOptions options;
    options.target = gateway.address();
    options.tls = files_;
    return options;
  }

  std::string Refusal() const { return std::string(LoadCredentials(files_).status().message()); }

  const Identity authority_;
  const Identity gateway_;
  const Identity first_;
  const Identity second_;
  TlsFiles files_;
};

TEST_F(TlsTest, MutualTls) {
  FakeGateway gateway({FakeAnswer()}, "127.0.0.1:0", ServerTls());
  const auto created = FakeGateway::Connect(Options(gateway))->CreateUserIntent(Person());
  EXPECT_TRUE(created.ok()) << created.status();
  ClientOptions anonymous = Options(gateway);
  anonymous.tls->cert_file.clear();
  anonymous.tls->key_file.clear();
  const absl::Status status = FakeGateway::Connect(anonymous)->CreateUserIntent(Person()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(ErrorOf(status)->maybe_sent());
}

TEST_F(TlsTest, AnotherAuthorityIsNotTrusted) {
  FakeGateway gateway({FakeAnswer()}, "127.0.0.1:0", ServerTls());
  const Identity other("other", nullptr, nullptr);
  Write(files_.ca_file, other.certificate_pem);
  EXPECT_EQ(FakeGateway::Connect(Options(gateway))->CreateUserIntent(Person()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, ReplacedFilesAreUsedForNewCallsOnly) {
  auto opened = Connection::Open([this] {
    ClientOptions options;
    options.target = "127.0.0.1:1";
    options.tls = files_;
    return options;
  }());
  ASSERT_TRUE(opened.ok()) << opened.status();
  Connection& connection = **opened;
  const auto before = connection.stub();
  connection.LookAtOnce();
  EXPECT_EQ(connection.stub(), before) << "nothing has changed";
  Use(second_);
  EXPECT_EQ(connection.stub(), before) << "not looked at so soon";
  connection.LookAtOnce();
  const auto after = connection.stub();
  EXPECT_NE(after, before);
  connection.LookAtOnce();
  EXPECT_EQ(connection.stub(), after);
}

TEST_F(TlsTest, HalfAChangeLeavesTheOldPairInUse) {
  FakeGateway gateway({FakeAnswer()}, "127.0.0.1:0", ServerTls());
  auto opened = Connection::Open(Options(gateway));
  ASSERT_TRUE(opened.ok());
  Connection& connection = **opened;
  const auto before = connection.stub();
  Write(files_.key_file, second_.key_pem);
  connection.LookAtOnce();
  EXPECT_EQ(connection.stub(), before);
  std::remove(files_.cert_file.c_str());
  connection.LookAtOnce();
  EXPECT_EQ(connection.stub(), before);
  Write(files_.cert_file, second_.certificate_pem);
  connection.LookAtOnce();
  const auto after = connection.stub();
  EXPECT_NE(after, before);
  for (const auto& stub : {before, after}) {
    grpc::ClientContext context;
    v1::CreateUserIntentResponse response;
    EXPECT_TRUE(stub->CreateUserIntent(&context, Person(), &response).ok());
  }
}

TEST_F(TlsTest, UnusableFilesFailAtOnce) {
  EXPECT_EQ(Refusal(), "");
  Write(files_.key_file, second_.key_pem);
  EXPECT_THAT(Refusal(), HasSubstr("is not the key of"));
  Write(files_.key_file, "nothing");
  EXPECT_THAT(Refusal(), HasSubstr("holds no private key"));
  const std::unique_ptr<BIO, Free> locked(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(locked.get(), first_.key.get(), EVP_aes_128_cbc(), nullptr, 0, nullptr,
                           const_cast<char*>("password"));
  Write(files_.key_file, Text(locked.get()));
  EXPECT_THAT(Refusal(), HasSubstr("holds no private key that is not encrypted"));
  Write(files_.key_file, first_.key_pem);
  Write(files_.cert_file, "");
  EXPECT_THAT(Refusal(), HasSubstr("holds no certificate"));
  files_.cert_file += ".missing";
  EXPECT_THAT(Refusal(), HasSubstr("cannot read"));
  files_.cert_file.clear();
  EXPECT_THAT(Refusal(), HasSubstr("go together"));
  files_.key_file.clear();
  EXPECT_EQ(Refusal(), "");
  Write(files_.ca_file, "nothing");
  EXPECT_THAT(Refusal(), HasSubstr("holds no certificate"));
}

}  // namespace
}  // namespace userintent
