#include "server/rpc/tls_watch.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <atomic>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/loop.h"
#include "server/observe/log.h"
#include "server/rpc/hand_over.h"
#include "server/rpc/listener.h"

namespace userintent::rpc {
namespace {

constexpr unsigned char kHandshakeRecord = 22;
// libgrpc's clock for a handshake starts a little before its session is made.
constexpr auto kSlowHandshake = kHandshakeTimeout - std::chrono::milliseconds(500);

// Of one session; belongs to it, and to the thread that works on it.
struct Peer {
  std::string address;
  bool quiet = false;
  SteadyTime begun{};
  bool spoke = false;    // a record came
  bool settled = false;  // the handshake is done, or its end was told
};

thread_local std::vector<SSL_CTX*>* current_contexts = nullptr;

std::array<std::atomic<uint64_t>, kHandshakeResults> results{};

// The first word on a handshake counts.
bool Settle(Peer& peer, HandshakeResult result) {
  if (std::exchange(peer.settled, true) || peer.quiet) return false;
  results[static_cast<size_t>(result)].fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Tell(Peer& peer, HandshakeResult result, std::string_view reason) {
  if (!Settle(peer, result)) return;
  static observe::LogLimiter limiter(std::chrono::milliseconds(200));  // a stranger may come by the thousand
  if (const auto held = limiter.Allow()) {
    observe::Log(observe::Level::kWarn, "tls_handshake_refused",
                 {{"peer", observe::SafeText(peer.address)},
                  {"result", observe::SafeText(kHandshakeResultNames[static_cast<size_t>(result)])},
                  {"detail", observe::SafeText(reason)},
                  {"suppressed", *held}});
  }
}

// Fixed texts of OpenSSL: of the certificate's fault, or else of what this side did not like.
void TellOwnRefusal(Peer& peer, const SSL* ssl) {
  if (const long verified = SSL_get_verify_result(ssl); verified != X509_V_OK) {  // NOLINT: OpenSSL's type
    return Tell(peer, OfVerifyResult(verified), absl::StrCat("client certificate: ", tls::VerifyErrorText(verified)));
  }
  const unsigned long error = ERR_peek_last_error();  // NOLINT: OpenSSL's type
  const char* const text = ERR_reason_error_string(error);
  Tell(peer, OfSslError(error), text != nullptr ? text : "refused");
}

void OnTlsSessionMade(void* session, void*, CRYPTO_EX_DATA* data, int index, long, void*) {
  const Connection* const from = HandOver::Of(static_cast<SSL*>(session));
  if (from != nullptr) CRYPTO_set_ex_data(data, index, new Peer{from->address, from->probe, SteadyClock::now()});
}

void OnTlsSessionFreed(void*, void* mine, CRYPTO_EX_DATA*, int, long, void*) {
  auto* const peer = static_cast<Peer*>(mine);
  if (peer == nullptr) return;
  // A port that is merely looked at, by a balancer's check, is no news.
  if (peer->spoke) {
    const bool slow = SteadyClock::now() - peer->begun >= kSlowHandshake;
    Tell(*peer, slow ? HandshakeResult::kHandshakeTimeout : HandshakeResult::kPeerConnectionClosed,
         slow ? "the peer was too slow" : "the peer left");
  }
  delete peer;
}

int PeerIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, OnTlsSessionMade, nullptr, OnTlsSessionFreed);
  return index;
}

void OnMessage(int written, int, int type, const void* data, size_t size, SSL* ssl, void*) {
  auto* const peer = static_cast<Peer*>(SSL_get_ex_data(ssl, PeerIndex()));
  if (peer == nullptr || peer->settled || size == 0) return;
  const auto* const bytes = static_cast<const unsigned char*>(data);
  if (type == SSL3_RT_HEADER && written == 0) {
    if (!std::exchange(peer->spoke, true) && bytes[0] != kHandshakeRecord) {
      Tell(*peer, HandshakeResult::kUnexpectedMessage, "the peer does not speak TLS");
    }
  } else if (type == SSL3_RT_ALERT && size >= 2) {
    const int alert = bytes[0] << 8 | bytes[1];
    if (written != 0) {
      TellOwnRefusal(*peer, ssl);
    } else {
      Tell(*peer, HandshakeResult::kRefusedByPeer,
           absl::StrCat("the peer refuses: ", SSL_alert_desc_string_long(alert)));
    }
  }
}

void OnProgress(const SSL* ssl, int where, int) {
  if ((where & SSL_CB_HANDSHAKE_DONE) == 0) return;
  auto* const peer = static_cast<Peer*>(SSL_get_ex_data(ssl, PeerIndex()));
  if (peer != nullptr) Settle(*peer, HandshakeResult::kSuccess);
}

void OnContextMade(void* context, void*, CRYPTO_EX_DATA*, int, long, void*) {
  if (current_contexts != nullptr) current_contexts->push_back(static_cast<SSL_CTX*>(context));
}

void OnContextFreed(void* context, void* mine, CRYPTO_EX_DATA*, int, long, void*) {
  if (current_contexts != nullptr) std::erase(*current_contexts, static_cast<SSL_CTX*>(context));
  delete static_cast<tls::Files*>(mine);
}

int FilesIndex() {
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, OnContextMade, nullptr, OnContextFreed);
  return index;
}

// After the peer's first message, before the answer: the session gets what is current, in place of what libgrpc was
// given at the start. OpenSSL counts who holds each part, so the snapshots may go.
int OnCertificateNeeded(SSL* ssl, void* data) {
  const auto& files = *static_cast<const tls::Files*>(data);
  const auto pair = files.certificate->Snapshot();
  const auto trust = files.authorities->Snapshot();
  SSL_certs_clear(ssl);  // one of another kind of key would stay
  if (SSL_use_cert_and_key(ssl, pair->own(), pair->key.get(), pair->chain.get(), 1) != 1 ||
      SSL_set1_verify_cert_store(ssl, trust->store.get()) != 1) {
    return 0;
  }
  SSL_set_info_callback(ssl, OnProgress);  // libgrpc's own is for its log only
  SSL_set_client_CA_list(ssl, SSL_dup_CA_list(trust->names.get()));
  return 1;
}

}  // namespace

std::array<uint64_t, kHandshakeResults> Handshakes() {
  std::array<uint64_t, kHandshakeResults> now{};
  for (size_t i = 0; i < now.size(); ++i) now[i] = results[i].load(std::memory_order_relaxed);
  return now;
}

uint64_t RefusedHandshakes() {
  const auto all = Handshakes();
  return std::accumulate(all.begin(), all.end(), uint64_t{0}) - all[static_cast<size_t>(HandshakeResult::kSuccess)];
}

TlsContextScope::TlsContextScope(tls::Files files) : files_(std::move(files)) {
  (void)FilesIndex();
  HandOver::Prepare();
  (void)PeerIndex();
  current_contexts = new std::vector<SSL_CTX*>;
}

TlsContextScope::~TlsContextScope() {
  for (SSL_CTX* const context : *current_contexts) {
    HandOver::WatchContext(context);
    if (!files_) continue;
    auto* const files = new tls::Files(files_);  // OnContextFreed deletes them
    SSL_CTX_set_ex_data(context, FilesIndex(), files);
    SSL_CTX_set_cert_cb(context, OnCertificateNeeded, files);
    SSL_CTX_clear_extra_chain_certs(context);  // of the first certificate; later ones bring their own
    SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_msg_callback(context, OnMessage);
  }
  delete std::exchange(current_contexts, nullptr);
}

}  // namespace userintent::rpc
