// NewClient: the http::Client that Options::transport asks for.
#pragma once

#include <memory>

#include "server/http/client.h"

namespace userintent::http {

// CurlGlobalInit() must have been called, see curl_client.h. With Transport::kAuto the client holds both kinds: it
// offers h2 and http/1.1, and when the origin picks the latter it closes that connection, on which nothing was sent,
// and gives its exchanges to libcurl for some minutes. An exchange that waited for such a connection has its exchange
// timeout counted from there. Null when the process is out of descriptors or memory.
std::unique_ptr<Client> NewClient(Options options);

}  // namespace userintent::http
