// The http::Client on libcurl: one multi handle, driven by socket_action from an epoll descriptor of its own.
//
// NewCurlClient() gives a client that belongs to the calling thread from its first Start() on; see client.h for the
// rules. The client owns every connection, handle and timer; requests and their secrets are owned by the client until
// the exchange has ended and are then wiped. Inside a Done callback Start() and CancelUnsent() may be called, but the
// client must not be destroyed.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "server/http/client.h"

namespace userintent::http {

// Sets libcurl up for the process: call it in main() before any other thread starts; further calls only return the
// first result. Makes libcurl wipe what it frees, and ignores SIGPIPE. Fails when libcurl was built without OpenSSL,
// HTTP/2 or threaded name resolution, because the proofs in the client rest on them.
absl::Status CurlGlobalInit();

// Null when the process is out of descriptors or memory, or when CurlGlobalInit() fails.
std::unique_ptr<Client> NewCurlClient(Options options);

}  // namespace userintent::http
