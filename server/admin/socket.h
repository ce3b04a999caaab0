// Where a running server answers its operator: a Unix domain socket beside the ledger file. Pure functions; any thread.
#pragma once

#include <string>

namespace userintent::admin {

// The socket of the ledger in the file `path`.
std::string SocketPath(const std::string& path);

// Whether the name fits into a socket address (107 bytes).
bool SocketFits(const std::string& socket);

// The name for gRPC, which takes it for a URI.
std::string SocketTarget(const std::string& socket);

}  // namespace userintent::admin
