// CreateClient: the http::Client that Options::transport asks for.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/http/client.h"

namespace userintent::http {

// CurlGlobalInit() must have been called, see curl_global.h. With Transport::kAuto the client holds both kinds: it
// offers h2 and http/1.1, and when the origin picks the latter it closes that connection, on which nothing was sent,
// and gives its exchanges to libcurl for some minutes. An exchange that waited for such a connection has its exchange
// timeout counted from there. Fails when the process is out of descriptors or memory.
absl::StatusOr<std::unique_ptr<Client>> CreateClient(Options options);

}  // namespace userintent::http
