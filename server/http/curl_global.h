// CurlGlobalInit: libcurl set up for the process.
#pragma once

#include "absl/status/status.h"

namespace userintent::http {

// To be called in main() before any other thread starts; further calls only return the first result. Makes libcurl wipe
// what it frees, and ignores SIGPIPE. Fails when libcurl was built without OpenSSL, HTTP/2 or threaded name resolution,
// because the proofs in the client rest on them.
absl::Status CurlGlobalInit();

}  // namespace userintent::http
