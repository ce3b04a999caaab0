// H2Wire: one connected socket and the TLS on it. Records gather here, so that one system call takes all of them.
//
// Belongs to an H2Connection and its thread; knows nothing of HTTP/2. Never blocks.
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/base/loop.h"
#include "server/http/tls_context.h"

namespace userintent::http {

class H2Wire {
 public:
  enum class Sent {
    kAll,
    kPart,    // the socket takes no more for now; epoll tells when it does
    kLost,    // the connection is gone
    kFailed,  // epoll does not take the socket
  };
  enum class Heard {
    kBytes,
    kNothing,  // nothing more for now, or the turn is over; epoll tells when there is more
    kAlert,    // the peer says that TLS failed
    kEnd,      // closed, gone or broken
  };
  enum class Shaken { kDone, kGoingOn, kFailed };

  // `event` is what epoll returns for the socket; `now` is the time of the owner's turn. Both outlive the wire.
  H2Wire(int epoll, void* event, const SteadyTime& now) : epoll_(epoll), event_(event), now_(now) {}
  ~H2Wire();
  H2Wire(const H2Wire&) = delete;
  H2Wire& operator=(const H2Wire&) = delete;

  // Takes a connected socket, which is in the epoll set for writing, and the state of its TLS (null: there is none).
  // False: out of memory.
  bool Begin(int fd, SSL* ssl);
  // Closes the socket at once, so that it wakes its owner no more.
  void Close();
  // The session may be resumed by later connections, however this one ends.
  void KeepSession() { keep_session_ = true; }

  void BeginTurn();  // the socket may have more to read

  Shaken Handshake();
  std::string_view alpn() const;
  bool has_tls() const { return ssl_ != nullptr; }
  SystemTime peer_end() const { return PeerEnd(ssl_); }
  bool trusted() const { return SSL_get_verify_result(ssl_) == X509_V_OK; }

  // Reads into `buffer`; `size` becomes how much. Counts what the socket gives, in received().
  Heard Read(uint8_t* buffer, size_t* size);
  // Encrypts; Send() must follow. False: TLS is broken.
  bool Write(std::string_view plain);
  Sent Send();
  // Last words, as far as the socket takes them at once.
  void SendOnce();
  void Shutdown();  // TLS's close_notify, then SendOnce()
  // The socket takes no more: drops the unsent bytes, so that those can be read which came before it broke.
  void Drop();

  bool idle() const { return unsent_.empty(); }       // everything has left
  SteadyTime unsent_since() const { return since_; }  // when what is unsent began to wait for the socket
  uint64_t received() const { return received_; }     // bytes of TLS, its own messages included

 private:
  static BIO_METHOD* Method();
  static int OnWrite(BIO* bio, const char* data, int size) noexcept;
  static int OnRead(BIO* bio, char* out, int size) noexcept;
  bool Watch(bool writable);

  const int epoll_;
  void* const event_;
  const SteadyTime& now_;
  int fd_ = -1;
  SSL* ssl_ = nullptr;
  bool keep_session_ = false;
  bool watching_writable_ = false;
  bool drained_ = false;  // the socket had no more when it was last read, or has had its turn
  size_t read_ = 0;       // in this turn
  uint64_t received_ = 0;
  std::string unsent_;  // TLS records that the socket did not take yet
  size_t sent_ = 0;     // how much of it has left
  SteadyTime since_{};
};

}  // namespace userintent::http
