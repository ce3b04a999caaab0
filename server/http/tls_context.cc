#include "server/http/tls_context.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <utility>

namespace userintent::http {
namespace {

// As libcurl has it on Debian. Named here rather than left to OpenSSL's defaults, because those let the environment
// (SSL_CERT_FILE, SSL_CERT_DIR) add authorities.
constexpr char kSystemCaFile[] = "/etc/ssl/certs/ca-certificates.crt";
constexpr char kSystemCaDirectory[] = "/etc/ssl/certs";

constexpr size_t kSessions = 8;
// Several records by one system call.
constexpr size_t kReadBufferBytes = 32 * 1024;

constexpr unsigned char kAlpn[] = "\x02h2\x08http/1.1";
constexpr unsigned int kAlpnH2Bytes = 3;
constexpr unsigned int kAlpnBothBytes = sizeof(kAlpn) - 1;

}  // namespace

SystemTime PeerEnd(const SSL* ssl) {
  const X509* const shown = SSL_get0_peer_certificate(ssl);
  return shown == nullptr ? SystemTime() : TimeOf(X509_get0_notAfter(shown));
}

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(std::string host, bool host_is_literal,
                                                               std::string ca_file, bool offer_http1,
                                                               const CaFile* authorities) {
  std::unique_ptr<TlsContext> made(new TlsContext(std::move(host), host_is_literal, std::move(ca_file), authorities));
  SSL_CTX* const context = made->context_ = SSL_CTX_new(TLS_client_method());
  if (context == nullptr) return absl::ResourceExhaustedError("HTTP/2 client: no memory left for a TLS context");
  // SSL_OP_CLEANSE_PLAINTEXT: answers are personal data too.
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CLEANSE_PLAINTEXT);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadBufferBytes);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_set_app_data(context, made.get());
  SSL_CTX_sess_set_new_cb(context, &OnNewSession);
  if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
      SSL_CTX_set_alpn_protos(context, kAlpn, offer_http1 ? kAlpnBothBytes : kAlpnH2Bytes) != 0) {
    return absl::InternalError("HTTP/2 client: OpenSSL takes neither TLS 1.2 nor ALPN");
  }
  made->HasTrust();
  return made;
}

TlsContext::~TlsContext() {
  ForgetSessions();
  SSL_CTX_free(context_);
}

void TlsContext::ForgetSessions() {
  for (SSL_SESSION* session : sessions_) SSL_SESSION_free(session);
  sessions_.clear();
}

bool TlsContext::TakeAuthorities() {
  std::shared_ptr<const Certificates> latest = authorities_->Snapshot();
  if (latest == trusted_) return true;
  X509_STORE* const store = X509_STORE_new();
  bool ok = store != nullptr;
  for (const auto& certificate : latest->parsed) ok = ok && X509_STORE_add_cert(store, certificate.get()) == 1;
  ERR_clear_error();
  if (!ok) {
    X509_STORE_free(store);
    return trusted_ != nullptr;
  }
  SSL_CTX_set_cert_store(context_, store);  // takes it
  ForgetSessions();                         // their issuer may be trusted no more
  trusted_ = std::move(latest);
  return true;
}

bool TlsContext::HasTrust() {
  if (authorities_ != nullptr) return TakeAuthorities();
  if (has_trust_) return true;
  if (!ca_file_.empty()) {
    has_trust_ = SSL_CTX_load_verify_file(context_, ca_file_.c_str()) == 1;
  } else {
    const bool file = SSL_CTX_load_verify_file(context_, kSystemCaFile) == 1;
    const bool directory = SSL_CTX_load_verify_dir(context_, kSystemCaDirectory) == 1;
    has_trust_ = file || directory;
  }
  ERR_clear_error();
  return has_trust_;
}

SSL* TlsContext::NewConnection() {
  SSL* const ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  SSL_set_connect_state(ssl);
  X509_VERIFY_PARAM* const rules = SSL_get0_param(ssl);
  // As with libcurl, a certificate that is named as trusted need not have a trusted authority above it.
  X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);
  bool ok;
  if (host_is_literal_) {
    ok = X509_VERIFY_PARAM_set1_ip_asc(rules, host_.c_str()) == 1;
  } else {
    X509_VERIFY_PARAM_set_hostflags(rules, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    ok = X509_VERIFY_PARAM_set1_host(rules, host_.c_str(), host_.size()) == 1 &&
         SSL_set_tlsext_host_name(ssl, host_.c_str()) == 1;
  }
  if (!ok) {
    SSL_free(ssl);
    return nullptr;
  }
  if (!sessions_.empty()) {
    SSL_SESSION* const session = sessions_.back();
    SSL_set_session(ssl, session);
    // A ticket of TLS 1.3 is for one use: an observer who sees it twice can tell that both connections are ours.
    if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION) {
      sessions_.pop_back();
      SSL_SESSION_free(session);
    }
  }
  return ssl;
}

// Called when a session can be resumed, which is after the handshake, and so after the peer was verified.
int TlsContext::OnNewSession(SSL* ssl, SSL_SESSION* session) noexcept {
  auto& self = *static_cast<TlsContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  if (SSL_get_verify_result(ssl) != X509_V_OK) return 0;
  if (self.sessions_.size() == kSessions) {
    SSL_SESSION_free(self.sessions_.front());
    self.sessions_.erase(self.sessions_.begin());
  }
  self.sessions_.push_back(session);
  return 1;  // the reference is ours now
}

}  // namespace userintent::http
