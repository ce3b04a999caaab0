// HandOver: which connection libgrpc makes a TLS session for.
//
// OpenSSL tells of each session that is made, but not for which socket: libgrpc moves the bytes itself. libgrpc 1.51
// makes the session while it is handed the connection, on that thread; newer ones make it a moment later on a thread of
// their own. So connections are handed over one after the other, each until its session is there, and the session that
// is made meanwhile is that connection's.
//
//   HandOver::WatchContext(context);        // the server's TLS contexts, before the first connection
//   {
//     const HandOver scope({fd, "192.0.2.1:4711", false});
//     sink->HandleNewConnection(...);
//   }                                       // waits for the session
//   const Connection* from = HandOver::Of(ssl);
//
// Sessions of other contexts, such as those to Astra, are left alone. Where nothing is watched, because the server
// speaks without TLS, nothing is waited for.
#pragma once

#include <openssl/ssl.h>

#include <string>

namespace userintent::rpc {

// What is known of a connection when it comes in.
struct Connection {
  int fd = -1;          // libgrpc closes it when it likes
  std::string address;  // as in "192.0.2.1:4711"
  bool probe = false;   // the server's own, whose handshake ends early by intention
};

// One at a time in the process; the rest of this header may be called by any thread.
class HandOver {
 public:
  explicit HandOver(Connection connection);
  // A session that does not come within a second is not waited for any longer. Then those that come belong to nobody,
  // rather than to a connection that they may not be of, until none is missing.
  ~HandOver();
  HandOver(const HandOver&) = delete;
  HandOver& operator=(const HandOver&) = delete;

  static void WatchContext(SSL_CTX* context);

  // Null for a session that is not watched, and for one of which is not known whose it is. Known from the beginning: to
  // whom SSL_get_ex_new_index was called for after the first WatchContext or Prepare, in the session's new_func
  // already.
  static const Connection* Of(const SSL* session);

  // Before any SSL_get_ex_new_index whose new_func asks Of().
  static void Prepare();
};

}  // namespace userintent::rpc
