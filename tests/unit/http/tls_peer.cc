#include "tests/unit/http/tls_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace userintent::http {
namespace {

void Must(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "test set-up failed: %s\n", what);
  std::abort();
}

struct Identity {
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
};

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  Must(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1, "extension");
  X509_EXTENSION_free(extension);
}

constexpr long kOneDay = 24 * 3600;

Identity MakeIdentity(const char* name, const Identity* issuer, const char* subject_alt_name, long serial,
                      long valid_until = kOneDay, bool is_authority = false) {
  Identity made;
  made.key = EVP_EC_gen("P-256");
  made.certificate = X509_new();
  X509* x = made.certificate;
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
  X509_gmtime_adj(X509_getm_notBefore(x), -7200);
  X509_gmtime_adj(X509_getm_notAfter(x), valid_until);
  X509_set_pubkey(x, made.key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name),
                             -1, -1, 0);
  X509* const parent = issuer != nullptr ? issuer->certificate : x;
  X509_set_issuer_name(x, X509_get_subject_name(parent));
  is_authority = is_authority || issuer == nullptr;
  AddExtension(x, parent, NID_basic_constraints, is_authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
  AddExtension(x, parent, NID_key_usage, is_authority ? "keyCertSign" : "digitalSignature");
  if (subject_alt_name != nullptr) AddExtension(x, parent, NID_subject_alt_name, subject_alt_name);
  Must(X509_sign(x, issuer != nullptr ? issuer->key : made.key, EVP_sha256()) > 0, "signature");
  return made;
}

std::string WritePem(X509* certificate) {
  char path[] = "/tmp/http_test_ca_XXXXXX";
  const int fd = mkstemp(path);
  Must(fd >= 0, "temporary file");
  FILE* file = fdopen(fd, "w");
  Must(PEM_write_X509(file, certificate) == 1 && fclose(file) == 0, "PEM");
  return path;
}

// Takes the first of our protocols (comma-separated) that the client offers.
int SelectAlpn(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned int in_size,
               void* wanted) {
  std::string_view ours = *static_cast<const std::string*>(wanted);
  while (!ours.empty()) {
    const std::string_view one = ours.substr(0, ours.find(','));
    ours.remove_prefix(std::min(ours.size(), one.size() + 1));
    for (unsigned int i = 0; i < in_size; i += 1u + in[i]) {
      if (std::string_view(reinterpret_cast<const char*>(in + i + 1), in[i]) == one) {
        *out = in + i + 1;
        *out_size = in[i];
        return SSL_TLSEXT_ERR_OK;
      }
    }
  }
  return SSL_TLSEXT_ERR_NOACK;
}

class Authority {
 public:
  Authority()
      : ca(MakeIdentity("Test CA", nullptr, nullptr, 1)),
        other_ca(MakeIdentity("Other CA", nullptr, nullptr, 2)),
        this_host(
            MakeIdentity("server", &ca, "IP:127.0.0.1,DNS:localhost,DNS:two.example.test,DNS:turning.example.test", 3)),
        other_host(MakeIdentity("other", &ca, "DNS:other.example.test", 4)),
        expired(MakeIdentity("server", &ca, "IP:127.0.0.1,DNS:localhost", 5, -3600)),
        by_common_name(MakeIdentity("two.example.test", &ca, "IP:127.0.0.9", 6)),
        intermediate(MakeIdentity("Intermediate CA", &ca, nullptr, 7, kOneDay, true)),
        by_intermediate(MakeIdentity("server", &intermediate, "IP:127.0.0.1", 8)),
        ca_file(WritePem(ca.certificate)),
        other_ca_file(WritePem(other_ca.certificate)),
        intermediate_file(WritePem(intermediate.certificate)) {}
  ~Authority() {
    unlink(ca_file.c_str());
    unlink(other_ca_file.c_str());
    unlink(intermediate_file.c_str());
    for (const Identity& identity :
         {ca, other_ca, this_host, other_host, expired, by_common_name, intermediate, by_intermediate}) {
      X509_free(identity.certificate);
      EVP_PKEY_free(identity.key);
    }
  }
  const Identity& Of(CertificateFor whom) const {
    switch (whom) {
      case CertificateFor::kThisHost:
        break;
      case CertificateFor::kOtherHost:
        return other_host;
      case CertificateFor::kThisHostOnceUponATime:
        return expired;
      case CertificateFor::kTwoByCommonName:
        return by_common_name;
      case CertificateFor::kThisHostByAnIntermediate:
        return by_intermediate;
    }
    return this_host;
  }
  const Identity ca, other_ca, this_host, other_host, expired, by_common_name, intermediate, by_intermediate;
  const std::string ca_file, other_ca_file, intermediate_file;
};

const Authority& TheAuthority() {
  static const Authority authority;
  return authority;
}

int Listen(int* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  Must(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 && listen(fd, 128) == 0, "listen");
  socklen_t size = sizeof(address);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  *port = ntohs(address.sin_port);
  return fd;
}

}  // namespace

void Event::Set() {
  const std::lock_guard lock(mutex_);
  set_ = true;
  changed_.notify_all();
}

bool Event::Wait() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(30), [this] { return set_; });
}

bool Event::IsSet() {
  const std::lock_guard lock(mutex_);
  return set_;
}

const std::string& TestCaFile() { return TheAuthority().ca_file; }
const std::string& OtherCaFile() { return TheAuthority().other_ca_file; }
const std::string& IntermediateFile() { return TheAuthority().intermediate_file; }

TlsPeer::~TlsPeer() {
  if (ssl_ != nullptr) SSL_free(ssl_);
  if (fd_ >= 0) close(fd_);
}

