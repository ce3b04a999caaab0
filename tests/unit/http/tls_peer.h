// A TLS server inside the test that does on each connection what a script says, byte by byte.
//
// Every connection is accepted by the server's own thread and scripted on one more. A script runs on its connection's
// thread; what it shares with the test it shares through Event and the server's counters. The server owns its threads
// and joins them when it is destroyed, after cutting every connection, so a script that waits for its peer ends.
#pragma once

#include <openssl/ssl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace userintent::http {

// Something that happens once. Any thread.
class Event {
 public:
  void Set();
  bool Wait();  // false after 30 s: the test has failed
  bool IsSet();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// A certificate authority and the certificates that it signed, made when first asked for.
enum class CertificateFor {
  kThisHost,
  kOtherHost,
  kThisHostOnceUponATime,     // expired
  kTwoByCommonName,           // "two.example.test" as its common name, while the alternative names are an address
  kThisHostByAnIntermediate,  // signed by IntermediateFile()'s, which the server does not send
};
const std::string& TestCaFile();        // the authority behind all
const std::string& OtherCaFile();       // an authority that signed nothing
const std::string& IntermediateFile();  // an authority of which TestCaFile()'s vouches

struct ReceivedRequest {
  std::string head;
  std::string body;
};

class TlsServer;

// One accepted connection, as its script sees it.
class TlsPeer {
 public:
  TlsPeer(TlsServer* server, int fd, int index) : server_(server), fd_(fd), index_(index) {}
  ~TlsPeer();

  bool Handshake(SSL_CTX* context);
  int index() const { return index_; }  // how many connections came before
  bool resumed() const { return SSL_session_reused(ssl_) == 1; }
  std::string alpn() const;

  bool ReadHead(ReceivedRequest* request);  // counts a POST or GET
  bool ReadBody(ReceivedRequest* request);  // counts a whole request; a GET is whole with its head
  bool ReadRequest(ReceivedRequest* request = nullptr);
  bool HasMore() const { return !pending_.empty(); }    // beyond what was read
  bool Write(std::string_view bytes);                   // one TLS record, up to 16 KiB
  bool SendTicket();                                    // one more TLS session to resume
  long Read(void* buffer, size_t size);                 // without a handshake, of the bare connection
  bool Readable(std::chrono::milliseconds wait) const;  // Read() would say something
  void WriteRaw(std::string_view bytes);                // past TLS
  void CloseNotify();
  void Fin();
  void Reset();
  void WaitForPeerToLeave();  // swallows what comes

 private:
  friend class TlsServer;
  TlsServer* server_;
  int fd_;
  int index_;
  SSL* ssl_ = nullptr;
  std::string pending_;
};

class TlsServer {
 public:
  using Script = std::function<void(TlsPeer&)>;
  struct Settings {
    CertificateFor certificate = CertificateFor::kThisHost;
    std::string alpn = "http/1.1";  // the first of these that the client offers is taken: "h2,http/1.1"
    bool handshake = true;          // false: the script gets the bare TCP connection
    int silent_from = 1 << 30;      // connections from this one on are not answered by TLS either
    int max_version = TLS1_3_VERSION;
    bool drops_resumed = false;  // a handshake that resumes a session is broken off
  };

  TlsServer(Settings settings, Script script);
  explicit TlsServer(Script script) : TlsServer(Settings{}, std::move(script)) {}
  ~TlsServer();

  int port() const { return port_; }
  std::string origin() const { return "https://127.0.0.1:" + std::to_string(port_); }

  std::atomic<int> accepted{0};  // TCP connections
  std::atomic<int> requests{0};  // heads of a POST or GET
  std::atomic<int> bodies{0};    // whole requests

 private:
  void Accept();

  const Settings settings_;
  const Script script_;
  SSL_CTX* context_ = nullptr;
  int listener_ = -1;
  int port_ = 0;
  std::mutex mutex_;
  bool stopping_ = false;
  std::vector<std::shared_ptr<TlsPeer>> peers_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// A port of 127.0.0.1 on which nobody listens.
int ClosedPort();

}  // namespace userintent::http
