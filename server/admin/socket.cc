#include "server/admin/socket.h"

#include <sys/un.h>

#include "server/base/text.h"

namespace userintent::admin {

std::string SocketPath(const std::string& path) { return path + ".admin"; }

bool SocketFits(const std::string& socket) { return socket.size() < sizeof(sockaddr_un::sun_path); }

std::string SocketTarget(const std::string& socket) { return "unix:" + PercentEncoded(socket, "/"); }

}  // namespace userintent::admin