bool TlsPeer::Handshake(SSL_CTX* context) {
  ssl_ = SSL_new(context);
  SSL_set_fd(ssl_, fd_);
  return SSL_accept(ssl_) == 1;
}

std::string TlsPeer::alpn() const {
  const unsigned char* data = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl_, &data, &size);
  return std::string(reinterpret_cast<const char*>(data), size);
}

long TlsPeer::Read(void* buffer, size_t size) {
  if (ssl_ == nullptr) return recv(fd_, buffer, size, 0);
  ERR_clear_error();
  return SSL_read(ssl_, buffer, static_cast<int>(size));
}

bool TlsPeer::Readable(std::chrono::milliseconds wait) const {
  if (SSL_pending(ssl_) > 0) return true;
  pollfd fd{fd_, POLLIN, 0};
  return poll(&fd, 1, static_cast<int>(wait.count())) == 1;
}

bool TlsPeer::ReadHead(ReceivedRequest* request) {
  size_t end;
  while ((end = pending_.find("\r\n\r\n")) == std::string::npos) {
    char buffer[4096];
    const long n = Read(buffer, sizeof(buffer));
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
  }
  request->head = pending_.substr(0, end + 4);
  pending_.erase(0, end + 4);
  if (request->head.starts_with("POST ") || request->head.starts_with("GET ")) ++server_->requests;
  return true;
}

bool TlsPeer::ReadBody(ReceivedRequest* request) {
  const size_t at = request->head.find("Content-Length: ");
  if (at == std::string::npos) {
    if (!request->head.starts_with("GET ")) return false;
    ++server_->bodies;
    return true;
  }
  const size_t size = std::strtoul(request->head.c_str() + at + 16, nullptr, 10);
  while (pending_.size() < size) {
    char buffer[4096];
    const long n = Read(buffer, sizeof(buffer));
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<size_t>(n));
  }
  request->body = pending_.substr(0, size);
  pending_.erase(0, size);
  ++server_->bodies;
  return true;
}

bool TlsPeer::ReadRequest(ReceivedRequest* request) {
  ReceivedRequest unused;
  if (request == nullptr) request = &unused;
  return ReadHead(request) && ReadBody(request);
}

bool TlsPeer::Write(std::string_view bytes) {
  ERR_clear_error();
  return SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size());
}

bool TlsPeer::SendTicket() {
  // OpenSSL overlooks it when nobody takes a ticket any more.
  pollfd broken{fd_, 0, 0};
  return poll(&broken, 1, 0) == 0 && SSL_new_session_ticket(ssl_) == 1 && SSL_do_handshake(ssl_) == 1;
}

void TlsPeer::WriteRaw(std::string_view bytes) { (void)send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

void TlsPeer::CloseNotify() {
  SSL_shutdown(ssl_);
  shutdown(fd_, SHUT_WR);
}

void TlsPeer::Fin() { shutdown(fd_, SHUT_WR); }

void TlsPeer::Reset() {
  // Closing would race with the server's destructor for the number; connecting to nowhere resets just as well.
  sockaddr unspecified{};
  unspecified.sa_family = AF_UNSPEC;
  connect(fd_, &unspecified, sizeof(unspecified));
}

void TlsPeer::WaitForPeerToLeave() {
  char buffer[4096];
  if (ssl_ != nullptr && SSL_is_init_finished(ssl_)) {
    while (Read(buffer, sizeof(buffer)) > 0) {
    }
    return;
  }
  while (recv(fd_, buffer, sizeof(buffer), 0) > 0) {
  }
}

TlsServer::TlsServer(Settings settings, Script script) : settings_(std::move(settings)), script_(std::move(script)) {
  const Identity& identity = TheAuthority().Of(settings_.certificate);
  context_ = SSL_CTX_new(TLS_server_method());
  Must(SSL_CTX_use_certificate(context_, identity.certificate) == 1 &&
           SSL_CTX_use_PrivateKey(context_, identity.key) == 1,
       "server context");
  if (settings_.max_version < TLS1_2_VERSION) SSL_CTX_set_security_level(context_, 0);
  SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context_, settings_.max_version);
  const unsigned char id[] = "http_test";
  SSL_CTX_set_session_id_context(context_, id, sizeof(id) - 1);
  if (settings_.drops_resumed) {
    SSL_CTX_set_info_callback(context_, [](const SSL* ssl, int, int) {
      if (SSL_session_reused(ssl) == 1) shutdown(SSL_get_fd(ssl), SHUT_RDWR);
    });
  }
  SSL_CTX_set_alpn_select_cb(context_, &SelectAlpn, const_cast<std::string*>(&settings_.alpn));
  signal(SIGPIPE, SIG_IGN);  // OpenSSL writes to whoever has gone; the clients must not need this
  listener_ = Listen(&port_);
  acceptor_ = std::thread([this] { Accept(); });
}

TlsServer::~TlsServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& peer : peers_) shutdown(peer->fd_, SHUT_RDWR);
  }
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (std::thread& thread : threads_) thread.join();
  peers_.clear();
  SSL_CTX_free(context_);
  close(listener_);
}

void TlsServer::Accept() {
  for (;;) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      close(fd);
      return;
    }
    auto peer = std::make_shared<TlsPeer>(this, fd, accepted++);
    peers_.push_back(peer);
    threads_.emplace_back([this, peer] {
      const bool handshake = settings_.handshake && peer->index() < settings_.silent_from;
      if (handshake && !peer->Handshake(context_)) return;
      script_(*peer);
      shutdown(peer->fd_, SHUT_RDWR);
    });
  }
}

int ClosedPort() {
  int port = 0;
  close(Listen(&port));
  return port;
}

}  // namespace userintent::http
