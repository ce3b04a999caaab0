#include "server/admin/socket.h"

#include <sys/un.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"

namespace userintent::admin {

std::string SocketPath(const std::string& path) { return path + ".admin"; }

bool SocketFits(const std::string& socket) { return socket.size() < sizeof(sockaddr_un::sun_path); }

std::string SocketTarget(const std::string& socket) {
  std::string target = "unix:";
  for (const char c : socket) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || c == '/' || c == '.' || c == '_' || c == '-') {
      target += c;
    } else {
      absl::StrAppendFormat(&target, "%%%02X", byte);
    }
  }
  return target;
}

}  // namespace userintent::admin
